"""Files mapped by direct and indirect blocks.

Owns the way through up to three levels of pointer blocks. Source: "ifork", section
"Direct/Indirect Block Addressing", and "blockmap". A pointer of 0 is a hole, at each level.

Concurrency: any number of calls may be in flight.
"""

import sys
from array import array
from collections.abc import Sequence
from typing import TypeAlias

import trio

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext.blockmap import BlockMap, NodeMemory, Runs, Volume

Pointers: TypeAlias = Sequence[int]

_DIRECT = 12
_LEVELS = 3


def decode_pointers(raw: bytes) -> Pointers:
    """Decode a run of 32-bit block numbers."""
    pointers = array("I", raw)
    if sys.byteorder == "big":
        pointers.byteswap()
    return pointers


class IndirectMap(BlockMap):
    """One file's pointers."""

    def __init__(
        self, volume: Volume, memory: NodeMemory[Pointers], inode: Inode, i_block: bytes
    ) -> None:
        super().__init__(volume)
        self._memory = memory
        self._inode = inode
        self._root = decode_pointers(i_block)
        self._per_block = volume.block_size // 4

    async def _collect(self, first: int, end: int, runs: Runs) -> None:
        position, blocks = first, 0
        while position < end:
            if blocks:
                await trio.lowlevel.checkpoint()
            pointers, index, count = await self._pointers(position)
            count = min(count, end - position)
            if pointers is None:
                runs.add(None, count)
            else:
                _collect_pointers(pointers, index, index + count, runs)
            position += count
            blocks += 1

    async def _pointers(self, position: int) -> tuple[Pointers | None, int, int]:
        """Return the pointers that map a file block, its index among them and how many follow
        from there on; or None, 0 and the number of blocks in a hole."""
        if position < _DIRECT:
            return self._root, position, _DIRECT - position
        rest, span = position - _DIRECT, self._per_block
        level = 1
        while rest >= span:
            rest -= span
            span *= self._per_block
            level += 1
        if level > _LEVELS:
            raise DamagedError(f"inode {self._inode} is larger than its pointers can map")
        block = self._root[_DIRECT - 1 + level]
        while block:
            pointers = await self._memory.get(self._inode, block, self._read_pointers)
            span //= self._per_block
            index, rest = divmod(rest, span)
            if span == 1:
                return pointers, index, self._per_block - index
            block = pointers[index]
        return None, 0, span - rest

    async def _read_pointers(self, block: int) -> Pointers:
        return decode_pointers(await self._volume.block(block))


def _collect_pointers(pointers: Pointers, index: int, end: int, runs: Runs) -> None:
    """Add the blocks that pointers[index:end] name, in runs."""
    while index < end:
        block, start = pointers[index], index
        index += 1
        if block:
            while index < end and pointers[index] == block + index - start:
                index += 1
            runs.add(block, index - start)
        else:
            while index < end and not pointers[index]:
                index += 1
            runs.add(None, index - start)
