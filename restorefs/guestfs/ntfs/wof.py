"""Files that the Windows Overlay Filter compresses (CompactOS, compact /exe).

Owns what is in the reparse point and in the stream WofCompressedData. Must not know where the
stream's bytes lie: it is given a function that reads them. Such a file's own data is a hole of the
decoded size, so a reader that does not know the filter shows zeros.

Format: WOF_EXTERNAL_INFO and FILE_PROVIDER_EXTERNAL_INFO_V1 in Microsoft's ntifs.h documentation;
the stream is laid out as a compressed resource of a WIM file is, and its chunks are the same: a
table of where each chunk but the first begins, counted from the table's end, then the chunks.

Concurrency: any number of reads may be in flight on one file. Two that miss the same chunk decode
it twice, which is harmless, as the content never changes.
"""

import struct
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.decompress import Part, decode_parts, lzx, xpress_huffman
from restorefs.guestfs.lru import Lru

ReadStream: TypeAlias = Callable[[ByteOffset, ByteLength], Awaitable[bytes]]

_VERSION = 1  # WOF_CURRENT_VERSION, FILE_PROVIDER_CURRENT_VERSION
_PROVIDER_WIM, _PROVIDER_FILE = 1, 2
_ALGORITHMS = {  # by FILE_PROVIDER_COMPRESSION_*: the decoder, and the size of a chunk
    0: (xpress_huffman, 4 << 10),
    1: (lzx, 32 << 10),
    2: (xpress_huffman, 8 << 10),
    3: (xpress_huffman, 16 << 10),
}
_SMALL_ENTRIES: ByteLength = (1 << 32) - 1  # the largest file whose table has 32-bit entries
_ENTRIES_PER_PIECE = 4096
_KEPT_PIECES = 2  # kept little, as a reader keeps many files
_KEPT_BYTES: ByteLength = 64 << 10
_BYTES_PER_BATCH: ByteLength = 1 << 20


