"""NTFS compression units, built from the documentation; those of ntfs-3g are in tests/real."""

import struct
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pyfwnt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs import decompress
from restorefs.guestfs.decoders import lznt1
from restorefs.guestfs.decompress import decode_units
from tests.compiled import uncompiled

Decode = Callable[[bytes, int], bytearray]

PYTHON = uncompiled(lznt1)

in_both_forms = pytest.mark.parametrize("decoder", [lznt1, PYTHON], ids=["installed", "python"])


@pytest.fixture(params=[lznt1, PYTHON], ids=["installed", "python"])
def decode_unit(request: pytest.FixtureRequest) -> Decode:
    """Decode one unit, in either form."""
    decode = request.param.decode
    return lambda stored, size: decode(stored, [0, len(stored)], max(size, 1), size)


# The example of MS-XCA 3.3.
TUNE = bytes.fromhex(
    "38b08846232000204720410010a24701a045204400084501507900c0452005241388"
    "05b4024a44ef0358028c091601484500be009e000401189000"
)
TUNE_DECODED = (
    b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D "
    b"E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0"
)


def plain(body: bytes) -> bytes:
    """An uncompressed chunk (MS-XCA 2.5.1.2)."""
    return struct.pack("<H", 0x3000 | len(body) - 1) + body


def literals(body: bytes) -> bytes:
    """A compressed chunk of literals only."""
    groups = b"".join(b"\0" + body[at : at + 8] for at in range(0, len(body), 8))
    return struct.pack("<H", 0xB000 | len(groups) - 1) + groups


def zeros() -> bytes:
    """A compressed chunk: one zero, and a reference to it for 4095 more."""
    return struct.pack("<HBBH", 0xB003, 2, 0, 0x0FFC)


A, B = bytes(range(256)) * 16, bytes(reversed(range(256))) * 16


def test_the_example_of_the_specification(decode_unit: Decode) -> None:
    assert decode_unit(TUNE, len(TUNE_DECODED)) == TUNE_DECODED


def test_what_lies_behind_the_data_is_not_looked_at(decode_unit: Decode) -> None:
    stored = zeros() + plain(A) + b"\xff" * 700
    assert decode_unit(stored, 8192) == bytes(4096) + A


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8191, 8192])
def test_as_much_as_is_wanted(size: int, decode_unit: Decode) -> None:
    assert decode_unit(plain(A) + plain(B), size) == (A + B)[:size]


def test_a_plain_chunk_at_the_end_of_a_file_may_be_short(decode_unit: Decode) -> None:
    assert decode_unit(plain(A) + plain(B[:904]), 5000) == A + B[:904]


def test_a_compressed_chunk_that_holds_little_is_followed_by_zeros(decode_unit: Decode) -> None:
    stored = literals(b"little") + plain(B)
    assert decode_unit(stored, 8192) == b"little" + bytes(4090) + B
    assert decode_unit(stored, 10) == b"little" + bytes(4)


def test_zeros_follow_the_marker_of_the_end(decode_unit: Decode) -> None:
    assert decode_unit(plain(A) + b"\0\0" + b"\xff" * 100, 65536) == A + bytes(61440)


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        (b"", 1),
        (b"\0", 1),
        (b"\0\0", 1),  # ends before it begins: a unit of zeros is a hole
        (bytes(4096), 65536),
        (plain(A), 4097),  # ends without a marker
        (plain(A) + b"\0", 4097),
        (plain(A)[:-1], 4096),  # a chunk is cut off
        (literals(b"little")[:-1], 4),
        (plain(A[:904]) + plain(B), 5000),  # too short for where it stands
        (struct.pack("<H", 0x0FFF) + A, 4096),  # wrong signature
        (struct.pack("<H", 0x8FFF) + A, 4096),
        (struct.pack("<H", 0xFFFF) + A, 4096),
        (struct.pack("<HBH", 0xB002, 1, 0x0FFC), 4096),  # refers to before the chunk
        (struct.pack("<HBBH", 0xB003, 2, 0, 0x0FFF), 4096),  # more than 4096 bytes
        (struct.pack("<HBBB", 0xB002, 2, 0, 0) + plain(A), 8192),  # half a reference
        (plain(A) + struct.pack("<HBH", 0xB002, 1, 0), 8192),  # the chunk before is no source
        (struct.pack("<HB", 0xB000, 0), 4096),  # flags, and nothing behind them
        (struct.pack("<HBBHB", 0xB004, 2, 0, 0x0FFC, 0), 4096),  # a byte too many
    ],
)
def test_damaged_units(stored: bytes, size: int, decode_unit: Decode) -> None:
    with pytest.raises(DamagedError):
        decode_unit(stored, size)


def units(*parts: bytes) -> tuple[bytes, list[int]]:
    """What is stored of units, and where each one begins."""
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part))
    return b"".join(parts), bounds


@in_both_forms
@pytest.mark.parametrize("size", [0, 1, 8192, 8193, 16_384, 20_000, 24_576])
def test_units_stand_for_their_size(size: int, decoder: ModuleType) -> None:
    """Also those that hold less, and whatever lies between their ends and the next ones."""
    stored, bounds = units(
        zeros() + plain(A) + b"\xff" * 10, plain(B) + b"\0\0", literals(b"little") + plain(B)
    )
    content = bytes(4096) + A + B + bytes(4096) + b"little" + bytes(4090) + B
    assert decoder.decode(stored, bounds, 8192, size) == content[:size]


