"""Overlay-compressed files, put together from chunks that wimlib made."""

import contextlib
import struct

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError, StorageError, UnsupportedError
from restorefs.guestfs.ntfs.wof import WofFile
from tests.pure import wim_chunks

XPRESS4K, LZX, XPRESS8K, XPRESS16K = range(4)
WORDS, PACKED_WORDS = wim_chunks.XPRESS_WORDS
NOISE = bytes(range(256)) * 16


def reparse(algorithm: int = XPRESS4K, version: int = 1, provider: int = 2, own: int = 1) -> bytes:
    return struct.pack("<4I", version, provider, own, algorithm)


class Stream:
    """A stream WofCompressedData of some chunks, which counts what is read of it."""

    def __init__(self, *chunks: bytes, entry: str = "I") -> None:
        ends = [sum(map(len, chunks[:number])) for number in range(1, len(chunks))]
        self.data = struct.pack(f"<{len(ends)}{entry}", *ends) + b"".join(chunks)
        self.reads: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        assert offset + length <= len(self.data)
        self.reads.append((offset, length))
        return self.data[offset : offset + length]

    def opened(self, size: int, algorithm: int = XPRESS4K) -> WofFile:
        return WofFile(reparse(algorithm), size, self.read, len(self.data))


async def test_packed_and_plain_chunks() -> None:
    content = WORDS + NOISE + WORDS + NOISE[:100]
    stream = Stream(PACKED_WORDS, NOISE, PACKED_WORDS, NOISE[:100])
    file = stream.opened(len(content))
    assert await file.read(0, len(content)) == content
    for start in (0, 1, 4095, 4096, 5000, 8192, 12287, 12288, 12387):
        for end in (start, start + 1, 4096, 8192, 12300, len(content)):
            if start <= end <= len(content):
                fresh = stream.opened(len(content))
                assert await fresh.read(start, end - start) == content[start:end]
                assert await file.read(start, end - start) == content[start:end]


