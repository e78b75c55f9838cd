"""What the daemon tells about itself and about disks, as plain values for JSON.

Owns the field names of the API. Must not know how they are sent or shown.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import restorefs
from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control.mounts import mount_id
from restorefs.control.who import Who
from restorefs.session.disk import AttachedDisk, Content
from restorefs.session.pool import Failure, Pool
from restorefs.tree.namespace import Namespace
from restorefs.tree.refresh import Refresher

Json: TypeAlias = dict[str, Any]

_OF_ALL = ("pid", "catalog", "catalog_error", "catalog_unread", "cache")
_OF_THE_HOST = ("attached_for", "socket", "qemu_nbd_pid")


@dataclass(frozen=True, slots=True)
class Status:
    """Where the daemon's own figures come from."""

    mountpoint: Path
    started_at: datetime
    refresher: Refresher
    pool: Pool
    listening: Sequence[str] = ()
    """The URLs that the API answers at, beside its unix socket."""

    def describe(self, namespace: Namespace, who: Who) -> Json:
        """Return the daemon's state, as far as somebody may see it."""
        settings = self.pool.settings
        backups = [each for each in namespace.backups.values() if who.may_see(each.vm_name)]
        seen = {disk.id for backup in backups for disk in backup.disks}
        told: Json = {
            "version": restorefs.__version__,
            "pid": os.getpid(),
            "mountpoint": str(self.mountpoint),
            "started_at": time_text(self.started_at),
            "catalog": self.refresher.catalog_name,
            "catalog_error": self.refresher.error,
            "catalog_unread": list(self.refresher.unread),
            "backups": len(backups),
            "disks": len(seen),
            "max_attached": settings.max_attached,
            "idle_timeout_seconds": settings.idle_timeout,
            "listening": list(self.listening),
            "cache": {"hits": self.pool.cache.hits, "misses": self.pool.cache.misses},
            "attached": [
                describe_attachment(disk, settings.idle_timeout)
                for disk in self.pool.attached
                if disk.record.id in seen
            ],
            "failures": [
                {"backup_id": disk.backup_id, "disk_index": disk.disk_index, **_failure(failure)}
                for disk_id, failure in self.pool.failures.items()
                if disk_id in seen and (disk := namespace.disks.get(disk_id)) is not None
            ],
        }
        if not who.sees_all:
            told |= dict.fromkeys(_OF_ALL)
            for attached in told["attached"]:
                attached |= dict.fromkeys(_OF_THE_HOST)
        return told


def describe_attachment(disk: AttachedDisk, idle_timeout: float) -> Json:
    """Return what is known of an attached disk."""
    accessed = disk.last_accessed_at
    return {
        "mount_id": mount_id(disk.record),
        "backup_id": disk.record.backup_id,
        "disk_index": disk.record.disk_index,
        "filesystems": disk.filesystems.split(",") if disk.filesystems else [],
        "attached_for": disk.attached_for and disk.attached_for._asdict(),
        "shares_volumes_with": sorted(
            other.record.disk_index for other in disk.unit if other is not disk
        ),
        "socket": str(disk.server.socket_path),
        "qemu_nbd_pid": disk.server.process.pid,
        "attached_at": time_text(disk.attached_at),
        "last_accessed_at": time_text(accessed),
        "expires_at": time_text(accessed + timedelta(seconds=idle_timeout))
        if idle_timeout
        else None,
        "requests_under_way": disk.in_use,
        "bytes_read": disk.device.bytes_read,
    }


def describe_backup(backup: BackupRecord) -> Json:
    """Return what the catalog says of a backup."""
    return {
        "backup_id": backup.id,
        "vm_name": backup.vm_name,
        "created_at": time_text(backup.created_at),
        "disk_indexes": [disk.disk_index for disk in backup.disks],
    }


def describe_record(record: DiskRecord) -> Json:
    """Return what the catalog says of a disk."""
    return {
        "id": record.id,
        "disk_index": record.disk_index,
        "vmware_disk_key": record.vmware_disk_key,
        "size_gb": record.size_gb,
        "qcow2_path": record.shown_path,
        "status": record.status,
    }


def describe_disk(record: DiskRecord, attached: AttachedDisk | None, error: str | None) -> Json:
    """Return a disk with everything that is on it; without volumes when it is not attached."""
    found = describe_record(record) | {"error": error}
    if attached is not None:
        found |= {
            "size": attached.device.size,
            "table": attached.table.scheme,
            "sector_size": attached.table.sector_size,
            "table_uuid": attached.table.uuid,
            "notes": [*attached.table.notes, *attached.notes],
            "volumes": [_volume(content, attached) for content in attached.contents.values()],
        }
    return found


def _volume(content: Content, disk: AttachedDisk) -> Json:
    volume, identity = content.volume, content.identity
    member = disk.members.get(volume.index)
    opened = content.opened.error if content.opened is not None else None
    error = volume.error or content.error or opened
    return {
        "index": volume.index,
        "name": os.fsdecode(volume.name),
        "folder": content.is_folder,
        "is_member": content.is_member,
        "group": member.group_name if member is not None else "",
        "elsewhere": content.elsewhere,
        "start": volume.start,
        "size": volume.device.size if volume.device else None,
        "type": volume.type_name,
        "type_code": volume.type_code,
        "part_label": volume.label,
        "part_uuid": volume.uuid,
        "filesystem": identity.kind if identity else None,
        "readable": identity.readable if identity else False,
        "encrypted": identity.encrypted if identity else False,
        "label": identity.label if identity else "",
        "uuid": identity.uuid if identity else "",
        "clean": identity.clean if identity else None,
        "notes": list(identity.notes) if identity else [],
        "error": str(error) if error else None,
    }


def _failure(failure: Failure) -> Json:
    return {"reason": failure.reason, "errno": failure.errno, "at": time_text(failure.at)}


def time_text(time: datetime | None) -> str | None:
    """Return a time as JSON has it."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
