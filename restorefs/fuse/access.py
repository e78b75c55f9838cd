"""Who is let into a folder by what it turns out to look like.

Owns a guess at the kernel's own check (path_resolution(7), acl(5)) that errs on
one side: what is said to be allowed is. The kernel checks every access itself; this is for the one
that makes a folder's owner and mode known, which was checked before they were.

Concurrency: does not block; proc(5) is read from memory.
"""

import os
from pathlib import Path

from restorefs.fuse.request import Request
from restorefs.guestfs.base import Attributes

SEARCH = 1
"""To find a name in a folder."""
LIST = 4
_READS_ALL = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of which one is enough; see capabilities(7)."""


def is_sure(request: Request, folder: Attributes, has_acl: bool, wanted: int) -> bool:
    """Tell whether whoever asks is allowed to do what is wanted, SEARCH or LIST, with a folder.

    False where that is not known: which other groups somebody is in, or what an ACL says.
    """
    if request.uid == 0 and _capabilities(request.pid) & _READS_ALL:
        return True
    owner, group, others = (bool(folder.mode >> shift & wanted) for shift in (6, 3, 0))
    if request.uid == folder.uid:
        return owner
    if has_acl:
        return False
    if request.gid == folder.gid:
        return group
    return group and others


def _capabilities(pid: int) -> int:
    """Return a process's effective capabilities, none where they are not to be had."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(b"CapEff:"):
            return int(os.fsdecode(line).partition(":")[2], 16)
    return 0
