"""The listing of a folder.

Owns the order, the cookies and the batches: entries come as they are stored. Must not know how a
folder lies on the volume.

Concurrency: any number of listings may be in flight.
"""

import trio

from restorefs.errors import DamagedError
from restorefs.guestfs.base import DirEntry, Listing
from restorefs.guestfs.pieces import PIECE_SIZE
from restorefs.guestfs.xfs.directory import KINDS, POSITION_BITS, Position, Record
from restorefs.guestfs.xfs.folder import Folder
from restorefs.guestfs.xfs.inodes import InodeTable

_DOTS = frozenset((b".", b".."))
# A listing starts small, so that the first names come soon, and goes on in large windows: the
# names of a large folder are in no order, so each window touches most pieces of its inodes.
_FIRST_WINDOW = 16 << 10
_WINDOW = 256 << 10


async def list_entries(folder: Folder, inodes: InodeTable, cookie: int) -> Listing:
    """Return the entries of the next window behind a cookie in which there are any.

    Raises DamagedError for a block that cannot be read, whatever else could be listed.
    """
    if folder.short_form is not None:
        records = [record for record in folder.short_form[1] if record[3] > cookie]
        return Listing(await _with_attributes(inodes, _checked(records)), True)
    position, window = cookie << POSITION_BITS, _WINDOW if cookie else _FIRST_WINDOW
    records = []
    while position < folder.end and not records:
        records, position = await _read_window(folder, cookie, position, window)
    return Listing(await _with_attributes(inodes, _checked(records)), position >= folder.end)


async def _read_window(
    folder: Folder, cookie: int, position: Position, window: int
) -> tuple[list[Record], Position]:
    """Return the records of a window that are behind a cookie, and the position behind it."""
    regions, end = await folder.regions(position, window)
    records: list[Record] = []
    decoded = 0
    for region in regions:
        if decoded >= PIECE_SIZE:
            await trio.lowlevel.checkpoint()
            decoded = 0
        decoded += len(region.raw)
        records += [
            record
            for record in folder.records(region)
            if record[3] > cookie and record[1] not in _DOTS
        ]
    if not regions:
        await trio.lowlevel.checkpoint()
    return records, end


def _checked(records: list[Record]) -> list[Record]:
    """Return records as they are. Raises DamagedError where one cannot be a name."""
    together = b"".join([record[1] for record in records])
    if b"/" in together or b"\0" in together:
        raise DamagedError("a folder has an entry with an impossible name")
    return records


async def _with_attributes(inodes: InodeTable, records: list[Record]) -> list[DirEntry]:
    attributes = await inodes.attributes_of({record[0] for record in records})
    # Not DirEntry(...): this is the innermost loop of every listing.
    return [
        tuple.__new__(DirEntry, (name, inode, KINDS[file_type], cookie, attributes.get(inode)))
        for inode, name, file_type, cookie in records
    ]
