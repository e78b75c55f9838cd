"""LVM2's classic snapshots: dm-snapshot with a persistent store of exceptions.

Owns the store's format and the device that reads a snapshot: chunks that changed since come from
the store, all others from the origin. The table is read when it is first needed, by one task for
all that wait.

Source: Linux, Documentation/admin-guide/device-mapper/snapshot.rst, and what the driver's own
comments say of its metadata: chunk 0 is a header, +0 u32 "SnAp", +4 u32 valid, +8 u32 version (1),
+12 u32 chunk size in sectors. Chunk 1 is the first of the areas: exceptions of two u64, a chunk of
the origin and the chunk of the store that has it, up to one whose second number is 0. Behind each
area are as many chunks as it has exceptions, then comes the next area.
"""

import struct
from collections.abc import Iterator, Sequence

import trio

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece, Place
from restorefs.errors import DamagedError, RestoreError, UnsupportedError
from restorefs.volumes.devices.composed import Composed, Part

_HEADER = struct.Struct("<4I")
_EXCEPTION = struct.Struct("<QQ")
_MAGIC = 0x70416E53
_MAX_CHUNK: ByteLength = 8 << 20
_MAX_EXCEPTIONS = 1 << 24
_AHEAD = 4
"""So many areas are asked for before they are needed: each is far from the next."""


async def open_snapshot(name: str, origin: BlockDevice, store: BlockDevice) -> BlockDevice:
    """Return a snapshot. Raises DamagedError, and UnsupportedError where it is no longer one."""
    magic, valid, version, sectors = _HEADER.unpack(await store.read(0, _HEADER.size))
    if magic != _MAGIC:
        raise DamagedError(f"the snapshot {name} has no header")
    if version != 1:
        raise UnsupportedError(f"the snapshot {name} has version {version}")
    if not valid:
        raise UnsupportedError(
            f"the snapshot {name} is invalid: there was no room for all that changed"
        )
    chunk = sectors * 512
    if not 0 < chunk <= _MAX_CHUNK or chunk & (chunk - 1):
        raise DamagedError(f"the snapshot {name} has chunks of {chunk} bytes")
    return Snapshot(origin, store, chunk)


class Snapshot(BlockDevice):
    """An origin as it was. Concurrency: the first read loads the table; others wait for it."""

    def __init__(self, origin: BlockDevice, store: BlockDevice, chunk: ByteLength) -> None:
        self.size = origin.size
        self._origin = origin
        self._store = store
        self._chunk = chunk
        self._table: _Overlaid | None = None
        self._loading = trio.Lock()

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        return await (await self._loaded()).read(offset, length)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        return await (await self._loaded()).read_through(places)

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        if self._table is not None:
            self._table.expect(offset, length)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        return await (await self._loaded()).map(offset, length)

    async def _loaded(self) -> "_Overlaid":
        if self._table is None:
            async with self._loading:
                if self._table is None:  # another task may have been first
                    exceptions = await _exceptions(self._store, self._chunk)
                    self._table = _Overlaid(self._origin, self._store, self._chunk, exceptions)
        return self._table


class _Overlaid(Composed):
    """An origin with some chunks from a store."""

    def __init__(
        self,
        origin: BlockDevice,
        store: BlockDevice,
        chunk: ByteLength,
        exceptions: dict[int, int],
    ) -> None:
        self.size = origin.size
        self._origin = origin
        self._store = store
        self._chunk = chunk
        self._exceptions = exceptions

    def parts(self, offset: ByteOffset, length: ByteLength) -> Iterator[Part]:
        """Yield runs of chunks that lie one behind the other."""
        chunk = self._chunk
        run: Part | None = None
        while length:
            number, skip = divmod(offset, chunk)
            step = min(length, chunk - skip)
            moved = self._exceptions.get(number)
            device = self._origin if moved is None else self._store
            at = offset if moved is None else moved * chunk + skip
            if run is not None and run.device is device and run.offset + run.length == at:
                run = Part(device, run.offset, run.length + step)
            else:
                if run is not None:
                    yield run
                run = Part(device, at, step)
            offset += step
            length -= step
        if run is not None:
            yield run


async def _exceptions(store: BlockDevice, chunk: ByteLength) -> dict[int, int]:
    """Return which chunk of the store has which of the origin. Raises DamagedError."""
    found: dict[int, int] = {}
    per_area = chunk // _EXCEPTION.size
    area = 1
    while (area + 1) * chunk <= store.size:  # a store that is full may end right behind an area
        for ahead in range(1, _AHEAD + 1):
            store.expect((area + ahead * (per_area + 1)) * chunk, chunk)
        raw = await store.read(area * chunk, chunk)
        for old, new in _EXCEPTION.iter_unpack(raw):
            if new == 0:
                return found
            if (new + 1) * chunk > store.size or (new - 1) % (per_area + 1) == 0:
                raise DamagedError(f"a snapshot has a chunk at {new}, where none can be")
            found[old] = new
        if len(found) > _MAX_EXCEPTIONS:
            raise UnsupportedError(f"a snapshot has more than {_MAX_EXCEPTIONS} changed chunks")
        area += per_area + 1
    return found


def merged(name: str) -> RestoreError:
    """Return why the origin of a snapshot that is being merged is not read."""
    return UnsupportedError(f"a snapshot is being merged into {name}, which is not read")
