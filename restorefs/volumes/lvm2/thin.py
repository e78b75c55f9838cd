"""LVM2's thin pools and their volumes.

Owns looking up where a virtual block is, with the nodes that were read lately kept. Blocks that
nothing was written to read as zeros, or as the external origin has them.

Source: lvmthin(7); thin_layout.py names what the format is from.

Concurrency: any number of lookups at once; two that want one node may both read it.
"""

from collections import OrderedDict
from collections.abc import Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece, Place
from restorefs.errors import DamagedError, RestoreError
from restorefs.volumes.lvm2.builder import Builder
from restorefs.volumes.lvm2.layout import SECTOR
from restorefs.volumes.lvm2.metadata import LogicalVolume, Segment
from restorefs.volumes.lvm2.thin_layout import (
    BLOCK,
    TIME_BITS,
    Node,
    Superblock,
    decode_node,
    decode_superblock,
)

_KEPT_NODES = 1024
"""Some 16 MiB for each pool, as Python has them."""

_MAX_DEPTH = 12
_MAX_PIECES = 1 << 20


class Pool:
    """A pool: its data, and the trees in its metadata."""

    def __init__(self, data: BlockDevice, metadata: BlockDevice, superblock: Superblock) -> None:
        self.data = data
        self.superblock = superblock
        self._metadata = metadata
        self._nodes: OrderedDict[int, Node] = OrderedDict()

    async def root_of(self, device: int) -> int | None:
        """Return the root of a device's mappings; None where the pool has no such device."""
        node = await self._leaf(self.superblock.mappings, device)
        index = node.find(device)
        return node.values[index] if index >= 0 and node.keys[index] == device else None

    async def runs(self, root: int, first: int, end: int) -> list[tuple[int | None, int]]:
        """Return where virtual blocks are: (first data block or None, how many), in order."""
        found: list[tuple[int | None, int]] = []
        at = first
        while at < end:
            node, upto = await self._leaf_and_end(root, at, end)
            index = max(node.find(at), 0)
            while at < upto:
                while index < len(node.keys) and node.keys[index] < at:
                    index += 1
                key = node.keys[index] if index < len(node.keys) else upto
                if key > at:
                    gap = min(key, upto) - at
                    _append(found, None, gap)
                    at += gap
                else:
                    _append(found, node.values[index] >> TIME_BITS, 1)
                    at += 1
            if len(found) > _MAX_PIECES:
                raise DamagedError("a range of a thin volume is in too many pieces")
        return found

    async def _leaf(self, root: int, key: int) -> Node:
        node, _ = await self._leaf_and_end(root, key, key + 1)
        return node

    async def _leaf_and_end(self, root: int, key: int, end: int) -> tuple[Node, int]:
        """Return the leaf that has a key if any has, and up to which key it answers for."""
        block = root
        for _ in range(_MAX_DEPTH):
            node = await self._node(block)
            if node.leaf:
                return node, end
            index = node.find(key)
            if index < 0:  # before the first one: nothing is there up to that
                first = node.keys[0] if node.keys else end
                return Node(leaf=True, keys=(), values=()), min(end, first)
            if index + 1 < len(node.keys):
                end = min(end, node.keys[index + 1])
            block = node.values[index]
        raise DamagedError("a tree of a thin pool is too deep")

    async def _node(self, block: int) -> Node:
        node = self._nodes.get(block)
        if node is None:
            node = decode_node(await self._metadata.read(block * BLOCK, BLOCK), block)
            self._nodes[block] = node
            if len(self._nodes) > _KEPT_NODES:
                self._nodes.popitem(last=False)
        else:
            self._nodes.move_to_end(block)
        return node


def _append(found: list[tuple[int | None, int]], block: int | None, count: int) -> None:
    """Append a run, or make the last one longer."""
    if found:
        last, length = found[-1]
        follows = last is None if block is None else last is not None and last + length == block
        if follows:
            found[-1] = (last, length + count)
            return
    found.append((block, count))


