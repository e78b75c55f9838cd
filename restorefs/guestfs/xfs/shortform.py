"""Folders inside an inode.

Owns their decoding. Pure. Source: "Directories", "Short Form Directories".
"""

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode
from restorefs.guestfs.xfs.directory import POSITION_BITS, Record

_FOUR, _EIGHT = 4, 8
_ENTRY_HEAD = 3  # namelen, offset


def decode_short_form(raw: bytes, has_types: bool) -> tuple[Inode, list[Record]]:
    """Return the parent and the entries of a folder, given all its bytes (xfs_dir2_sf).

    An entry's offset is where it would be in a block, so that its cookie remains the same when
    the folder becomes one. Raises DamagedError unless the entries fill the bytes exactly.
    """
    if len(raw) < 2 + _FOUR:
        raise DamagedError("a folder inside an inode is cut off")
    count, large_count = raw[0], raw[1]
    # i8count only says that numbers have 8 bytes, which all of them then have.
    number_size = _EIGHT if large_count else _FOUR
    parent = int.from_bytes(raw[2 : 2 + number_size], "big")
    start = 2 + number_size
    records: list[Record] = []
    last_cookie = 0
    for _ in range(count):
        if start + _ENTRY_HEAD > len(raw):
            raise DamagedError("a folder inside an inode is cut off")
        length = raw[start]
        offset = int.from_bytes(raw[start + 1 : start + 3], "big")
        behind = start + _ENTRY_HEAD + length
        name = raw[start + _ENTRY_HEAD : behind]
        end = behind + has_types + number_size
        cookie = (offset >> POSITION_BITS) + 1
        if not length or end > len(raw) or cookie <= last_cookie:
            raise DamagedError("an entry of a folder inside an inode is damaged")
        last_cookie = cookie
        inode = int.from_bytes(raw[end - number_size : end], "big")
        records.append((inode, name, raw[behind] if has_types else 0, cookie))
        start = end
    if start != len(raw):
        raise DamagedError("the entries of a folder inside an inode do not fill it")
    return parent, records
