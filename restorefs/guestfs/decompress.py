"""Decoders of compressed content, and where they run.

Owns the project's use of libfwnt (its only importer), the checks that make its answers safe to hand
out (exactly as many bytes as asked for, or DamagedError), and the division of work between the
event loop and threads. Must not know which file system the bytes come from.

Concurrency: the decoders keep nothing. libfwnt's take about 12 ms for a MiB and let other threads
run meanwhile; ours for LZX (restorefs/guestfs/lzx.py) takes 100 ms and does not.
"""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyfwnt
import trio

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError, RestoreError
from restorefs.guestfs.lzx import decode as lzx

__all__ = ["LZNT1_CHUNK", "Part", "decode_parts", "lznt1_chunk", "lzx", "xpress_huffman"]

LZNT1_CHUNK: ByteLength = 4096

Part: TypeAlias = tuple[bytes, ByteLength]
"""What is stored, and how many bytes it decodes to."""

_Decoder: TypeAlias = Callable[[bytes, ByteLength], bytes]
_Outcome: TypeAlias = list[bytes] | RestoreError

_ON_THE_LOOP: ByteLength = 256 << 10  # decoded bytes: about 3 ms
_PROCESSORS = os.cpu_count() or 1

_threads = trio.CapacityLimiter(_PROCESSORS)


async def decode_parts(decoder: _Decoder, parts: Sequence[Part]) -> list[bytes]:
    """Decode parts, each with decoder(stored, size): here if they are few, else in threads, as many
    at once as there are processors; LZX always in a thread, and only in one, as several would wait
    for each other. Raises the RestoreError of the first part that has one."""
    slow = decoder is lzx
    if not parts or (not slow and sum(size for _, size in parts) <= _ON_THE_LOOP):
        return [decoder(stored, size) for stored, size in parts]
    share = len(parts) if slow else -(-len(parts) // _PROCESSORS)
    starts = range(0, len(parts), share)
    outcomes: list[_Outcome] = [[] for _ in starts]

    async def decode_share(index: int) -> None:
        start = starts[index]
        outcomes[index] = await trio.to_thread.run_sync(
            _decode, decoder, parts[start : start + share], limiter=_threads
        )

    async with trio.open_nursery() as nursery:
        for index in range(len(starts)):
            nursery.start_soon(decode_share, index)
    decoded: list[bytes] = []
    for outcome in outcomes:
        if isinstance(outcome, RestoreError):
            raise outcome
        decoded += outcome
    return decoded


def _decode(decoder: _Decoder, parts: Sequence[Part]) -> _Outcome:
    """Return an error instead of raising it, as a nursery would wrap it."""
    try:
        return [decoder(stored, size) for stored, size in parts]
    except RestoreError as error:
        return error


def lznt1_chunk(chunk: bytes) -> bytes:
    """Decode one compressed LZNT1 chunk: its header and exactly its data (MS-XCA 2.5.1.2).

    Returns what it holds, at most LZNT1_CHUNK bytes; a caller that knows that more follows fills
    up with zeros. Raises DamagedError.
    """
    try:
        data: bytes = pyfwnt.lznt1_decompress(chunk, LZNT1_CHUNK)
    except OSError as error:
        raise DamagedError("compressed data (LZNT1) cannot be decoded") from error
    return data


def xpress_huffman(data: bytes, size: ByteLength) -> bytes:
    """Decode LZ77+Huffman data (MS-XCA 2.1, 2.2) to exactly `size` bytes. Raises DamagedError."""
    try:
        decoded: bytes = pyfwnt.lzxpress_huffman_decompress(data, size)
    except OSError as error:
        raise DamagedError("compressed data (XPRESS) cannot be decoded") from error
    if len(decoded) != size:
        raise DamagedError(f"compressed data (XPRESS) holds {len(decoded)} bytes, not {size}")
    return decoded
