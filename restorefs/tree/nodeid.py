"""Node ids: computed, so that they mean the same file for ever.

Owns the layout of the 64-bit number that is the kernel's node id, st_ino, and what an NFS client
keeps in its handle:

    1                the root of the mount, as FUSE demands
    bit 63 set       a folder or link above the guests: 63 bits of blake2b of its path
    bit 63 clear     21 bits backup_disks.id | 6 bits volume | 36 bits guest inode

Guest inode 0, which no file system uses, is the volume's own folder, whatever its root is numbered.
What does not fit gets a number from a table in memory under volume index 63, which begins anywhere:
such ids do not survive a restart of the daemon, and mean nothing to another one. So do the files of
a disk whose id came to mean another disk while we run: whoever still has the old ones must not be
shown other content. Must not know what the nodes are.
"""

import itertools
import secrets
from hashlib import blake2b
from typing import NamedTuple, NewType

NodeId = NewType("NodeId", int)

ROOT = NodeId(1)
VOLUME_FOLDER = 0
_ABOVE = 1 << 63
_INODE_BITS = 36
_VOLUME_BITS = 6
_DISK_BITS = 21
_TABLE_VOLUME = (1 << _VOLUME_BITS) - 1
MAX_INODE = (1 << _INODE_BITS) - 1
_MAX_DISK = (1 << _DISK_BITS) - 1


class GuestNode(NamedTuple):
    """A file in a guest: backup_disks.id, the volume's index, the guest's inode."""

    disk_id: int
    volume: int
    inode: int


def above(path: bytes) -> NodeId:
    """Return the id of a folder above the guests from its path, such as b"backups/b1/disk0"."""
    if not path:
        return ROOT
    digest = int.from_bytes(blake2b(path, digest_size=8).digest())
    return NodeId(digest | _ABOVE)


def is_above(node: NodeId) -> bool:
    return node == ROOT or bool(node & _ABOVE)


class NodeIds:
    """Numbers guest files, and finds them again."""

    def __init__(self) -> None:
        self._table: dict[GuestNode, NodeId] = {}
        self._by_number: dict[int, GuestNode] = {}
        # Another daemon, or this one before, may have given numbers to other files.
        self._numbers = itertools.count(1 + secrets.randbelow(MAX_INODE >> 1))
        self._retired: set[int] = set()

    def base(self, disk_id: int, volume: int) -> int | None:
        """Return the number to which an inode of up to 36 bits is added, or None where only
        encode() will do: for those who encode whole folders."""
        if (
            0 < disk_id <= _MAX_DISK
            and 0 <= volume < _TABLE_VOLUME
            and disk_id not in self._retired
        ):
            return (disk_id << _VOLUME_BITS | volume) << _INODE_BITS
        return None

    def encode(self, disk_id: int, volume: int, inode: int) -> NodeId:
        base = self.base(disk_id, volume)
        if base is not None and 0 <= inode <= MAX_INODE:
            return NodeId(base | inode)
        guest = GuestNode(disk_id, volume, inode)
        node = self._table.get(guest)
        if node is None:
            number = next(self._numbers)
            node = self._table[guest] = NodeId(_TABLE_VOLUME << _INODE_BITS | number)
            self._by_number[number] = guest
        return node

    def decode(self, node: NodeId) -> GuestNode | None:
        """Return the guest file of an id with bit 63 clear; None for one never handed out."""
        inode = node & MAX_INODE
        volume = node >> _INODE_BITS & _TABLE_VOLUME
        disk_id = node >> (_INODE_BITS + _VOLUME_BITS)
        if disk_id == 0:
            return self._by_number.get(inode) if volume == _TABLE_VOLUME else None
        if volume == _TABLE_VOLUME or disk_id in self._retired:
            return None
        return GuestNode(disk_id, volume, inode)

    def retire(self, disk_id: int) -> None:
        """Let no id that was given to a file of a disk mean anything any more."""
        self._retired.add(disk_id)
        for guest in [guest for guest in self._table if guest.disk_id == disk_id]:
            del self._by_number[self._table.pop(guest) & MAX_INODE]