class WofFile:
    """One compressed file."""

    def __init__(
        self, reparse: bytes, size: ByteLength, read: ReadStream, stored: ByteLength
    ) -> None:
        """Prepare to decode, without I/O.

        reparse: the data of the reparse point, behind its header of 8 bytes.
        size: the length of the file's own (empty) data: that of the decoded content.
        read: returns exactly the bytes asked for of the stream WofCompressedData; `stored`: its
        length.

        Raises UnsupportedError for a file whose content is in a WIM, and for what is not known;
        DamagedError.
        """
        self._decoder, self._chunk_size = _algorithm(reparse)
        self._size = size
        self._read = read
        self._stored = stored
        self._count = -(-size // self._chunk_size)
        self._entry, self._entry_size = ("I", 4) if size <= _SMALL_ENTRIES else ("Q", 8)
        self._table_size = max(0, self._count - 1) * self._entry_size
        if stored < self._table_size:
            raise DamagedError(f"a WOF stream of {stored} bytes is too short for its table")
        self._pieces: Lru[int, bytes] = Lru(_KEPT_PIECES)
        self._kept = _KEPT_BYTES // self._chunk_size
        self._chunks: Lru[int, bytes] = Lru(self._kept)

    async def read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        """Return decoded bytes; the range must lie inside the file's size. Raises DamagedError,
        and what the reading of the stream raises."""
        end = offset + length
        if not 0 <= offset <= end <= self._size:
            raise DamagedError(f"bytes {offset} to {end} lie outside the file of {self._size}")
        if not length:
            return b""
        first, last = offset // self._chunk_size, (end - 1) // self._chunk_size
        chunks: list[bytes] = []
        step = _BYTES_PER_BATCH // self._chunk_size
        for start in range(first, last + 1, step):
            chunks += await self._decoded(range(start, min(start + step, last + 1)))
        chunks[-1] = chunks[-1][: end - last * self._chunk_size]
        chunks[0] = chunks[0][offset - first * self._chunk_size :]
        return b"".join(chunks)

    async def _decoded(self, numbers: range) -> list[bytes]:
        """Return chunks. What is stored of those that are not remembered, and of those between
        them, is read together."""
        found = {number: self._chunks.get(number) for number in numbers}
        missing = [number for number, chunk in found.items() if chunk is None]
        if missing:
            found.update(await self._decode(missing))
            self._chunks.put_all(
                (number, chunk)
                for number, chunk in list(found.items())[-self._kept :]
                if chunk is not None
            )
        return [chunk for chunk in found.values() if chunk is not None]

    async def _decode(self, numbers: Sequence[int]) -> dict[int, bytes]:
        first = numbers[0]
        bounds = await self._bounds(first, numbers[-1] + 1)
        data = await self._read(bounds[0], bounds[-1] - bounds[0])
        decoded: dict[int, bytes] = {}
        packed: list[int] = []
        parts: list[Part] = []
        for number in numbers:
            start, end = (
                bound - bounds[0] for bound in bounds[number - first : number - first + 2]
            )
            size = min(self._chunk_size, self._size - number * self._chunk_size)
            if end - start == size:  # kept as it is: packing would not make it smaller
                decoded[number] = data[start:end]
            elif end - start > size:
                raise DamagedError("a WOF stream is damaged: a chunk is longer than its content")
            else:
                packed.append(number)
                parts.append((data[start:end], size))
        decoded.update(zip(packed, await decode_parts(self._decoder, parts), strict=True))
        return decoded

    async def _bounds(self, first: int, stop: int) -> Sequence[ByteOffset]:
        """Return where chunks first to stop - 1 begin in the stream, and where the last one ends.
        Raises DamagedError unless they follow each other, none longer than what it decodes to."""
        bounds: list[ByteOffset] = []
        if not first:
            bounds.append(self._table_size)
        piece_first, piece_last = max(0, first - 1), min(stop, self._count - 1) - 1
        if piece_last >= piece_first:
            low, high = piece_first // _ENTRIES_PER_PIECE, piece_last // _ENTRIES_PER_PIECE
            for number in range(low, high + 1):
                base = number * _ENTRIES_PER_PIECE
                start = max(0, piece_first - base)
                end = min(_ENTRIES_PER_PIECE, piece_last + 1 - base)
                piece = await self._piece(number)
                entries = struct.unpack_from(
                    f"<{end - start}{self._entry}", piece, start * self._entry_size
                )
                bounds += [self._table_size + entry for entry in entries]
        if stop == self._count:
            bounds.append(self._stored)
        for start, end in pairwise(bounds):
            if not 0 <= end - start <= self._chunk_size:
                raise DamagedError(
                    f"the table of a WOF stream is damaged: a chunk of {end - start}"
                )
        if bounds[-1] > self._stored:
            raise DamagedError("the table of a WOF stream leads outside of it")
        return bounds

    async def _piece(self, number: int) -> bytes:
        """Return a piece of the table as it is stored."""
        piece = self._pieces.get(number)
        if piece is None:
            start = number * _ENTRIES_PER_PIECE * self._entry_size
            length = min(_ENTRIES_PER_PIECE * self._entry_size, self._table_size - start)
            piece = await self._read(start, length)
            self._pieces.put(number, piece)
        return piece


def _algorithm(reparse: bytes) -> tuple[Callable[[bytes, ByteLength], bytes], ByteLength]:
    """Return the decoder and the size of a chunk that a reparse point names."""
    if len(reparse) < 16:
        raise DamagedError(f"a WOF reparse point of {len(reparse)} bytes")
    version, provider, file_version, algorithm = struct.unpack_from("<4I", reparse)
    if version == _VERSION and provider == _PROVIDER_WIM:
        raise UnsupportedError("its content is in a WIM file (WIMBoot)")
    if version != _VERSION or provider != _PROVIDER_FILE or file_version != _VERSION:
        raise UnsupportedError(
            f"compressed by an unknown overlay: version {version}, provider {provider}, "
            f"its version {file_version}"
        )
    if algorithm not in _ALGORITHMS:
        raise UnsupportedError(f"compressed by an unknown overlay algorithm: {algorithm}")
    return _ALGORITHMS[algorithm]
