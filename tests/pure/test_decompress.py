"""The decoders: what other encoders made, damaged data, and where the work is done."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs import decompress
from restorefs.guestfs.decompress import decode_parts, xpress_huffman
from tests.pure import wim_chunks


@pytest.mark.parametrize(
    "sample", [wim_chunks.XPRESS_WORDS, wim_chunks.XPRESS_CALLS], ids=["words", "calls"]
)
def test_xpress_chunks_of_wimlib(sample: tuple[bytes, bytes]) -> None:
    content, stored = sample
    assert xpress_huffman(stored, len(content)) == content


def xpress(lengths: dict[int, int], data: str) -> bytes:
    """A chunk: the lengths of the codes of its symbols, and the rest in hex (MS-XCA 2.2.4)."""
    table = bytearray(256)
    for symbol, length in lengths.items():
        table[symbol // 2] |= length << 4 * (symbol % 2)
    return bytes(table) + bytes.fromhex(data)


def test_the_xpress_example_of_the_specification() -> None:
    """MS-XCA 3.1."""
    stored = xpress({97: 3, 98: 3, 99: 2, 256: 2, 287: 2}, "a8dc0000ff2601")
    assert xpress_huffman(stored, 300) == b"abc" * 100


def test_an_xpress_chunk_of_windows() -> None:
    """16 KiB of zeros, from github.com/thewhiteninja/ntfstool, issue 8."""
    stored = xpress({0: 2, 256: 2, 271: 1}, "00980000fffc3f")
    assert xpress_huffman(stored, 16_384) == bytes(16_384)


@pytest.mark.parametrize("change", [-1, 1, 5000])
def test_xpress_gives_the_size_that_was_asked_for_or_an_error(change: int) -> None:
    content, stored = wim_chunks.XPRESS_WORDS
    with pytest.raises(DamagedError):
        xpress_huffman(stored, len(content) + change)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 259, 260, 400])
def test_xpress_that_is_cut_off(length: int) -> None:
    content, stored = wim_chunks.XPRESS_WORDS
    with pytest.raises(DamagedError):
        xpress_huffman(stored[:length], len(content))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_xpress_gives_the_size_or_an_error(data: st.DataObject) -> None:
    content, stored = wim_chunks.XPRESS_CALLS
    damaged = bytearray(stored)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = xpress_huffman(bytes(damaged), len(content))
    except DamagedError:
        return
    assert len(decoded) == len(content)


def noting_the_thread(seen: set[int]):
    def decoder(stored: bytes, size: int) -> bytes:
        seen.add(threading.get_ident())
        if stored == b"damaged":
            raise DamagedError("this one")
        return stored * size

    return decoder


async def test_little_work_is_done_on_the_event_loop() -> None:
    seen: set[int] = set()
    assert await decode_parts(noting_the_thread(seen), [(b"a", 3), (b"b", 2)]) == [b"aaa", b"bb"]
    assert await decode_parts(noting_the_thread(seen), []) == []
    assert seen == {threading.get_ident()}


async def test_much_work_is_done_elsewhere_and_comes_back_in_order() -> None:
    seen: set[int] = set()
    parts = [(bytes((number,)), 50_000) for number in range(21)]
    decoded = await decode_parts(noting_the_thread(seen), parts)
    assert decoded == [stored * size for stored, size in parts]
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("size", [1, 400_000])
async def test_an_error_of_one_part_is_raised_as_it_is(size: int) -> None:
    with pytest.raises(DamagedError, match="this one"):
        await decode_parts(noting_the_thread(set()), [(b"a", size), (b"damaged", 1), (b"b", 1)])


async def test_what_is_slow_is_never_decoded_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()
    slow = noting_the_thread(seen)
    monkeypatch.setattr(decompress, "_SLOW", (slow,))
    assert await decode_parts(slow, [(b"a", 1), (b"b", 2)]) == [b"a", b"bb"]
    assert threading.get_ident() not in seen
    assert len(seen) == 1
