"""LZX chunks: what wimlib made, what is built from the documentation, and damaged ones."""

import struct
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.decoders import lzx
from restorefs.guestfs.decoders.lzx import MAX_CHUNK
from tests.compiled import uncompiled
from tests.pure import wim_chunks

Decode = Callable[[bytes, int], bytes]

PYTHON = uncompiled(lzx)

BODY = bytes(range(256)) * 16


@pytest.fixture(params=[lzx, PYTHON], ids=["installed", "python"])
def decode(request: pytest.FixtureRequest) -> Decode:
    """The decoder in either form."""
    made: Decode = request.param.decode
    return made


def outcome(decoder: ModuleType, chunk: bytes, size: int) -> bytes | str:
    """What a form makes of a chunk: bytes, or the text of its error."""
    try:
        decoded: bytes = decoder.decode(chunk, size)
    except DamagedError as error:
        return str(error)
    assert len(decoded) == size
    return decoded


def words_of(bits: str) -> bytes:
    """Bits as LZX stores them: words of 16, the highest bit first, padded by 1 to 16 zeros."""
    bits += "0" * (16 - len(bits) % 16)
    return b"".join(struct.pack("<H", int(bits[at : at + 16], 2)) for at in range(0, len(bits), 16))


def uncompressed(body: bytes, size: int | None = None) -> bytes:
    """An uncompressed block (MS-PATCH 2.3.2.1)."""
    size = len(body) if size is None else size
    bits = "011" + ("1" if size == MAX_CHUNK else f"0{size:016b}")
    return words_of(bits) + struct.pack("<3I", 1, 1, 1) + body + bytes(len(body) % 2)


@pytest.mark.parametrize(
    "sample",
    [wim_chunks.LZX_CALLS, wim_chunks.LZX_RECORDS, wim_chunks.LZX_TWO_BLOCKS],
    ids=["calls", "records", "two-blocks"],
)
def test_chunks_of_wimlib(sample: tuple[bytes, bytes], decode: Decode) -> None:
    content, stored = sample
    assert decode(stored, len(content)) == content


@pytest.mark.parametrize("sizes", [(1,), (100,), (101, 1000), (101, 3, 5), (4096, 1), (12,)])
def test_uncompressed_blocks_with_a_byte_behind_odd_ones(
    sizes: tuple[int, ...], decode: Decode
) -> None:
    bodies = [BODY[size : 2 * size] if 2 * size <= len(BODY) else BODY[:size] for size in sizes]
    stored = b"".join(map(uncompressed, bodies))
    assert decode(stored, sum(sizes)) == b"".join(bodies)


def test_a_block_of_32_kib_has_one_bit_for_its_size(decode: Decode) -> None:
    assert decode(uncompressed(BODY * 8), MAX_CHUNK) == BODY * 8


def call(position: int, value: int, size: int) -> bytes:
    body = bytearray(size)
    body[position : position + 5] = b"\xe8" + struct.pack("<i", value)
    return bytes(body)


@pytest.mark.parametrize(
    ("position", "stored", "shown"),
    [
        (0, 5, 5),
        (10, 5, -5),
        (10, -10, 11_999_990),  # the lowest that is translated
        (10, -11, -11),
        (10, 11_999_999, 11_999_989),
        (10, 12_000_000, 12_000_000),
        (89, 1000, 911),  # the last byte that may begin a call in a chunk of 100
        (90, 1000, 1000),
    ],
)
def test_call_translation(position: int, stored: int, shown: int, decode: Decode) -> None:
    chunk = uncompressed(call(position, stored, 100))
    assert decode(chunk, 100) == call(position, shown, 100)


def test_the_operand_of_a_call_is_not_looked_at_for_another_one(decode: Decode) -> None:
    body = b"\0" * 10 + b"\xe8\xe8\xe8\xe8\xe8" + b"\xe8\x20\0\0\0" + bytes(20)
    shown = body[:16] + struct.pack("<i", 0x20 - 15) + body[20:]
    assert decode(uncompressed(body), len(body)) == shown


@pytest.mark.parametrize(
    ("chunk", "size"),
    [
        (b"", 1),
        (b"\0", 1),
        (words_of("000" + "1"), MAX_CHUNK),  # no such type
        (words_of("111" + "1"), MAX_CHUNK),
        (uncompressed(BODY[:100])[:-1], 100),
        (uncompressed(BODY[:100]), 101),  # and nothing for the last byte
        (uncompressed(BODY[:100]), 99),
        (uncompressed(b"", 0), 1),
        (words_of("001" + "1" + "0" * 80), MAX_CHUNK),  # trees without codes
        (uncompressed(BODY[:100]), 0),
        (uncompressed(BODY[:100]), MAX_CHUNK + 1),
    ],
)
def test_damaged_chunks(chunk: bytes, size: int, decode: Decode) -> None:
    with pytest.raises(DamagedError):
        decode(chunk, size)


@pytest.mark.parametrize("length", [0, 1, 50, 300, 610])
def test_chunks_that_are_cut_off(length: int, decode: Decode) -> None:
    content, stored = wim_chunks.LZX_RECORDS
    with pytest.raises(DamagedError):
        decode(stored[:length], len(content))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_flipped_bits_give_the_size_or_an_error(data: st.DataObject) -> None:
    content, stored = data.draw(st.sampled_from([wim_chunks.LZX_CALLS, wim_chunks.LZX_RECORDS]))
    damaged = bytearray(stored)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    chunk = bytes(damaged)
    assert outcome(lzx, chunk, len(content)) == outcome(PYTHON, chunk, len(content))


@given(st.binary(max_size=300), st.integers(1, MAX_CHUNK))
@settings(deadline=None)
def test_arbitrary_bytes_give_the_size_or_an_error(chunk: bytes, size: int) -> None:
    assert outcome(lzx, chunk, size) == outcome(PYTHON, chunk, size)
