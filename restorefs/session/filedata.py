"""The bytes of a guest's file: extents to cache slots, with read-ahead for streams.

Owns how a read is cut into loads. Must not know any format: the reader maps, the block layer reads.

- A random read loads what was asked, rounded up to a power of two (so that a slot needs few
  buffers), never a megabyte for 4 KiB.
- A file of at most 64 KiB is read in aligned small slots, because `cp -r` wants its neighbours.
- A reader that has shown to be sequential gets units: aligned megabytes *of the file*, which in an
  unfragmented file are one load each and one slot each, so that the reply is sent from the slot;
  the next ones are already in flight.

Concurrency: the caller keeps the disk in use during the call. A returned memoryview is valid until
the caller's next await.
"""

from collections import OrderedDict
from typing import NamedTuple

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece
from restorefs.block.cache import LARGE_SLOT, PAGE, SMALL_SLOT, CachedDisk
from restorefs.errors import DamagedError, RestoreError
from restorefs.guestfs.base import Extent, GuestFilesystem, Inode

UNIT = LARGE_SLOT
_NEAR = 4 * UNIT
_SEQUENTIAL = 2
_DEPTH = 4
_MAX_STREAMS = 1024
_ZEROS = memoryview(bytes(UNIT))

Data = bytes | bytearray | memoryview


class _Stream:
    """Where a file's reader is. The kernel sends its read-ahead a little out of order, and several
    requests at once, so a position near the expected one counts as sequential."""

    __slots__ = ("ahead", "expected", "hits")

    def __init__(self) -> None:
        self.ahead = 0  # up to here the read-ahead has been started
        self.expected = 0
        self.hits = 0

    def note(self, offset: ByteOffset, length: ByteLength) -> bool:
        """Take a request into account; True when the reader is sequential."""
        if abs(offset - self.expected) <= _NEAR:
            self.hits += 1
            self.expected = max(self.expected, offset + length)
        else:
            self.hits = self.ahead = 0
            self.expected = offset + length
        return self.hits > _SEQUENTIAL


class _Load(NamedTuple):
    """A range of one disk to have in a slot; the wanted bytes begin `skip` bytes into it, and go
    to `target` in the reply."""

    disk: CachedDisk
    offset: ByteOffset
    length: ByteLength
    skip: int
    wanted: ByteLength
    target: int


class _Plan:
    """Where the bytes of a reply come from; what none of the lists covers is a hole."""

    __slots__ = ("computed", "encoded", "loads")

    def __init__(self) -> None:
        self.loads: list[_Load] = []
        self.encoded: list[tuple[ByteOffset, ByteLength]] = []  # (target, length)
        self.computed: list[tuple[ByteOffset, Piece]] = []  # (target, of a device without a cache)


