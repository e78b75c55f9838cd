"""What a catalog says, as immutable values.

Owns the records that the layers above share. Must not know where they come from.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """A completed disk of a backup. `id` is backup_disks.id, more than 0; `qcow2_path` is what the
    catalog says, a path or a URI; `size_gb` is None where the catalog does not say."""

    id: int
    backup_id: str
    disk_index: int
    qcow2_path: str
    vmware_disk_key: int | None = None
    size_gb: int | None = None
    status: str = "completed"

    @property
    def name(self) -> str:
        """What messages call the disk: as its folder in the mount."""
        return f"{self.backup_id}/disk{self.disk_index}"

    @property
    def scheme(self) -> str | None:
        """The scheme of a URI, in lower case; None where `qcow2_path` is the path of a file."""
        match = _SCHEME.match(self.qcow2_path)
        return match[1].lower() if match else None

    @property
    def path(self) -> Path:
        """The image's file, where it is none of a URI's. Not kept: a catalog has very many disks,
        and few of them are used."""
        return Path(self.qcow2_path)

    @property
    def shown_path(self) -> str:
        """`qcow2_path` for people: without what a URI may hold that lets one in."""
        return self.qcow2_path if self.scheme is None else redacted(self.qcow2_path)

    @property
    def generation(self) -> int:
        """A number of 31 bits for what the disk is, more than 0 and the same in every daemon. It
        is another one when a row of the catalog comes to mean another image."""
        about = f"{self.backup_id}\0{self.disk_index}\0{self.qcow2_path}"
        digest = blake2b(about.encode("utf-8", "surrogateescape"), digest_size=4).digest()
        return int.from_bytes(digest) >> 1 or 1


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """A backup with at least one completed disk; `disks` by disk_index, each index once.
    `created_at` is aware, UTC."""

    id: str
    vm_name: str
    created_at: datetime | None
    disks: Sequence[DiskRecord]


@dataclass(frozen=True, slots=True)
class AttachRecord:
    """A disk that this host has attached: a row of restore_mounts."""

    backup_disk_id: int
    mount_path: str
    socket_path: str
    filesystem_type: str
    created_at: datetime
    last_accessed_at: datetime
    expires_at: datetime | None


def redacted(uri: str) -> str:
    """Return a URI without user and password, query, and the key of a Ceph image; what is not
    well-formed rather loses too much."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "rbd":
        return f"{scheme}:" + re.sub(r"(?is)(key[^=:]*=).*", r"\1***", rest)
    authority = re.match(r"//([^/?#]*)", rest)
    if authority is None:
        return f"{scheme}:***"
    _, at, host = authority[1].rpartition("@")
    port = host[host.find("]") + 1 :].partition(":")[2]
    if port and not port.isdecimal():
        return f"{scheme}://***"  # where does the password end?
    path, question, query = rest[authority.end() :].partition("?")
    if not scheme.lower().startswith("nbd"):  # whose query is the path of a socket
        query = query and "***"
    return f"{scheme}://{'***@' if at else ''}{host}{path}{question}{query}"
