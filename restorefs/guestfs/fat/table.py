"""The File Allocation Table: chains of clusters.

Owns how chains are followed and which copy of the table is believed. A chain is followed as far as
it is needed, as runs of clusters that are neighbours. The first copy is believed; where it cannot
be read, the same part of another is taken, and a chain that is damaged in the first copy and sound
in another is taken from there. Must not know what is in the clusters. Source: spec, "FAT Data
Structure".

Concurrency: any number of chains may be followed at once. Two that miss the same piece of the
table read it twice, which is harmless, as the content never changes.
"""

import sys
from array import array
from bisect import bisect_right
from typing import NamedTuple

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import RestoreError, StorageError
from restorefs.guestfs.fat.layout import FIRST_CLUSTER, Geometry
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru

_PIECE_SIZE = 64 << 10
_LARGEST_FOLDER = 8 << 20
"""Four times what the format allows: 65,536 entries."""
_KEPT_PIECES = 64
_KEPT_CHAINS = 512
_KEPT_LONG_CHAINS = 8
_KEPT_RUNS = 4096
"""A chain of more runs is a long one."""
_STEPS_BETWEEN_CHECKPOINTS = 5_000


class Run(NamedTuple):
    """Clusters that are neighbours. place: of the first of them in its chain."""

    place: int
    cluster: int
    length: int


class Chain(NamedTuple):
    """A chain of `length` clusters. places, clusters: where in the chain each run begins and which
    cluster that is. fault: what is wrong behind the last of them, "" where nothing is."""

    places: "array[int]"
    clusters: "array[int]"
    length: int
    fault: str

    def runs(self, first: int, end: int) -> list[Run]:
        """Return the runs of the clusters [first, end) of the chain, as far as it goes."""
        found = []
        number = bisect_right(self.places, first) - 1
        end = min(end, self.length)
        while first < end:
            number += 1
            behind = self.places[number] if number < len(self.places) else self.length
            start = self.clusters[number - 1] + first - self.places[number - 1]
            count = min(behind, end) - first
            found.append(Run(first, start, count))
            first += count
        return found

    def cut(self, count: int, fault: str) -> "Chain":
        """Return the first `count` clusters of the chain, with a fault behind them."""
        number = bisect_right(self.places, max(0, count - 1))
        return Chain(self.places[:number], self.clusters[:number], count, fault)


