"""The listing of a folder.

Owns the order, the cookies and the batches: entries come as they are stored, a cookie is the
position behind an entry. Must not know how a folder lies on the volume.

Concurrency: any number of listings may be in flight.
"""

import trio

from restorefs.guestfs.base import DirEntry, Listing
from restorefs.guestfs.ext.directory import KINDS, NO_KINDS, Position, Record, decode_records
from restorefs.guestfs.ext.folder import Folder, NameForm
from restorefs.guestfs.ext.inodes import InodeTable
from restorefs.guestfs.pieces import PIECE_SIZE

_DOTS = frozenset((b".", b".."))
# A listing starts small, so that the first names come soon, and goes on in large windows: the
# names of a large folder are in no order, so each window touches most pieces of its inodes.
_FIRST_WINDOW = 16 << 10
_WINDOW = 256 << 10


async def list_entries(folder: Folder, inodes: InodeTable, cookie: Position) -> Listing:
    """Return the entries of the next window behind a cookie in which there are any.

    Raises DamagedError for a block that cannot be read, whatever else could be listed.
    """
    form = await folder.name_form()
    position, window = cookie, _WINDOW if cookie else _FIRST_WINDOW
    names: list[bytes] = []
    records: list[Record] = []
    while position < folder.end and not records:
        names, records, position = await _read_window(folder, form, position, window)
    entries = await _with_attributes(folder, inodes, names, records)
    return Listing(entries, position >= folder.end)


async def _read_window(
    folder: Folder, form: NameForm, position: Position, window: int
) -> tuple[list[bytes], list[Record], Position]:
    """Return the shown names and the records of a window, and the position behind it."""
    regions, end = await folder.regions(position, window)
    names: list[bytes] = []
    records: list[Record] = []
    for start, region in regions:
        if start and not start % PIECE_SIZE:
            await trio.lowlevel.checkpoint()
        folder.verify(start, region)
        found = [
            record
            for record in decode_records(region, start)
            if record[3] > position and record[1] not in _DOTS
        ]
        names += form(region, found)
        records += found
    return names, records, end


async def _with_attributes(
    folder: Folder, inodes: InodeTable, names: list[bytes], records: list[Record]
) -> list[DirEntry]:
    attributes = await inodes.attributes_of({record[0] for record in records})
    kinds = KINDS if folder.has_file_types else NO_KINDS
    # Not DirEntry(...): this is the innermost loop of every listing.
    return [
        tuple.__new__(DirEntry, (name, inode, kinds[file_type], end, attributes.get(inode)))
        for name, (inode, _, file_type, end, _) in zip(names, records, strict=True)
    ]