@in_both_forms
def test_units_that_are_smaller_than_a_chunk(decoder: ModuleType) -> None:
    """What a unit has too much never shows in the next one."""
    stored, bounds = units(plain(A), plain(B[:512]) + b"\0\0", zeros(), plain(B[:512]))
    content = A[:1024] + B[:512] + bytes(512)
    with pytest.raises(DamagedError):
        decoder.decode(stored, bounds, 1024, 2048)  # B's chunk is too short for its unit
    stored, bounds = units(plain(A), literals(B[:512]), zeros(), plain(B))
    content += bytes(1024) + B[:1000]
    assert decoder.decode(stored, bounds, 1024, 4072) == content


@in_both_forms
def test_a_unit_ends_where_its_clusters_end(decoder: ModuleType) -> None:
    """Those of the next one do not continue it."""
    stored, bounds = units(plain(A), plain(B) + plain(B))
    with pytest.raises(DamagedError):
        decoder.decode(stored, bounds, 8192, 16_384)


@in_both_forms
@pytest.mark.parametrize("size", [-1, 8193])
def test_more_than_the_units_have_is_a_mistake(size: int, decoder: ModuleType) -> None:
    with pytest.raises(ValueError, match="of 1 units"):
        decoder.decode(plain(A), [0, len(plain(A))], 8192, size)


def outcome(decoder: ModuleType, stored: bytes, size: int) -> bytes | str:
    """What a form makes of a unit: bytes, or the text of its error."""
    try:
        decoded: bytearray = decoder.decode(stored, [0, len(stored)], max(size, 1), size)
    except DamagedError as error:
        return str(error)
    assert len(decoded) == size
    return bytes(decoded)


@given(st.binary(max_size=600), st.integers(0, 70_000))
def test_arbitrary_bytes_give_the_size_or_an_error(stored: bytes, size: int) -> None:
    assert outcome(lznt1, stored, size) == outcome(PYTHON, stored, size)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_units_give_the_size_or_an_error(data: st.DataObject) -> None:
    damaged = bytearray(TUNE + plain(A) + zeros() + TUNE + b"\0\0")
    near = st.integers(0, len(TUNE) - 1)
    far = st.integers(0, len(damaged) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(near | far)] = data.draw(st.integers(0, 255))
    stored = bytes(damaged[: data.draw(st.just(len(damaged)) | far)])
    assert outcome(lznt1, stored, 20_000) == outcome(PYTHON, stored, 20_000)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """Compressed chunks that make sense, or nearly."""
    body, done = bytearray(), 0
    for _ in range(draw(st.integers(1, 12))):
        flags = draw(st.sampled_from([0x00, 0xFF, 0x02, 0xAA, 0x80]) | st.integers(0, 255))
        body.append(flags)
        for bit in range(8):
            if flags >> bit & 1:
                length_bits = 16 - min(12, max(4, (done - 1).bit_length()))
                back = draw(st.integers(0, max(0, done - 1)) | st.integers(0, done + 1))
                length = draw(st.integers(0, 15) | st.integers(0, (1 << length_bits) - 1))
                body += struct.pack("<H", (back << length_bits | length) & 0xFFFF)
                done += length + 3
            else:
                body.append(draw(st.integers(0, 255)))
                done += 1
    del body[draw(st.just(len(body)) | st.integers(1, len(body))) :]
    return struct.pack("<H", 0xB000 | len(body) - 1) + body


@given(chunks())
@settings(max_examples=300, deadline=None)
def test_chunks_decode_as_libfwnt_decodes_them(chunk: bytes) -> None:
    """A second opinion, on what to refuse too."""
    ours = outcome(lznt1, chunk, 4096)
    assert ours == outcome(PYTHON, chunk, 4096)
    try:
        theirs = pyfwnt.lznt1_decompress(chunk, 4096)
    except OSError:
        assert isinstance(ours, str)
    else:
        assert ours == theirs.ljust(4096, b"\0")


@pytest.mark.parametrize("count", [1, 100])
async def test_many_units(count: int) -> None:
    """On the event loop, and in a thread."""
    stored, bounds = units(*[plain(A) + zeros()] * count)
    decoded = await decode_units(stored, bounds, 8192, 8192 * count - 1)
    assert decoded == ((A + bytes(4096)) * count)[:-1]


@pytest.mark.parametrize("count", [1, 100])
async def test_an_error_in_one_of_many_units(count: int) -> None:
    stored, bounds = units(*[plain(A) + zeros()] * count, plain(A))
    with pytest.raises(DamagedError):
        await decode_units(stored, bounds, 8192, 8192 * (count + 1))


async def test_where_it_is_not_compiled_the_event_loop_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()

    def decode(stored: bytes, bounds: list[int], unit_size: int, size: int) -> bytearray:
        seen.add(threading.get_ident())
        return PYTHON.decode(stored, bounds, unit_size, size)

    slow = SimpleNamespace(COMPILED=False, decode=decode)
    monkeypatch.setattr(decompress, "lznt1", slow)
    assert await decode_units(plain(A), [0, len(plain(A))], 8192, 4096) == A
    assert seen
    assert threading.get_ident() not in seen
