"""The catalog seam.

Owns the interface between the daemon and whatever knows the backups. All methods may block (a
database, a folder scan): the daemon calls them in worker threads. A listing and the writing of an
attach record may overlap; two of the same kind do not.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from restorefs.catalog.records import AttachRecord, BackupRecord


class Catalog(ABC):
    """Where backups are known."""

    unread: Sequence[str] = ()
    """What could not be read when the backups were listed last, and why, though the catalog as a
    whole could; what was known of it is listed."""

    @abstractmethod
    def describe(self) -> str:
        """Name the catalog for people, without any password."""

    @abstractmethod
    def backups(self) -> Sequence[BackupRecord]:
        """Return every backup that has a completed disk. Raises CatalogError."""

    @abstractmethod
    def recover(self) -> int:
        """Drop attach records that a crashed daemon of this host left behind; return how many.
        Raises CatalogError."""

    @abstractmethod
    def record_attach(self, record: AttachRecord) -> None:
        """Note that a disk is attached. Raises CatalogError."""

    @abstractmethod
    def touch_attach(self, record: AttachRecord) -> None:
        """Update an attached disk's times. Raises CatalogError."""

    @abstractmethod
    def forget_attach(self, backup_disk_id: int) -> None:
        """Note that a disk was let go. Raises CatalogError."""

    @abstractmethod
    def close(self) -> None:
        """Release connections."""
