"""Clusters in their order.

Owns the FAT: the walk along a chain, in batches and merged into runs, and where it must end. Must
not know what the clusters hold. Source: sections 4.1 and 6.3.4.2.

Concurrency: any number of chains may be asked for; a chain is walked once, however many ask.
"""

import sys
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from operator import lt

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Extent
from restorefs.guestfs.exfat.layout import FAT_BAD, FAT_END, FIRST_CLUSTER, BootSector
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader

_PAGE_BITS = 14  # entries of the FAT in a page: 64 KiB of it
_PAGE = 1 << _PAGE_BITS
_KEPT_PAGES = 16
_GALLOP = 1024
_KEPT_RUNS = 2 << 20  # of 8 bytes
_RUNS_FOR_A_CHAIN = 64  # what a chain takes besides
_STEPS_BETWEEN_CHECKPOINTS = 5_000
_SORTED_IN_THE_LOOP = 10_000
_CYCLE = "a chain of clusters comes back to one of its own"
_TOO_MANY = "a chain is in too many pieces"


class Chain:
    """The clusters of a file or folder. length: how many there are. damage: why there are fewer
    than were asked for, else empty."""

    __slots__ = ("_clusters", "_firsts", "damage", "length")

    def __init__(self) -> None:
        self._firsts = array("I")  # of each run: its place in the file, in clusters
        self._clusters = array("I")  # and where it begins
        self.length = 0
        self.damage = ""

    @property
    def runs(self) -> int:
        return len(self._firsts)

    def add(self, cluster: int, count: int) -> None:
        """Add a run."""
        if self._firsts:
            last = self._clusters[-1] + self.length - self._firsts[-1]
            if last == cluster:
                self.length += count
                return
        self._firsts.append(self.length)
        self._clusters.append(cluster)
        self.length += count

    def cut(self, length: int) -> None:
        """Forget all clusters but the first `length`."""
        keep = bisect_right(self._firsts, max(0, length - 1)) if length else 0
        del self._firsts[keep:], self._clusters[keep:]
        self.length = length

    def pieces(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (cluster, count) of the clusters from place `first` up to place `end`."""
        index = bisect_right(self._firsts, first) - 1
        while first < end:
            start = self._firsts[index]
            behind = self._firsts[index + 1] if index + 1 < len(self._firsts) else self.length
            count = min(behind, end) - first
            yield self._clusters[index] + first - start, count
            first += count
            index += 1

    def first_repetition(self) -> int | None:
        """Return the place of the first cluster that comes for the second time, or None."""
        sound, repeated = 0, self.length
        if not self._repeats(repeated):
            return None
        while repeated - sound > 1:
            middle = (sound + repeated) // 2
            if self._repeats(middle):
                repeated = middle
            else:
                sound = middle
        return sound

    def _repeats(self, length: int) -> bool:
        """Say whether a cluster comes twice among the first `length`."""
        starts, ends = [], []
        for cluster, count in self.pieces(0, length):
            starts.append(cluster)
            ends.append(cluster + count)
        starts.sort()
        ends.sort()
        return any(map(lt, starts[1:], ends))


class Chains:
    """The chains of one volume."""

    def __init__(self, reader: PieceReader, boot: BootSector, limits: Limits) -> None:
        self._reader = reader
        self._boot = boot
        self._limits = limits
        self._pages: Lru[int, array[int]] = Lru(_KEPT_PAGES)
        self._kept: OrderedDict[tuple[int, int], Chain] = OrderedDict()
        self._kept_runs = 0
        self._locks: dict[tuple[int, int], trio.Lock] = {}

    @property
    def cluster_size(self) -> ByteLength:
        return self._boot.cluster_size

    def contiguous(self, first: int, count: int) -> Chain:
        """Return the chain of an allocation without one (NoFatChain)."""
        chain = Chain()
        usable = min(count, self._boot.end_cluster - first)
        if first >= FIRST_CLUSTER and usable > 0:
            chain.add(first, usable)
        if chain.length < count:
            chain.damage = f"clusters {first} to {first + count} lie outside the volume"
        return chain

    async def linked(self, first: int, count: int, *, to_end: bool = False) -> Chain:
        """Return the first `count` clusters of a chain in the FAT, or fewer with the damage.

        to_end: the chain may also be shorter, as the root's, whose length nothing tells.
        """
        if to_end:
            chain = await self._walk(first, count + 1, to_end=True)
            if chain.length > count:
                chain.cut(count)
                chain.damage = f"a chain of clusters does not end after {count}"
            return chain
        key = (first, count)
        lock = self._locks.setdefault(key, trio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is None:
                    kept = await self._walk(first, count, to_end=False)
                    self._keep(key, kept)
                else:
                    self._kept.move_to_end(key)
                return kept
        finally:
            # Whoever waits for the lock still has it; who comes now finds the chain kept.
            if not lock.statistics().tasks_waiting:
                self._locks.pop(key, None)

    def _keep(self, key: tuple[int, int], chain: Chain) -> None:
        before = self._kept.pop(key, None)
        if before is not None:
            self._kept_runs -= before.runs + _RUNS_FOR_A_CHAIN
        self._kept[key] = chain
        self._kept_runs += chain.runs + _RUNS_FOR_A_CHAIN
        while self._kept_runs > _KEPT_RUNS and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._kept_runs -= old.runs + _RUNS_FOR_A_CHAIN

    def extents(self, chain: Chain, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """Return where a range of what a chain holds lies.

        Raises DamagedError where the range goes on behind what could be walked of the chain.
        """
        if not length:
            return []
        bits = self._boot.cluster_bits
        first, end = offset >> bits, (offset + length - 1 >> bits) + 1
        if end > chain.length:
            raise DamagedError(chain.damage or "a file has fewer clusters than bytes")
        skip = offset - (first << bits)
        extents: list[Extent] = []
        for cluster, count in chain.pieces(first, end):
            size = min((count << bits) - skip, length)
            extents.append(Extent(self._boot.offset_of(cluster) + skip, size))
            length -= size
            skip = 0
        return extents

    async def _walk(self, first: int, count: int, *, to_end: bool) -> Chain:
        chain = Chain()
        count = min(count, self._boot.clusters + 1)
        # Brent's: a run that begins where a remembered one did is in a cycle.
        remembered, runs_since, runs_until = 0, 0, 1
        start, steps = first, 0
        while chain.length < count:
            if not FIRST_CLUSTER <= start < self._boot.end_cluster:
                chain.damage = self._why_not(start, chain.length)
                break
            if start == remembered:
                chain.damage = _CYCLE
                break
            runs_since += 1
            if runs_since == runs_until:
                remembered, runs_since, runs_until = start, 0, runs_until * 2
            last, behind, taken = await self._run(start, count - chain.length)
            if chain.runs >= self._limits.extents_per_map:
                chain.damage = f"after {chain.length} clusters, {_TOO_MANY}"
                break
            chain.add(start, last - start + 1)
            steps += taken
            if steps > _STEPS_BETWEEN_CHECKPOINTS:
                steps = 0
                await trio.lowlevel.checkpoint()
            if behind == FAT_END:
                if chain.length < count and not to_end:
                    chain.damage = f"a chain of clusters ends after {chain.length} of {count}"
                break
            start = behind
        if chain.runs > 1:
            if chain.runs <= _SORTED_IN_THE_LOOP:
                repetition = chain.first_repetition()
            else:
                # A sort holds the interpreter's lock: others run between the sorts, not during one.
                repetition = await trio.to_thread.run_sync(chain.first_repetition)
            if repetition is not None:
                chain.cut(repetition)
                chain.damage = _CYCLE
        return chain

    def _why_not(self, cluster: int, length: int) -> str:
        if cluster == FAT_BAD:
            return f"after {length} clusters, a chain leads to a bad one"
        return f"after {length} clusters, a chain leads to cluster {cluster}, which does not exist"

    async def _run(self, start: int, most: int) -> tuple[int, int, int]:
        """Follow neighbours from `start` on, at most `most` of them.

        Returns the last of them, what the FAT says behind it (FAT_END where not asked), and how
        many steps that took.
        """
        cluster, steps = start, 1
        behind_most = start + most
        while True:
            number = cluster >> _PAGE_BITS
            page = await self._page(number)
            base = number << _PAGE_BITS
            stop = min(base + len(page), behind_most)
            while cluster < stop:
                if cluster + 1 == behind_most:
                    return cluster, FAT_END, steps
                following = page[cluster - base]
                if following != cluster + 1:
                    return cluster, following, steps
                cluster += 1
                steps += 1
                if steps % 64 == 0:
                    while cluster + _GALLOP < stop and page[
                        cluster - base : cluster - base + _GALLOP
                    ] == array("I", range(cluster + 1, cluster + _GALLOP + 1)):
                        cluster += _GALLOP
                        steps += _GALLOP // 8
            if cluster >= self._boot.end_cluster:
                return cluster - 1, cluster, steps

    async def _page(self, number: int) -> "array[int]":
        """Return a page of the FAT; the last one ends with the FAT."""
        page = self._pages.get(number)
        if page is None:
            start = number << _PAGE_BITS + 2
            length = min(4 << _PAGE_BITS, self._boot.end_cluster * 4 - start)
            page = array("I", await self._reader.read(self._boot.active_fat_offset + start, length))
            if sys.byteorder == "big":
                page.byteswap()
            self._pages.put(number, page)
        return page
