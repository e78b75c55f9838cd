"""B-trees: the index root of a file, and the blocks of its index allocation.

Owns which blocks count (those that the bitmap says are in use; what others hold is stale), their
verification, and the search for a key. Must not know what the keys are. Source: linux-ntfs,
"concepts" (index record, index entry, $INDEX_ROOT, $INDEX_ALLOCATION, $BITMAP).

Concurrency: any number of calls may be in flight.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.layout import (
    BITMAP,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    apply_fixups,
)
from restorefs.guestfs.ntfs.streams import Stream
from restorefs.guestfs.pieces import neighbours

BlockNumber: TypeAlias = int
"""Of a block in the index allocation."""

_ROOT_SIZE = 16
_ROOT = struct.Struct("<8xI")
_BLOCK_HEADER_AT = 0x18
_BLOCK_VCN = struct.Struct("<Q")
_NODE = struct.Struct("<III")
_NODE_SIZE = 16
_ENTRY = struct.Struct("<QHHH")
_ENTRY_SIZE = 16
_HAS_CHILD, _IS_LAST = 1, 2
_MIN_BLOCK, _MAX_BLOCK = 512, 64 << 10
_MAX_NODES_PER_SEARCH = 256
_MAX_ALLOCATION: ByteLength = 1 << 30  # some 5 million names; a walk remembers all blocks
_PACE = 8
_AT_ONCE = 16


class Node(NamedTuple):
    """The entries of a node: they lie in data[start:end]."""

    data: bytes
    start: ByteOffset
    end: ByteOffset


class Entry(NamedTuple):
    """An entry of a node: its first 8 bytes (a file's reference, or where a view's data lies),
    where it begins, its key, and the VCN of the node before it, -1 for none."""

    head: int
    start: ByteOffset
    key: bytes
    child: int
    last: bool


class Index:
    """One index of a file."""

    def __init__(
        self,
        files: FileTable,
        number: int,
        root: bytes,
        allocation: Stream | None,
        bitmap: bytes,
        check: Callable[[Node], object] | None = None,
    ) -> None:
        """check: raises DamagedError for a node whose keys are damaged. Raises DamagedError."""
        self._files = files
        self._number = number
        self._depth = files.mft.limits.tree_depth
        if len(root) < _ROOT_SIZE + _NODE_SIZE:
            raise DamagedError(f"the index root of file {number} is cut")
        self.root = decode_node(root, _ROOT_SIZE)
        (self.block_size,) = _ROOT.unpack_from(root)
        self._allocation = allocation
        self._bitmap = bitmap
        self._check = check
        if allocation is not None and (
            not _MIN_BLOCK <= self.block_size <= _MAX_BLOCK or self.block_size.bit_count() != 1
        ):
            raise DamagedError(f"file {number} claims index blocks of {self.block_size} bytes")
        # A VCN counts clusters, or 512 bytes where a block is smaller than a cluster.
        cluster_size = files.mft.boot.cluster_size
        self._unit: ByteLength = cluster_size if cluster_size <= self.block_size else 512
        self.damage: DamagedError | None = None
        """Why the walk cannot lead to all nodes."""
        self._order: list[BlockNumber] = []
        self._visited = -1
        self._level = 0
        self._below: list[BlockNumber] = []
        self._seen: set[BlockNumber] = set()
        self._note(-1, self.root)

    @property
    def block_count(self) -> int:
        """How many blocks its allocation has."""
        return self._allocation.size // self.block_size if self._allocation is not None else 0

    async def blocks(self, numbers: Sequence[BlockNumber], *, once: bool = False) -> list[Node]:
        """Return blocks, ascending; neighbours are read together. once: as FileTable.read() has
        it. Raises DamagedError."""
        allocation = self._allocation
        size = self.block_size
        nodes: list[Node] = []
        runs = list(neighbours(numbers))
        for position, (first, behind) in enumerate(runs):
            if allocation is None or not 0 <= first < behind <= allocation.size // size:
                raise DamagedError(f"an index of file {self._number} has no block {first}")
            if position % _AT_ONCE == 0 and len(runs) > 1:
                soon = runs[position : position + 2 * _AT_ONCE]
                self._files.expect(allocation, [(f * size, (b - f) * size) for f, b in soon])
            data = await self._files.read(
                allocation, first * size, (behind - first) * size, once=once
            )
            for number in range(first, behind):
                nodes.append(self._verified(data, (number - first) * size, number))
                if not len(nodes) % _PACE:
                    await trio.lowlevel.checkpoint()
        return nodes

    def _verified(self, data: bytes, start: ByteOffset, number: BlockNumber) -> Node:
        if data[start : start + 4] != b"INDX":
            raise DamagedError(f"index block {number} of file {self._number} is damaged")
        try:
            block = apply_fixups(data, start, self.block_size)
            (vcn,) = _BLOCK_VCN.unpack_from(block, 0x10)
            node = decode_node(block, _BLOCK_HEADER_AT)
        except DamagedError as error:
            raise DamagedError(
                f"index block {number} of file {self._number} is damaged: {error}"
            ) from None
        if vcn * self._unit != number * self.block_size:
            raise DamagedError(f"index block {number} of file {self._number} belongs elsewhere")
        return node

    def _number_of(self, vcn: int) -> BlockNumber:
        """Return the block that an entry's VCN means. Raises DamagedError, also for one that is not
        in use."""
        number, rest = divmod(vcn * self._unit, self.block_size or 1)
        live = number >> 3 < len(self._bitmap) and self._bitmap[number >> 3] >> (number & 7) & 1
        if rest or not live:
            raise DamagedError(f"an index of file {self._number} leads to a block not in use")
        return number

    async def child(self, vcn: int) -> Node:
        """Return the node that an entry's VCN means. Raises DamagedError."""
        return (await self.blocks([self._number_of(vcn)]))[0]

    # --- all nodes ----------------------------------------------------------------------------

    async def walk(self, first: int, most: int) -> tuple[list[tuple[int, Node]], int, bool]:
        """Return the next nodes of the walk through the tree, from a place in it on.

        The walk goes level by level, each in the order of its blocks, so that places are the same
        each time; the root is not in it. Returns places and nodes, the place behind them, and
        whether the walk ends there. Damaged nodes are left out: what is wrong is in `damage`. A
        caller puts there what is wrong with the keys of those returned; of those before `first`,
        which only others or an index before this one may have returned, `check` finds it.
        """
        if first >= self._visited == len(self._order):
            return [], first, True
        while self._visited < first and self._visited < len(self._order):
            for _, node in await self._visit(self._visited, min(first - self._visited, most)):
                self._check_keys(node)
        known = len(self._order)
        nodes = await self._visit(first, most)
        # Now the nodes below these are known, too, but they are not among these.
        behind = min(first + most, known)
        return nodes, behind, behind >= len(self._order)

    def _check_keys(self, node: Node) -> None:
        if self._check is not None:
            try:
                self._check(node)
            except DamagedError as error:
                self.damage = error

    async def _visit(self, first: int, most: int) -> list[tuple[int, Node]]:
        """Read some of the nodes that are known, and note where they lead to."""
        places = range(first, min(first + most, len(self._order)))
        numbers = [self._order[place] for place in places]
        try:
            nodes: list[Node | DamagedError] = list(await self.blocks(numbers, once=True))
        except DamagedError:
            nodes = []
            for number in numbers:
                try:
                    nodes += await self.blocks([number])
                except DamagedError as error:
                    nodes.append(error)
        found = []
        for place, node in zip(places, nodes, strict=True):
            self._note(place, node)
            if not isinstance(node, DamagedError):
                found.append((place, node))
        return found

    def _note(self, place: int, node: Node | DamagedError) -> None:
        """Put the nodes below one into the walk, unless that was done before. No await in here:
        others may be walking, too."""
        if place != self._visited:
            return
        self._visited += 1
        if isinstance(node, DamagedError):
            self.damage = node
        else:
            self._note_children(node)
        if self._visited == len(self._order):  # all of a level
            self._level += 1
            if self._below and self._level > self._depth:
                self.damage = DamagedError(f"an index of file {self._number} is too deep")
                self._below.clear()
            self._order += sorted(self._below)
            self._below.clear()

    def _note_children(self, node: Node) -> None:
        try:
            vcns = decode_children(node)
        except DamagedError as error:
            self.damage = error
            return
        for vcn in vcns:
            try:
                number = self._number_of(vcn)
            except DamagedError as error:
                self.damage = error
                continue
            if number in self._seen:
                self.damage = DamagedError(f"an index of file {self._number} turns back")
                continue
            self._seen.add(number)
            self._below.append(number)

    # --- one key ------------------------------------------------------------------------------

    async def find(self, key: Any, key_of: Callable[[bytes], Any]) -> list[tuple[Node, Entry]]:
        """Return all entries with a key, in order.

        key_of: returns what the index is ordered by, of an entry's stored key; it may raise
        DamagedError. Raises DamagedError, also for a search through too many nodes.
        """
        matches: list[tuple[Node, Entry]] = []
        visited = 0
        # What to look at, the next last: nodes, with the place in their entries to go on from.
        stack = [(self.root, decode_entries(self.root), 0)]
        while stack:
            node, entries, place = stack.pop()
            previous = None
            for position in range(place, len(entries)):
                entry = entries[position]
                found = None if entry.last else key_of(entry.key)
                if found is not None:
                    if previous is not None and found < previous:
                        raise DamagedError(f"an index of file {self._number} is out of order")
                    previous = found
                    if found < key:
                        continue
                if entry.child >= 0:
                    # First what is before this entry, then the entry without that.
                    visited += 1
                    if visited > _MAX_NODES_PER_SEARCH or len(stack) >= self._depth:
                        raise DamagedError(f"an index of file {self._number} is too deep")
                    entries[position] = entry._replace(child=-1)
                    stack.append((node, entries, position))
                    child = await self.child(entry.child)
                    stack.append((child, decode_entries(child), 0))
                    break
                if found is not None and found > key:
                    return matches
                if found is not None:
                    matches.append((node, entry))
        return matches


