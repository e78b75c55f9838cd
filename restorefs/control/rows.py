"""A file as the API tells it.

Owns the field names of a file. Must not know where it was found.
"""

import os
import stat
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Listed

Json: TypeAlias = dict[str, Any]

_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC).timestamp()


class Row(NamedTuple):
    """What is kept of an entry of a folder. `mode` is 0 where its attributes cannot be read."""

    name: bytes
    node: NodeId
    kind: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int


def row_of(item: Listed) -> Row:
    entry = item.entry
    found = entry.attributes
    if found is None:
        return Row(item.name, entry.node, entry.kind, 0, 0, 0, 0, 0)
    return Row(
        item.name,
        entry.node,
        stat.S_IFMT(found.mode),
        found.mode,
        found.size,
        found.mtime_ns,
        found.uid,
        found.gid,
    )


def describe(row: Row, folder: bytes) -> Json:
    """Return a row as JSON has it; `folder`: its folder's path."""
    name = os.fsdecode(row.name)
    told: Json = {
        "name": name,
        "path": os.fsdecode(folder.rstrip(b"/")) + "/" + name,
        "type": type_of(row.kind),
        "size": row.size,
        "mode": f"{stat.S_IMODE(row.mode):04o}",
        "modified_time": time_of(row.mtime_ns) if row.mode else None,
        "uid": row.uid,
        "gid": row.gid,
    }
    if not row.mode:
        told["error"] = "its attributes cannot be read: the file system is damaged there"
    return told


def type_of(mode: int) -> str:
    """Return the word for a mode's type bits."""
    return _TYPES.get(stat.S_IFMT(mode), "other")


def time_of(time_ns: int) -> str:
    """Return a time in whole seconds; a guest's may lie outside of what a calendar has."""
    seconds = min(max(time_ns // 1_000_000_000, _EARLIEST), _LATEST)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:19] + "Z"


def etag(disk_id: int, generation: int, node: NodeId, attributes: Attributes) -> str:
    """Return what names one state of a file, the same in every daemon."""
    parts = (disk_id, generation, node, attributes.size, attributes.mtime_ns)
    return '"' + "-".join(f"{part:x}" for part in parts) + '"'
