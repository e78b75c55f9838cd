"""Decoders of compressed content, and where they run.

Owns the project's use of libfwnt (its only importer) and the checks that make its answers safe to
hand out: exactly as many bytes as asked for, or DamagedError. Must not know which file system the
bytes come from.

Concurrency: the decoders keep nothing and let other threads run while they work; they block for
about 12 ms for each MiB, so more than ON_THE_LOOP goes through off_the_loop().
"""

import os
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import pyfwnt
import trio

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError

ON_THE_LOOP: ByteLength = 256 << 10
"""What may be decoded in one go without a thread, counted in decoded bytes."""

LZNT1_CHUNK: ByteLength = 4096

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

_threads = trio.CapacityLimiter(os.cpu_count() or 1)


async def off_the_loop(
    size: ByteLength, function: Callable[[*_Arguments], _Result], *arguments: *_Arguments
) -> _Result:
    """Call a function that decodes `size` bytes: here if they are few, else in a thread, as many
    at once as there are processors. Raises what the function raises."""
    if size <= ON_THE_LOOP:
        return function(*arguments)
    return await trio.to_thread.run_sync(function, *arguments, limiter=_threads)


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