async def open_index(
    files: FileTable, file: File, name: bytes, check: Callable[[Node], object] | None = None
) -> Index | None:
    """Return a file's index of a name (UTF-16LE), None where it has none.

    check: as Index has it. Raises DamagedError.
    """
    root = file.pieces(INDEX_ROOT, name)
    if not root:
        return None
    if not root[0].resident:
        raise DamagedError(f"the index root of file {file.number} is not resident")
    allocation = await files.stream(file, INDEX_ALLOCATION, name)
    most = min(files.mft.limits.folder_bytes, _MAX_ALLOCATION)
    bitmap = b""
    if allocation is not None:
        if allocation.size > most:
            raise DamagedError(f"file {file.number} claims an index of {allocation.size} bytes")
        if not file.pieces(BITMAP, name) and allocation.size:
            raise DamagedError(f"the index of file {file.number} has no bitmap")
        bitmap = await files.value(file, BITMAP, most >> 12, name)
    return Index(files, file.number, root[0].body, allocation, bitmap, check)


def decode_node(data: bytes, start: ByteOffset) -> Node:
    """Find the entries of a node whose header begins at `start`. Raises DamagedError."""
    first, used, _ = _NODE.unpack_from(data, start)
    if not _NODE_SIZE <= first <= used <= len(data) - start:
        raise DamagedError("its entries lie outside of it")
    return Node(data, start + first, start + used)


