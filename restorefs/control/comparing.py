"""Whether a file is another one than in an older backup.

Owns what counts as a difference. Must not know how the two were found.
"""

import hashlib
import stat

from restorefs.errors import DamagedError
from restorefs.guestfs.base import Attributes
from restorefs.tree.tree import Entry, Tree

MAX_COMPARED = 16 << 20
"""Bytes of a file that are compared at most."""
_PIECE = 1 << 20


async def differs(tree: Tree, newer: Entry, older: Entry) -> bool | None:
    """Whether two states of a file have different content; None where that is not known.

    Times alone prove little: programs set a file's time of modification as they like, so whoever
    encrypts files can keep it. The time of change they cannot set (on NTFS only with effort):
    where that one is the same too, the file is. Else the content decides, up to MAX_COMPARED.
    Raises RestoreError where that cannot be read.
    """
    new, old = _attributes(newer), _attributes(older)
    kind = stat.S_IFMT(new.mode)
    if kind != stat.S_IFMT(old.mode):
        return True
    if (new.size, new.mtime_ns, new.ctime_ns) == (old.size, old.mtime_ns, old.ctime_ns):
        return False
    if kind == stat.S_IFLNK:
        return await tree.readlink(newer.node) != await tree.readlink(older.node)
    if kind != stat.S_IFREG:
        return new.mtime_ns != old.mtime_ns
    if new.size != old.size:
        return True
    if new.size > MAX_COMPARED:
        return True if new.mtime_ns != old.mtime_ns else None
    # One after the other: each of the two disks may need the only free slot.
    return await _digest(tree, newer, new.size) != await _digest(tree, older, old.size)


async def _digest(tree: Tree, entry: Entry, size: int) -> bytes:
    digest = hashlib.sha256()
    for start in range(0, size, _PIECE):
        length = min(_PIECE, size - start)
        piece = await tree.read(entry.node, start, length)
        if len(piece) != length:  # nothing is said of content that is not all there
            raise DamagedError(f"the file ends after {start + len(piece)} bytes, before its size")
        digest.update(piece)
    return digest.digest()


def _attributes(entry: Entry) -> Attributes:
    assert entry.attributes is not None, "only a listing leaves them out"
    return entry.attributes