class Table:
    """All copies of a volume's File Allocation Table."""

    def __init__(self, device: BlockDevice, geometry: Geometry, limits: Limits) -> None:
        self._device = device
        self._geometry = geometry
        self._limits = limits
        active = geometry.active_fat
        self._copies = range(geometry.fats) if active is None else range(active, active + 1)
        bits = geometry.bits
        self._mask = (1 << min(bits, 28)) - 1
        # A FAT12 is no larger than 6 KiB.
        self._piece_entries = _PIECE_SIZE * 8 // bits if bits != 12 else 1 << 12
        self._pieces: Lru[tuple[int, int], array[int]] = Lru(_KEPT_PIECES)
        self._chains: Lru[tuple[int, int], Chain] = Lru(_KEPT_CHAINS)
        self._long_chains: Lru[tuple[int, int], Chain] = Lru(_KEPT_LONG_CHAINS)

    def is_cluster(self, number: int) -> bool:
        return FIRST_CLUSTER <= number < self._geometry.end_cluster

    async def flags(self) -> int:
        """Return entry 1, whose highest bits tell the volume's state. Raises StorageError,
        DamagedError."""
        values = await self._piece(self._copies[0], 0)
        return values[1] & self._mask

    async def chain(self, first: int, needed: int) -> Chain:
        """Follow a chain for as many clusters as a file's size needs. It is not looked at what
        comes behind those, but for whether the chain runs in a circle. Raises StorageError."""
        return await self._believed(first, needed, whole=False)

    async def whole_chain(self, first: int) -> Chain:
        """Follow a folder's chain to its end, or to the limit of a folder's size. Raises
        StorageError."""
        most = min(self._limits.folder_bytes, _LARGEST_FOLDER) // self._geometry.cluster_size
        return await self._believed(first, max(1, min(self._geometry.clusters, most)), whole=True)

    async def _believed(self, first: int, needed: int, *, whole: bool) -> Chain:
        """Return a chain from the first copy in which it is sound; if there is none, from the
        first."""
        if not self.is_cluster(first):
            return Chain(array("I"), array("I"), 0, f"it begins at cluster {first}")
        key = (first, -1 if whole else needed)
        chain = self._chains.get(key) or self._long_chains.get(key)
        if chain is None:
            chain, certain = await self._first_sound(first, needed, whole)
            if certain:
                kept = self._chains if len(chain.places) <= _KEPT_RUNS else self._long_chains
                kept.put(key, chain)
        return chain

    async def _first_sound(self, first: int, needed: int, whole: bool) -> tuple[Chain, bool]:
        """Return the chain to be believed, and whether every copy that counts could be read."""
        chain = await self._follow(self._copies[0], first, needed, whole)
        certain = True
        for copy in self._copies[1:] if chain.fault else ():
            try:
                other = await self._follow(copy, first, needed, whole)
            except StorageError:
                certain = False
                continue
            if not other.fault:
                return other, True
        return chain, certain

    async def _follow(self, copy: int, first: int, needed: int, whole: bool) -> Chain:
        """Follow a chain in one copy of the table.

        A chain that ends cannot have run in a circle. One that has not ended where it might is
        followed on, without being kept, until it ends or must have come round: the first cluster
        of some run is marked, of later and later ones, until it is met again (Brent's algorithm).
        """
        places, clusters = array("I"), array("I")
        bound = 4 * needed + 16
        kept = walked = steps = 0
        cluster, mark, mark_at = first, 0, 0
        while self.is_cluster(cluster) and walked < bound:
            if cluster == mark:
                length = await self._length_to_repetition(copy, first, walked - mark_at)
                chain = Chain(places, clusters, kept, "")
                if whole or length < needed:
                    return chain.cut(min(length, kept), "it runs in a circle")
                return chain
            if walked > 2 * mark_at:
                mark, mark_at = cluster, walked
            count, behind = await self._run(copy, cluster, bound - walked)
            if kept < needed:
                if len(places) >= self._limits.extents_per_map:
                    return Chain(places, clusters, kept, "it is in too many pieces")
                places.append(kept)
                clusters.append(cluster)
                kept = min(needed, kept + count)
            walked += count
            cluster = behind
            steps += count
            if steps > _STEPS_BETWEEN_CHECKPOINTS:
                steps = 0
                await trio.lowlevel.checkpoint()
        fault = ""
        if whole and walked > kept:
            fault = "it is longer than a folder can be"
        elif whole or kept < needed:
            fault = self._fault_of_end(cluster, whole)
        return Chain(places, clusters, kept, fault)

    def _fault_of_end(self, value: int, whole: bool) -> str:
        """Say what is wrong with the value in a chain's last entry."""
        if value >= self._mask - 7:
            return "" if whole else "it ends before the file does"
        if value == 0:
            return "it leads to what is marked as free"
        return f"it leads to cluster {value}, which there is not"

    async def _run(self, copy: int, cluster: int, limit: int) -> tuple[int, int]:
        """Return how many clusters from one on follow each other, `limit` at most, and what the
        last of them leads to."""
        entries, mask = self._piece_entries, self._mask
        count = 0
        while True:
            number, index = divmod(cluster, entries)
            values = await self._piece(copy, number)
            last = min(len(values), index + limit - count)
            start = index
            # The innermost loop of everything that is read.
            value = 0
            while index < last:
                value = values[index] & mask
                index += 1
                cluster += 1
                if value != cluster:
                    return count + index - start, value
            count += index - start
            if count >= limit or not self.is_cluster(cluster):
                return count, value
            await trio.lowlevel.checkpoint()

    async def _length_to_repetition(self, copy: int, first: int, period: int) -> int:
        """Return how many clusters a chain with a circle has before it repeats any.

        Two walkers, one a period ahead, meet where the circle begins.
        """
        ahead = first
        for step in range(period):
            ahead = await self._next(copy, ahead)
            if not step % _STEPS_BETWEEN_CHECKPOINTS:
                await trio.lowlevel.checkpoint()
        length = period
        while first != ahead:
            first = await self._next(copy, first)
            ahead = await self._next(copy, ahead)
            length += 1
            if not length % _STEPS_BETWEEN_CHECKPOINTS:
                await trio.lowlevel.checkpoint()
        return length

    async def _next(self, copy: int, cluster: int) -> int:
        number, index = divmod(cluster, self._piece_entries)
        values = await self._piece(copy, number)
        return values[index] & self._mask

    async def _piece(self, copy: int, number: int) -> "array[int]":
        """Return a piece of a copy's entries; of another copy where this one cannot be read."""
        values = self._pieces.get((copy, number))
        if values is None:
            try:
                values = await self._read_piece(copy, number)
            except StorageError:
                values = await self._piece_of_another(copy, number)
                if values is None:
                    raise
            self._pieces.put((copy, number), values)
        return values

    async def _piece_of_another(self, copy: int, number: int) -> "array[int] | None":
        for other in self._copies:
            if other != copy:
                try:
                    return await self._read_piece(other, number)
                except RestoreError:
                    continue
        return None

    async def _read_piece(self, copy: int, number: int) -> "array[int]":
        geometry = self._geometry
        entries = min(self._piece_entries, geometry.end_cluster - number * self._piece_entries)
        start = geometry.fat_start + copy * geometry.fat_size
        if geometry.bits == 12:
            return entries_of_12_bits(await self._read(start, -(-entries * 3 // 2)), entries)
        width = geometry.bits // 8
        return entries_of_words(
            await self._read(start + number * self._piece_entries * width, entries * width), width
        )

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return await self._device.read(offset, length)


def entries_of_words(data: bytes, width: int) -> "array[int]":
    """Return the entries of a FAT16 (width 2) or FAT32 (width 4); of the latter, the four highest
    bits mean nothing."""
    values = array("H" if width == 2 else "I", data)
    assert values.itemsize == width
    if sys.byteorder == "big":
        values.byteswap()
    return values


def entries_of_12_bits(data: bytes, count: int) -> "array[int]":
    """Return the first `count` entries of a FAT12: two lie in three bytes."""
    data += bytes(-len(data) % 3)
    values = array("H")
    for low, middle, high in zip(data[0::3], data[1::3], data[2::3], strict=True):
        values.append(low | (middle & 0x0F) << 8)
        values.append(middle >> 4 | high << 4)
    return values[:count]
