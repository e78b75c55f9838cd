"""The folders above the guests, made from what the catalog says.

Owns the names: backups/<backup_id>/disk<N>, vms/<vm_name>/<time> and `latest`. A namespace is
immutable: a changed catalog makes a new one. Must not know what is on any disk; asking it never
attaches.

Each backup's folder has a link PREVIOUS to its VM's folder, which whoever knows its name finds and
no listing shows: Samba's vfs_shadow_copy2 looks for the other backups of a file there
(docs/samba.md). Listed, it would lead whoever follows links from backup to backup without an end.
"""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.tree.nodeid import ROOT, NodeId, above

log = logging.getLogger(__name__)
PREVIOUS = b".previous-versions"
_NAME_MAX = 255
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class Above(NamedTuple):
    """A node above the guests: a folder (`children` by name), a link (`target`), or the folder
    of a disk (`disk`), whose content is the disk's. `hidden`: found by its name, but not listed."""

    node: NodeId
    parent: NodeId
    name: bytes
    time_ns: int
    children: Mapping[bytes, NodeId] | None = None
    target: bytes | None = None
    disk: DiskRecord | None = None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new namespace takes back of an old one.

    names: those that are gone or mean something else, each with its folder. folders: those whose
    attributes or names are others. gone: disks that left the catalog or changed in it.
    """

    names: Sequence[tuple[NodeId, bytes]]
    folders: Collection[NodeId]
    gone: Sequence[int]


class Namespace:
    """All nodes above the guests, and the disks by id."""

    def __init__(self, backups: Sequence[BackupRecord], started_ns: int) -> None:
        """`started_ns` is the time shown for what has none of its own."""
        self.backups = {backup.id: backup for backup in backups}
        self.disks = {disk.id: disk for backup in backups for disk in backup.disks}
        self.disk_folders: dict[int, NodeId] = {}
        self._nodes: dict[NodeId, Above] = {}
        self._started_ns = started_ns
        shown = _by_name(backups)
        top = {b"backups": self._add_backups(shown), b"vms": self._add_vms(shown.values())}
        self._put(Above(ROOT, ROOT, b"", started_ns, children=top))

    def get(self, node: NodeId) -> Above | None:
        return self._nodes.get(node)

    def image_folders(self) -> set[str]:
        """Return the folders of all images that are files."""
        files = (disk.qcow2_path for disk in self.disks.values() if disk.scheme is None)
        return {os.path.dirname(path) for path in files}  # noqa: PTH120

    def changes_since(self, before: "Namespace") -> "Changes":
        """Say what whoever has seen `before` must not believe any more. New names are no change:
        nobody keeps that a name is not there."""
        names: list[tuple[NodeId, bytes]] = []
        folders: set[NodeId] = set()
        for node, old in before._nodes.items():
            new = self._nodes.get(node)
            if new is None or (new.target, new.disk) != (old.target, old.disk):
                if old.parent in self._nodes:  # else it goes with its folder
                    names.append((old.parent, old.name))
                    folders.add(old.parent)
            elif new.time_ns != old.time_ns or new.children != old.children:
                folders.add(node)
        gone = [
            disk_id for disk_id, disk in before.disks.items() if self.disks.get(disk_id) != disk
        ]
        return Changes(names, folders, gone)

    def around(self, disk: DiskRecord) -> Changes:
        """Say what hangs on a disk's content."""
        folder = self._nodes.get(self.disk_folders.get(disk.id, ROOT))
        if folder is None or folder.disk is None:
            return Changes((), (), (disk.id,))
        return Changes([(folder.parent, folder.name)], (folder.parent, folder.node), (disk.id,))

    def __iter__(self) -> Iterator[Above]:
        return iter(self._nodes.values())

    def _add_backups(self, backups: Mapping[bytes, BackupRecord]) -> NodeId:
        path = b"backups"
        node = above(path)
        children = {
            name: self._add_backup(backup, node, path, name) for name, backup in backups.items()
        }
        return self._put(Above(node, ROOT, path, self._started_ns, children=children))

    def _add_backup(
        self, backup: BackupRecord, parent: NodeId, parent_path: bytes, name: bytes
    ) -> NodeId:
        path = parent_path + b"/" + name
        folder = above(path)
        time_ns = self._time_ns(backup.created_at)
        children = {}
        for disk in backup.disks:
            disk_name = b"disk%d" % disk.disk_index
            node = above(path + b"/" + disk_name)
            children[disk_name] = node
            self.disk_folders[disk.id] = node
            self._put(Above(node, folder, disk_name, time_ns, disk=disk))
        children[PREVIOUS] = self._add_previous(folder, path, backup)
        return self._put(Above(folder, parent, name, time_ns, children=children))

    def _add_vms(self, backups: Iterable[BackupRecord]) -> NodeId:
        path = b"vms"
        by_vm: dict[bytes, list[BackupRecord]] = {}
        for backup in backups:
            by_vm.setdefault(safe_name(backup.vm_name), []).append(backup)
        children = {name: self._add_vm(path, name, owned) for name, owned in by_vm.items()}
        return self._put(Above(above(path), ROOT, path, self._started_ns, children=children))

    def _add_vm(self, parent: bytes, name: bytes, backups: list[BackupRecord]) -> NodeId:
        path = parent + b"/" + name
        folder = above(path)
        backups = sorted(backups, key=lambda backup: (backup.created_at or _EARLIEST, backup.id))
        seen: Counter[bytes] = Counter()
        children = {}
        for backup in backups:
            stamp = _stamp(backup.created_at)
            seen[stamp] += 1
            if seen[stamp] > 1:  # two backups within a second
                stamp += b"-%d" % seen[stamp]
            children[stamp] = self._add_link(folder, path, stamp, backup)
        children[b"latest"] = self._add_link(folder, path, b"latest", backups[-1])
        time_ns = self._time_ns(backups[-1].created_at)
        return self._put(Above(folder, above(parent), name, time_ns, children=children))

    def _add_link(
        self, parent: NodeId, parent_path: bytes, name: bytes, backup: BackupRecord
    ) -> NodeId:
        target = b"../../backups/" + safe_name(backup.id)
        node = above(parent_path + b"/" + name)
        time_ns = self._time_ns(backup.created_at)
        return self._put(Above(node, parent, name, time_ns, target=target))

    def _add_previous(self, parent: NodeId, parent_path: bytes, backup: BackupRecord) -> NodeId:
        node = above(parent_path + b"/" + PREVIOUS)
        time_ns = self._time_ns(backup.created_at)
        target = b"../../vms/" + safe_name(backup.vm_name)
        return self._put(Above(node, parent, PREVIOUS, time_ns, target=target, hidden=True))

    def _put(self, node: Above) -> NodeId:
        other = self._nodes.setdefault(node.node, node)
        if other is not node:  # 63 bits of blake2b: never seen, but an id must mean one thing
            log.error("%r and %r have the same node id; the second is not shown", other, node)
        return node.node

    def _time_ns(self, time: datetime | None) -> int:
        return self._started_ns if time is None else int(time.timestamp()) * 1_000_000_000


def _by_name(backups: Iterable[BackupRecord]) -> dict[bytes, BackupRecord]:
    """Return the backups by their folder's name; of two with the same, only the first."""
    named: dict[bytes, BackupRecord] = {}
    for backup in backups:
        name = safe_name(backup.id)
        if named.setdefault(name, backup) is not backup:
            log.error("two backups have the same folder name %r; one is not shown", name)
    return named


def safe_name(name: str) -> bytes:
    """Return a name as a file name: what cannot be one is percent-encoded; what is longer than 255
    bytes is cut, and ends in a digest of all of it."""
    raw = (
        os.fsencode(name.replace("%", "%25")) if "/" in name or "\0" in name else os.fsencode(name)
    )
    raw = raw.replace(b"/", b"%2F").replace(b"\0", b"%00")
    if raw in (b"", b".", b".."):
        raw = raw.replace(b".", b"%2E") or b"%"
    if len(raw) > _NAME_MAX:
        end = b"~" + blake2b(raw, digest_size=8).hexdigest().encode()
        raw = raw[: _NAME_MAX - len(end)].decode(errors="ignore").encode() + end
    return raw


def _stamp(time: datetime | None) -> bytes:
    if time is None:
        return b"unknown-time"
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H%M%SZ").encode()
