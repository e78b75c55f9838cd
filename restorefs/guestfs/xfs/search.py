"""The search for one name in a folder.

Owns the way through a folder's index of hashes. Where the index is damaged, all names are looked
at.

Concurrency: any number of searches may be in flight.
"""

from collections.abc import Iterable

import trio

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.xfs.dabtree import IndexLeaf, IndexNode, decode_pairs
from restorefs.guestfs.xfs.directory import (
    Position,
    block_index,
    decode_record,
    is_block_form,
)
from restorefs.guestfs.xfs.dirhash import LOWER_CASE, folded_hash, name_hash
from restorefs.guestfs.xfs.folder import Folder

_NAME_MAX = 255
_MAX_LEVELS = 5  # XFS_DA_NODE_MAXDEPTH
_WINDOW = 256 << 10


async def find(folder: Folder, name: bytes) -> Inode:
    """Return the inode of a name, or of ".", "..".

    Raises NotFoundError; DamagedError where the name is not found, but some of the folder could
    not be searched.
    """
    if name == b".":
        return folder.file.inode
    if name == b"..":
        return await folder.parent()
    found = await _find(folder, name) if 0 < len(name) <= _NAME_MAX else None
    if found is None:
        raise NotFoundError(f"folder {folder.file.inode} has no such name")
    return found


async def _find(folder: Folder, name: bytes) -> Inode | None:
    if folder.short_form is not None:
        return _match(folder, name, ((record[0], record[1]) for record in folder.short_form[1]))
    try:
        return await _search_index(folder, name)
    except DamagedError:
        return await _search_all(folder, name)


def _match(folder: Folder, name: bytes, entries: Iterable[tuple[Inode, bytes]]) -> Inode | None:
    """Return the inode of the entry with this very name, or else, where the folder ignores case,
    of the first one that is the same then."""
    folded = name.translate(LOWER_CASE)
    similar = None
    for inode, other in entries:
        if other == name:
            return inode
        if similar is None and folder.ignores_case and other.translate(LOWER_CASE) == folded:
            similar = inode
    return similar


async def _search_index(folder: Folder, name: bytes) -> Inode | None:
    hash_ = (folded_hash if folder.ignores_case else name_hash)(name)
    entries = []
    for position in await _positions(folder, hash_):
        region = await folder.block(position)
        entry = decode_record(
            region.raw, position - region.position, folder.checked, folder.has_file_types
        )
        if entry is None:
            raise DamagedError(f"the index of folder {folder.file.inode} leads to no entry")
        if entry[1] == name:
            return entry[0]
        entries.append(entry)
    return _match(folder, name, entries)


async def _positions(folder: Folder, hash_: int) -> list[Position]:
    """Return the positions of all entries whose name has a hash. Raises DamagedError."""
    if folder.end == folder.block_size:
        region = await folder.block(0)
        if is_block_form(region.raw, folder.checked):
            return decode_pairs(block_index(region.raw), 0).find(hash_)
    node = await folder.index(folder.index_root)
    for _ in range(_MAX_LEVELS):
        if isinstance(node, IndexLeaf):
            break
        level = node.level
        child = node.first_with(hash_)
        if child is None:
            return []
        node = await folder.index(child)
        if (0 if isinstance(node, IndexLeaf) else node.level) != level - 1:
            raise DamagedError(f"the index of folder {folder.file.inode} is no tree")
    return await _in_leaves(folder, node, hash_)


async def _in_leaves(folder: Folder, leaf: IndexNode | IndexLeaf, hash_: int) -> list[Position]:
    """Return the positions for a hash in a leaf, and in those behind it that go on with it."""
    positions: list[Position] = []
    seen: set[int] = set()
    while isinstance(leaf, IndexLeaf):
        positions += leaf.find(hash_)
        if not leaf.next_block or (leaf.hashes and leaf.hashes[-1] > hash_):
            return positions
        if leaf.next_block in seen:
            break
        seen.add(leaf.next_block)
        leaf = await folder.index(leaf.next_block)
        await trio.lowlevel.checkpoint()
    raise DamagedError(f"the index of folder {folder.file.inode} is no tree")


async def _search_all(folder: Folder, name: bytes) -> Inode | None:
    """Look at all names. Raises DamagedError where the name may be in a damaged block."""
    position, damage, similar = 0, None, None
    while position < folder.end:
        regions, position = await folder.regions(position, _WINDOW)
        for region in regions:
            try:
                records = folder.records(region)
            except DamagedError as error:
                damage = error
                continue
            entries = [(record[0], record[1]) for record in records]
            found = _match(folder, name, entries)
            if found is not None and any(entry == (found, name) for entry in entries):
                return found
            similar = found if similar is None else similar
        await trio.lowlevel.checkpoint()
    if similar is None and damage is not None:
        raise damage
    return similar
