"""Decoders of compressed content, and where they run.

Owns the project's use of libfwnt (its only importer), the checks that make its answers safe to hand
out (exactly as many bytes as asked for, or DamagedError), and the division of work between the
event loop and threads. Must not know which file system the bytes come from.

Concurrency: the decoders keep nothing, and let other threads run meanwhile, but for our own ones
(restorefs/guestfs/decoders) where they are not compiled. A MiB takes some 1.5 ms of LZNT1, and up
to 8 of LZX or XPRESS.
"""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyfwnt
import trio

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError, RestoreError
from restorefs.guestfs.decoders import lznt1
from restorefs.guestfs.decoders import lzx as lzx_decoder

__all__ = ["Part", "decode_parts", "decode_units", "lzx", "xpress_huffman"]

Part: TypeAlias = tuple[bytes, ByteLength]
"""What is stored, and how many bytes it decodes to."""

_Decoder: TypeAlias = Callable[[bytes, ByteLength], bytes]
_Outcome: TypeAlias = list[bytes] | RestoreError

lzx = lzx_decoder.decode

_ON_THE_LOOP: ByteLength = 256 << 10  # decoded bytes: up to 2 ms
_SLOW: tuple[_Decoder, ...] = () if lzx_decoder.COMPILED else (lzx,)
_PROCESSORS = os.cpu_count() or 1

_threads = trio.CapacityLimiter(_PROCESSORS)


async def decode_parts(decoder: _Decoder, parts: Sequence[Part]) -> list[bytes]:
    """Decode parts, each with decoder(stored, size): here if they are few, else in threads, as many
    at once as there are processors; what is not compiled always in a thread, and only in one, as
    several would wait for each other. Raises the RestoreError of the first part that has one."""
    slow = decoder in _SLOW
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


async def decode_units(
    stored: bytes, bounds: Sequence[int], unit_size: ByteLength, size: ByteLength
) -> bytearray:
    """Decode the compression units of an NTFS file as lznt1.decode() does: here if they are few,
    else in a thread. One is enough, as a stream asks for the next ones meanwhile."""
    if lznt1.COMPILED and size <= _ON_THE_LOOP:
        return lznt1.decode(stored, bounds, unit_size, size)
    return await trio.to_thread.run_sync(
        lznt1.decode, stored, bounds, unit_size, size, limiter=_threads
    )


def _decode(decoder: _Decoder, parts: Sequence[Part]) -> _Outcome:
    """Return an error instead of raising it, as a nursery would wrap it."""
    try:
        return [decoder(stored, size) for stored, size in parts]
    except RestoreError as error:
        return error


def xpress_huffman(data: bytes, size: ByteLength) -> bytes:
    """Decode LZ77+Huffman data (MS-XCA 2.1, 2.2) to exactly `size` bytes. Raises DamagedError."""
    try:
        decoded: bytes = pyfwnt.lzxpress_huffman_decompress(data, size)
    except OSError as error:
        raise DamagedError("compressed data (XPRESS) cannot be decoded") from error
    if len(decoded) != size:
        raise DamagedError(f"compressed data (XPRESS) holds {len(decoded)} bytes, not {size}")
    return decoded