def decode_entries(node: Node) -> list[Entry]:
    """Decode the entries of a node, the last one, which has no key, included. Raises
    DamagedError."""
    data, position, end = node
    found: list[Entry] = []
    new = tuple.__new__
    while position + _ENTRY_SIZE <= end:
        head, length, key_length, flags = _ENTRY.unpack_from(data, position)
        behind = position + length
        child_size = 8 if flags & _HAS_CHILD else 0
        if length < _ENTRY_SIZE + child_size or behind > end:
            break
        child = _BLOCK_VCN.unpack_from(data, behind - 8)[0] if child_size else -1
        if flags & _IS_LAST:
            if behind != end:
                break  # what lies behind it belongs to the node: it is not the last one
            found.append(Entry(head, position, b"", child, last=True))
            return found
        if _ENTRY_SIZE + key_length > length - child_size:
            break
        key = data[position + _ENTRY_SIZE : position + _ENTRY_SIZE + key_length]
        found.append(new(Entry, (head, position, key, child, False)))
        position = behind
    raise DamagedError("a node of an index is damaged")


def decode_children(node: Node) -> list[int]:
    """Return the VCNs of the nodes below one. Raises DamagedError."""
    data, position, end = node
    found = []
    while position + _ENTRY_SIZE <= end:
        _, length, _, flags = _ENTRY.unpack_from(data, position)
        behind = position + length
        if length < _ENTRY_SIZE + 8 * (flags & _HAS_CHILD) or behind > end:
            break
        if flags & _HAS_CHILD:
            found.append(_BLOCK_VCN.unpack_from(data, behind - 8)[0])
        elif not found:
            return []  # a leaf: its first entry leads nowhere
        if flags & _IS_LAST and behind == end:
            return found
        if flags & _IS_LAST:
            break
        position = behind
    raise DamagedError("a node of an index is damaged")


NameRecord: TypeAlias = tuple[bytes, int, int, int]
"""A stored name, its namespace, the file's reference, and the position behind the entry."""

# Reference, length, flags; of the $FILE_NAME behind that the name's length and namespace.
_NAME_ENTRY = struct.Struct("<QH2xH66xBB")
_NAME_AT = _ENTRY_SIZE + 0x42


def decode_names(node: Node) -> list[NameRecord]:
    """Decode the entries of a folder's node ("$FILE_NAME" are the keys). Raises DamagedError."""
    data, position, end = node
    found: list[NameRecord] = []
    unpack = _NAME_ENTRY.unpack_from
    while position + _NAME_AT <= end:
        reference, length, flags, name_length, namespace = unpack(data, position)
        behind = position + length
        if flags & _IS_LAST or length < _NAME_AT or behind > end:
            break
        name = position + _NAME_AT
        name_end = name + 2 * name_length
        if name_end > behind:
            break
        found.append((data[name:name_end], namespace, reference, behind))
        position = behind
    if position + _ENTRY_SIZE <= end:
        _, length, _, flags = _ENTRY.unpack_from(data, position)
        if flags & _IS_LAST and length >= _ENTRY_SIZE and position + length == end:
            return found
    raise DamagedError("a node of a folder is damaged")
