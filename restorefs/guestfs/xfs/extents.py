"""Extent records.

Owns their decoding, and what of a file's blocks they leave out. Pure. Source: "Data Extents".
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from restorefs.errors import DamagedError

RECORD_SIZE = 16
_COUNT_BITS = 21

Run: TypeAlias = tuple[int | None, int]
"""Blocks of a file in their order: the first one's number on the volume (None: they are zeros),
and how many they are."""


class ExtentRecord(NamedTuple):
    """Blocks of a file from `start` up to `end`; they lie from `block` on. Unwritten ones are
    allocated, but their content is zeros."""

    start: int
    block: int
    end: int
    unwritten: bool


def decode_extents(raw: bytes) -> list[ExtentRecord]:
    """Decode packed records (xfs_bmbt_rec), in order. Raises DamagedError where they overlap."""
    numbers = struct.unpack(f">{len(raw) // 8}Q", raw)
    records = []
    end = 0
    for high, low in zip(numbers[::2], numbers[1::2], strict=True):
        start = (high & (1 << 63) - 1) >> 9
        count = low & (1 << _COUNT_BITS) - 1
        block = (high & 0x1FF) << 64 - _COUNT_BITS | low >> _COUNT_BITS
        if not count or start < end:
            raise DamagedError("a list of extents is out of order")
        end = start + count
        records.append(ExtentRecord(start, block, end, bool(high >> 63)))
    return records


def fill(records: Iterable[ExtentRecord], first: int, end: int) -> list[Run]:
    """Return the blocks of a file from `first` up to `end` as runs, neighbours merged: what no
    record is about, and what is unwritten, is zeros. Raises DamagedError for records that are
    not in order."""
    runs: list[Run] = []
    position = first
    for record in records:
        start, stop = max(record.start, first), min(record.end, end)
        if start >= stop:
            continue
        if start < position:
            raise DamagedError("a list of extents is out of order")
        if start > position:
            _append(runs, None, start - position)
        block = None if record.unwritten else record.block + start - record.start
        _append(runs, block, stop - start)
        position = stop
    if position < end:
        _append(runs, None, end - position)
    return runs


def _append(runs: list[Run], block: int | None, count: int) -> None:
    if runs:
        last, last_count = runs[-1]
        if block == (None if last is None else last + last_count):
            runs[-1] = last, last_count + count
            return
    runs.append((block, count))
