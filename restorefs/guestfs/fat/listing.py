"""The listing of a folder.

Owns the order, the cookies and the batches: entries come as they are stored, a cookie is the slot
behind an entry. An impossible name costs no more than its own entry, which is listed under a name
near to it and cannot be asked for.

Concurrency: any number of listings may be in flight.
"""

import stat

import trio

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Attributes, DirEntry, Inode, Listing
from restorefs.guestfs.fat.directory import Entry
from restorefs.guestfs.fat.files import NAMELESS, FileTable
from restorefs.guestfs.fat.search import Search

# A listing starts small, so that the first names come soon.
_FIRST_WINDOW = 16 << 10
_WINDOW = 64 << 10
_WINDOWS = 4


async def list_entries(files: FileTable, search: Search, inode: Inode, cookie: int) -> Listing:
    """Return the entries of the next windows behind a cookie in which there are any.

    Raises DamagedError behind the last entry before what cannot be read.
    """
    folder = await files.folder(inode)
    entries: list[DirEntry] = []
    slot, windows, ended = cookie, 0, False
    while not ended and not (entries and windows >= (_WINDOWS if cookie else 1)):
        try:
            start, found, slot, ended = await folder.part(
                slot, _WINDOW if cookie else _FIRST_WINDOW
            )
        except DamagedError:
            if not entries:
                raise
            break
        for each in found:
            place = start + each.slot
            child = folder.inode_at(place)
            attributes: Attributes | None
            if each.impossible:
                kind = stat.S_IFDIR if each.entry.is_folder else stat.S_IFREG
                entries.append(DirEntry(each.name, child | NAMELESS, kind, place + 1, None))
            elif each.entry.is_folder:
                search.note_parent(child, inode)
                attributes = await _folder_attributes(files, child, each.entry)
                entries.append(DirEntry(each.name, child, stat.S_IFDIR, place + 1, attributes))
            else:
                attributes = files.file_attributes(child, each.entry)
                entries.append(DirEntry(each.name, child, stat.S_IFREG, place + 1, attributes))
        windows += 1
        await trio.lowlevel.checkpoint()
    return Listing(entries, ended)


async def _folder_attributes(files: FileTable, inode: Inode, entry: Entry) -> Attributes | None:
    try:
        return await files.attributes_of(inode, entry)
    except DamagedError:
        return None
