"""What is mounted where, without asking the mounts themselves: they may be dead, or hang.

Owns how /proc/self/mountinfo is read; see proc(5). Must not know what is done about a mount.

Concurrency: none; what it says may change as soon as it is said.
"""

import os
from pathlib import Path
from typing import NamedTuple


class Mounted(NamedTuple):
    """A mount: where, its file system's "major:minor", which no other one has while there is a
    mount of it, and that file system's type."""

    path: Path
    device: str
    kind: str


def mount_of(path: Path) -> Mounted | None:
    """Return the mount that a real path leads into.

    The way there is gone mount by mount: in the file, what other mounts hide stands beside what can
    be seen, in no order that tells them apart.
    """
    lines = [line.partition(b" - ") for line in _MOUNTINFO.read_bytes().splitlines()]
    fields = [(before.split(b" "), rest.split(b" ")) for before, _, rest in lines]
    listed = {number for (number, *_), _ in fields}
    mounts = {}
    for (number, parent, device, _, where, *_), (kind, *_) in fields:
        # The first one's is itself, or is not listed.
        on = parent if parent in listed and parent != number else None
        name = os.fsdecode(where.decode("unicode_escape").encode("latin-1"))
        mounts[on, name] = number, Mounted(Path(name), device.decode(), kind.decode())
    here, found = None, None
    path = Path(os.path.abspath(path))  # noqa: PTH100
    for folder in (*reversed(path.parents), path):
        while (here, str(folder)) in mounts:
            here, found = mounts[here, str(folder)]
    return found


def mounted_on(mountpoint: Path) -> Mounted | None:
    """Return what is mounted exactly there; of several mounts, the one on top."""
    found = mount_of(mountpoint)
    at = Path(os.path.abspath(mountpoint))  # noqa: PTH100
    return found if found is not None and found.path == at else None


_MOUNTINFO = Path("/proc/self/mountinfo")
