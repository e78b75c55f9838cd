"""The search for one name in a folder.

Owns when a shown name means a stored one. A block in which the name's bytes do not occur is not
decoded. A folder's index only says where to look first: a name is not there only if all blocks,
or an index with checksums, say so.

Concurrency: any number of searches may be in flight.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import trio

from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ext.casefold import ENCODING_UTF8, fold
from restorefs.guestfs.ext.crypto_names import NoKeyName, decode_no_key_name
from restorefs.guestfs.ext.directory import decode_records, find_record, next_index_block
from restorefs.guestfs.ext.folder import Folder

FindIn: TypeAlias = Callable[[bytes], Inode | None]
"""Finds a name in one region."""

_NAME_MAX = 255
_FIRST_WINDOW = 64 << 10
_LARGEST_WINDOW = 1 << 20


async def find(folder: Folder, name: bytes) -> Inode:
    """Return the inode of a name as the listing shows it, or of ".", "..".

    Raises NotFoundError; DamagedError where the name is not found, but some of the folder could
    not be searched.
    """
    if name == b".":
        return folder.file.inode
    if name == b"..":
        return await folder.parent()
    found = None
    if 0 < len(name) <= _NAME_MAX:
        found = await (_find_encrypted if folder.file.encrypted else _find_plain)(folder, name)
    if found is None:
        raise NotFoundError(f"folder {folder.file.inode} has no such name")
    return found


async def _find_plain(folder: Folder, name: bytes) -> Inode | None:
    find_in = partial(find_record, name=name)
    if folder.indexed and not folder.ignores_case:
        found, certain = await _search_indexed(folder, name, find_in)
        if found is not None or certain:
            return found
    found = await _search(folder, find_in)
    if found is not None or not folder.ignores_case:
        return found
    if folder.encoding != ENCODING_UTF8:
        raise UnsupportedError(f"character encoding {folder.encoding} is not supported")
    folded = fold(name)
    if folded is None:
        return None
    return await _search(folder, partial(_find_folded, folded=folded))


async def _find_encrypted(folder: Folder, name: bytes) -> Inode | None:
    shown = decode_no_key_name(name)
    return await _search(folder, partial(_find_no_key, shown=shown)) if shown else None


async def _search_indexed(
    folder: Folder, name: bytes, find_in: FindIn
) -> tuple[Inode | None, bool]:
    """Look in the one block where the index wants a name; say also whether it is certain that
    the name is not elsewhere."""
    try:
        root = await folder.index_root()
        hash_, _ = folder.hasher(root.version)(name)
        number, next_hash = 0, None
        for _ in range(root.levels + 1):
            number, behind = next_index_block(await folder.block(number), hash_)
            next_hash = next_hash if behind is None else behind
        found = find_in(await folder.block(number))
    except (DamagedError, UnsupportedError):
        return None, False
    # Names with the same hash may go on in the next block, which then starts with an odd hash.
    # Without ASCII, old file systems do not tell which hash their folders use.
    return found, folder.checked and next_hash != hash_ + 1 and name.isascii()


async def _search(folder: Folder, find_in: FindIn) -> Inode | None:
    """Look in all blocks. Raises DamagedError where the name may be in a damaged one."""
    position, window = 0, _FIRST_WINDOW
    damage: DamagedError | None = None
    while position < folder.end:
        regions, end = await folder.regions(position, window)
        for start, region in regions:
            try:
                folder.verify(start, region)
                found = find_in(region)
            except DamagedError as error:
                damage = error
                continue
            if found is not None:
                return found
        position, window = end, min(window * 2, _LARGEST_WINDOW)
        await trio.lowlevel.checkpoint()
    if damage:
        raise damage
    return None


def _find_no_key(region: bytes, shown: NoKeyName) -> Inode | None:
    if shown.start not in region:
        return None
    for inode, name, *_ in decode_records(region, 0):
        if shown.matches(name):
            return inode
    return None


def _find_folded(region: bytes, folded: str) -> Inode | None:
    for inode, name, *_ in decode_records(region, 0):
        if fold(name) == folded:
            return inode
    return None