class ThinVolume(BlockDevice):
    """A thin volume: what its tree maps lies in the pool, what it does not in its origin."""

    def __init__(self, pool: Pool, root: int, size: ByteLength, origin: BlockDevice | None) -> None:
        self.size = size
        self._pool = pool
        self._root = root
        self._origin = origin

    async def _places(
        self, offset: ByteOffset, length: ByteLength
    ) -> list[tuple[BlockDevice | None, ByteOffset, ByteLength]]:
        """Return where a range lies; None is zeros."""
        block = self._pool.superblock.data_block
        first, end = offset // block, -(-(offset + length) // block)
        places: list[tuple[BlockDevice | None, ByteOffset, ByteLength]] = []
        skip = offset - first * block
        for start, count in await self._pool.runs(self._root, first, end) if length else ():
            step = min(count * block - skip, length)
            if start is not None:
                places.append((self._pool.data, start * block + skip, step))
            else:
                places += self._from_origin(offset, step)
            offset += step
            length -= step
            skip = 0
        return places

    def _from_origin(
        self, offset: ByteOffset, length: ByteLength
    ) -> list[tuple[BlockDevice | None, ByteOffset, ByteLength]]:
        """An external origin may be shorter than the volume: zeros follow it."""
        inside = 0
        if self._origin is not None:
            inside = max(0, min(length, self._origin.size - offset))
        places: list[tuple[BlockDevice | None, ByteOffset, ByteLength]] = []
        if inside:
            places.append((self._origin, offset, inside))
        if inside < length:
            places.append((None, 0, length - inside))
        return places

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        places = await self._places(offset, length)
        for device, at, count in places:
            if device is not None:
                device.expect(at, count)
        return b"".join(
            [
                bytes(count) if device is None else await device.read(at, count)
                for device, at, count in places
            ]
        )

    async def read_through(self, places: Sequence[Place]) -> bytes:
        """Pass on as one request where all of it lies on one device."""
        below = []
        for offset, length in places:
            self.check_range(offset, length)
            below += await self._places(offset, length)
        devices = {id(device) for device, _, _ in below}
        if len(devices) == 1 and below[0][0] is not None:
            return await below[0][0].read_through([(at, count) for _, at, count in below])
        parts = []
        for device, at, count in below:
            parts.append(
                bytes(count) if device is None else await device.read_through([(at, count)])
            )
        return b"".join(parts)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        pieces: list[Piece] = []
        for device, at, count in await self._places(offset, length):
            if device is None:
                pieces.append(Piece(None, 0, count))
            else:
                pieces += await device.map(at, count)
        return pieces


async def make_thin(builder: Builder, volume: LogicalVolume, segment: Segment) -> BlockDevice:
    """A thin volume, also one that is a snapshot of another: each has a whole tree of its own."""
    pool = await _pool(builder, segment.text("thin_pool"))
    root = await pool.root_of(segment.number("device_id"))
    if root is None:
        raise DamagedError(
            f"the thin pool has no device {segment.number('device_id')}, which is {volume.name}"
        )
    origin = None
    if "external_origin" in segment.keys:
        origin = await builder.device(segment.text("external_origin"))
    return ThinVolume(pool, root, builder.size_of(segment), origin)


async def _pool(builder: Builder, name: str) -> Pool:
    """Return a pool, opened once for all its volumes."""
    pool = builder.pools.get(name)
    if pool is None:
        try:
            pool = await _open_pool(builder, name)
        except RestoreError as error:
            pool = error
        builder.pools[name] = pool
    if isinstance(pool, RestoreError):
        raise type(pool)(*pool.args)
    return pool


async def _open_pool(builder: Builder, name: str) -> Pool:
    volume = builder.volume(name)
    if len(volume.segments) != 1 or volume.segments[0].type != "thin-pool":
        raise DamagedError(f"{name} is no thin pool")
    segment = volume.segments[0]
    data = await builder.part(volume, segment.text("pool"))
    metadata = await builder.part(volume, segment.text("metadata"))
    superblock = decode_superblock(await metadata.read(0, BLOCK))
    wanted = segment.number("transaction_id")
    # While a message to the pool is on its way the text is one ahead.
    pending = any(key.startswith("message") for key in segment.keys)
    if superblock.transaction != wanted and not (pending and superblock.transaction + 1 == wanted):
        raise DamagedError(
            f"the thin pool {name} is at transaction {superblock.transaction}, and should be"
            f" at {wanted}"
        )
    if superblock.data_block != segment.number("chunk_size") * SECTOR:
        raise DamagedError(f"the thin pool {name} has blocks of two different sizes")
    if superblock.needs_check:
        builder.notes.append(f"the metadata of the thin pool {name} is marked as to be checked")
    return Pool(data, metadata, superblock)