@pytest.mark.parametrize(
    ("algorithm", "chunk", "sample"),
    [
        (XPRESS4K, 4096, wim_chunks.XPRESS_CALLS),
        (LZX, 32768, wim_chunks.LZX_TWO_BLOCKS),
        (XPRESS8K, 8192, wim_chunks.XPRESS_CALLS),
        (XPRESS16K, 16384, wim_chunks.XPRESS_CALLS),
    ],
)
async def test_each_algorithm(algorithm: int, chunk: int, sample: tuple[bytes, bytes]) -> None:
    last, packed = sample
    first = bytes(range(256)) * (chunk // 256)
    content = first + last
    file = Stream(first, packed).opened(len(content), algorithm)
    assert await file.read(0, len(content)) == content
    assert await file.read(chunk - 10, 20) == content[chunk - 10 : chunk + 10]


async def test_only_the_chunks_that_are_asked_for_are_read() -> None:
    stream = Stream(*[PACKED_WORDS] * 50)
    file = stream.opened(50 * 4096)
    assert await file.read(10 * 4096 + 5, 10) == WORDS[5:15]
    table = 49 * 4
    assert stream.reads == [
        (0, table),
        (table + 10 * len(PACKED_WORDS), len(PACKED_WORDS)),
    ]
    del stream.reads[:]
    assert await file.read(10 * 4096 + 100, 3000) == WORDS[100:3100]
    assert stream.reads == []  # remembered
    assert await file.read(9 * 4096, 3 * 4096) == WORDS * 3
    assert stream.reads == [(table + 9 * len(PACKED_WORDS), 3 * len(PACKED_WORDS))]


async def test_a_large_file_is_read_in_batches_and_its_table_in_pieces() -> None:
    count = 9000
    stream = Stream(*[PACKED_WORDS] * count)
    file = stream.opened(count * 4096)
    assert await file.read(4090 * 4096, 300 * 4096) == WORDS * 300
    assert max(length for _, length in stream.reads) <= 256 * len(PACKED_WORDS)
    assert await file.read((count - 1) * 4096, 4096) == WORDS
    assert await file.read(0, 4096) == WORDS


async def test_over_4_gib_the_table_has_entries_of_64_bits() -> None:
    """The content is not all there: what is read of the table and of the chunks is enough."""
    size = (1 << 32) + 1
    count = -(-size // 4096)
    table = (count - 1) * 8
    start = 700 * (count - 2)  # of the last but one, the first of them over 4 GiB / 7

    async def read(offset: int, length: int) -> bytes:
        if offset < table:
            first = offset // 8
            ends = range(first + 1, first + 1 + length // 8)
            return b"".join(
                struct.pack("<Q", start + (end - count + 2) * len(PACKED_WORDS)) for end in ends
            )
        assert offset == table + start
        return (PACKED_WORDS + b"!")[:length]

    stored = table + start + len(PACKED_WORDS) + 1
    file = WofFile(reparse(), size, read, stored)
    assert await file.read(size - 4097, 4097) == WORDS + b"!"


async def test_an_empty_file() -> None:
    assert await Stream().opened(0).read(0, 0) == b""


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (reparse(provider=1), "WIM"),
        (reparse(algorithm=4), "algorithm: 4"),
        (reparse(provider=3), "provider 3"),
        (reparse(version=2), "version 2"),
        (reparse(own=2), "its version 2"),
    ],
)
async def test_what_is_not_known_is_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        WofFile(data, 10, Stream().read, 10)


@pytest.mark.parametrize("length", [0, 8, 15])
async def test_a_reparse_point_that_is_too_short(length: int) -> None:
    with pytest.raises(DamagedError):
        WofFile(reparse()[:length], 10, Stream().read, 10)


@pytest.mark.parametrize(
    "ends",
    [
        (5000, 670),  # not in order
        (670, 600),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (670, 1 << 31),
        (0, 670),  # an empty chunk
        (4097, 5000),  # longer than its content
    ],
)
async def test_a_table_that_cannot_be(ends: tuple[int, int]) -> None:
    stream = Stream(PACKED_WORDS, PACKED_WORDS, PACKED_WORDS)
    stream.data = struct.pack("<2I", *ends) + stream.data[8:]
    file = stream.opened(3 * 4096)
    with pytest.raises(DamagedError):
        await file.read(0, 3 * 4096)


async def test_a_chunk_that_is_longer_than_what_is_left_of_the_file() -> None:
    file = Stream(PACKED_WORDS, NOISE).opened(4096 + 100)
    assert await file.read(0, 4096) == WORDS
    with pytest.raises(DamagedError):
        await file.read(4096, 1)


async def test_a_stream_that_is_too_short_for_its_table() -> None:
    with pytest.raises(DamagedError):
        WofFile(reparse(), 100 * 4096, Stream().read, 4 * 99 - 1)


async def test_a_range_outside_of_the_file() -> None:
    file = Stream(PACKED_WORDS).opened(4096)
    for offset, length in ((-1, 1), (4096, 1), (0, 4097), (10, -1)):
        with pytest.raises(DamagedError):
            await file.read(offset, length)


async def test_an_error_of_the_stream_passes_and_is_not_remembered() -> None:
    stream = Stream(PACKED_WORDS)
    failing = True

    async def read(offset: int, length: int) -> bytes:
        if failing:
            raise StorageError("gone")
        return await stream.read(offset, length)

    file = WofFile(reparse(), 4096, read, len(stream.data))
    with pytest.raises(StorageError):
        await file.read(0, 10)
    failing = False
    assert await file.read(0, 10) == WORDS[:10]


@given(st.data())
@settings(max_examples=100)
def test_damaged_streams_give_the_length_or_an_error(data: st.DataObject) -> None:
    stream = Stream(PACKED_WORDS, NOISE, PACKED_WORDS, NOISE[:100])
    damaged = bytearray(stream.data)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, 30) | st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    stream.data = bytes(damaged)
    size = 3 * 4096 + 100

    async def check() -> None:
        with contextlib.suppress(DamagedError):
            assert len(await stream.opened(size).read(0, size)) == size

    trio.run(check)