class FileReader:
    """Reads files of one volume."""

    def __init__(self, guest: GuestFilesystem, device: BlockDevice) -> None:
        self._guest = guest
        self._device = device
        self._streams: OrderedDict[Inode, _Stream] = OrderedDict()

    async def read(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> Data:
        """Return up to `length` bytes of a file, fewer only at its end.

        Raises what the reader or the storage raises; never returns zeros for what is not a hole.
        """
        size = (await self._guest.attributes(inode)).size
        length = min(length, size - offset)
        if length <= 0:
            return b""
        stream = self._stream(inode)
        sequential = stream.note(offset, length) and size > UNIT
        plan = _Plan()
        position = offset
        while position < offset + length:
            step = offset + length - position
            if sequential:
                step = min(step, UNIT - position % UNIT)
            unit = await self._unit(inode, stream, position, size) if sequential else None
            if unit is not None:
                skip = position % UNIT
                plan.loads.append(unit._replace(skip=skip, wanted=step, target=position - offset))
            else:
                extents = await self._guest.map(inode, position, step)
                if sum(extent.length for extent in extents) != step:
                    raise DamagedError("a file's map does not cover what was asked")
                await self._plan(extents, position - offset, size, plan)
            position += step
        if not plan.encoded and not plan.computed:
            if not plan.loads:
                return _ZEROS[:length] if length <= UNIT else bytes(length)
            if len(plan.loads) == 1 and plan.loads[0].wanted == length:
                return await self._from_slot(plan.loads[0], passed=sequential and length == UNIT)
        elif plan.encoded == [(0, length)]:
            return await self._decoded(inode, offset, length)
        return await self._assemble(inode, offset, length, plan)

    def _stream(self, inode: Inode) -> _Stream:
        stream = self._streams.get(inode)
        if stream is None:
            stream = self._streams[inode] = _Stream()
            if len(self._streams) > _MAX_STREAMS:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(inode)
        return stream

    async def _unit(
        self, inode: Inode, stream: _Stream, position: ByteOffset, size: ByteLength
    ) -> _Load | None:
        """Return the load of the file's aligned megabyte around a position, with the next ones
        started; None when that one is not contiguous on one disk."""
        start = position - position % UNIT
        found = await self._contiguous(inode, start, size)
        if found is None:
            return None
        found.disk.cache.prefetch(found.disk, found.offset, found.length)
        stream.ahead = max(stream.ahead, start + UNIT)
        while stream.ahead < min(start + (_DEPTH + 1) * UNIT, size):
            unit = stream.ahead
            following = await self._contiguous(inode, unit, size)
            if following is None or not following.disk.cache.prefetch(
                following.disk, following.offset, following.length
            ):
                break
            stream.ahead = max(stream.ahead, unit + UNIT)
        return found

    async def _contiguous(self, inode: Inode, start: ByteOffset, size: ByteLength) -> _Load | None:
        try:
            extents = await self._guest.map(inode, start, min(UNIT, size - start))
            if len(extents) != 1 or extents[0].offset is None:
                return None
            pieces = await self._device.map(extents[0].offset, extents[0].length)
        except RestoreError:  # of a part that may not be wanted: what is wanted says so itself
            return None
        if len(pieces) != 1 or not isinstance(pieces[0].disk, CachedDisk):
            return None
        disk, offset, length = pieces[0].disk, pieces[0].offset, pieces[0].length
        return _Load(disk, offset, _rounded(disk, offset, length), 0, length, 0)

    async def _plan(
        self, extents: list[Extent], target: int, size: ByteLength, plan: _Plan
    ) -> None:
        """Plan extents; `target` is where the first one goes in the reply."""
        for extent in extents:
            if extent.encoded:
                plan.encoded.append((target, extent.length))
            elif extent.offset is not None:
                at = target
                for piece in await self._device.map(extent.offset, extent.length):
                    if isinstance(piece.disk, CachedDisk):
                        _cut(piece.disk, piece.offset, piece.length, at, size, plan.loads)
                    elif piece.disk is not None:
                        plan.computed.append((at, piece))
                    at += piece.length
                if at != target + extent.length:
                    raise DamagedError("a volume's map does not cover what was asked")
            target += extent.length

    async def _from_slot(self, load: _Load, passed: bool = False) -> memoryview:
        """Return a view of the slot: no await between the unpin here and the reply's copy. What a
        stream has `passed` is dropped: the kernel has it now, and the next load reuses memory
        that is still in the processor's caches."""
        cache = load.disk.cache
        slot = await cache.pin(load.disk, load.offset, load.length)
        cache.unpin(slot)
        if passed:
            cache.drop(slot)
        return slot.view[load.skip : load.skip + load.wanted]

    async def _decoded(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> Data:
        data = await self._guest.read_encoded(inode, offset, length)
        if len(data) != length:
            raise DamagedError(f"decoding gave {len(data)} bytes instead of {length}")
        return data

    async def _assemble(
        self, inode: Inode, offset: ByteOffset, length: ByteLength, plan: _Plan
    ) -> bytearray:
        reply = bytearray(length)
        for load in plan.loads:  # all in flight before the first is awaited
            if not load.disk.cache.prefetch(load.disk, load.offset, load.length):
                break
        for load in plan.loads:
            reply[load.target : load.target + load.wanted] = await self._from_slot(load)
        for target, piece in plan.computed:
            assert piece.disk is not None
            data = await piece.disk.read(piece.offset, piece.length)
            reply[target : target + piece.length] = data
        for target, count in plan.encoded:
            reply[target : target + count] = await self._decoded(inode, offset + target, count)
        await trio.lowlevel.checkpoint()
        return reply


def _cut(
    disk: CachedDisk,
    offset: ByteOffset,
    length: ByteLength,
    target: int,
    size: ByteLength,
    loads: list[_Load],
) -> None:
    """Cut a piece into loads of at most a slot, beginning on page boundaries of the disk."""
    end = offset + length
    while offset < end:
        if size <= SMALL_SLOT:
            start = offset - offset % SMALL_SLOT
            wanted = min(end, start + SMALL_SLOT) - offset
            span = min(SMALL_SLOT, disk.size - start)
        else:
            start = offset - offset % PAGE
            wanted = min(end, start + LARGE_SLOT) - offset
            span = _rounded(disk, start, offset + wanted - start)
        loads.append(_Load(disk, start, span, offset - start, wanted, target))
        offset += wanted
        target += wanted


def _rounded(disk: CachedDisk, start: ByteOffset, length: ByteLength) -> ByteLength:
    """Round a load up to a power of two of at least a page, but not over the disk's end."""
    return min(max(PAGE, 1 << (length - 1).bit_length()), disk.size - start)
