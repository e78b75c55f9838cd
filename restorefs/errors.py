"""What can go wrong, as the user sees it.

Owns the mapping from a kind of failure to the errno a caller gets (DESIGN section 6). Knows
nothing about FUSE, HTTP or any format. Every layer raises these; only the outermost boundary
(FUSE or HTTP) turns them into a reply. The message is for people: it says what is wrong, with
names, and where possible what to do.
"""

import errno as _errno
from typing import ClassVar


def errno_name(code: int) -> str:
    """Return what an errno is called. Linux has one number for EOPNOTSUPP and ENOTSUP."""
    return "EOPNOTSUPP" if code == _errno.EOPNOTSUPP else _errno.errorcode.get(code, str(code))


class RestoreError(Exception):
    """A failure with a reason for people and an errno for programs."""

    errno: ClassVar[int] = _errno.EIO


class NotFoundError(RestoreError):
    """No such backup, disk, folder or file."""

    errno = _errno.ENOENT


class LookAgainError(RestoreError):
    """What access was checked by has changed meanwhile: a path is to be walked again."""

    errno = _errno.ESTALE


class NotAFolderError(RestoreError):
    errno = _errno.ENOTDIR


class IsAFolderError(RestoreError):
    errno = _errno.EISDIR


class NotALinkError(RestoreError):
    errno = _errno.EINVAL


class NoAttributeError(RestoreError):
    """The file has no extended attribute of that name."""

    errno = _errno.ENODATA


class NoDataError(RestoreError):
    """No data, or nothing of the file at all, comes behind an offset."""

    errno = _errno.ENXIO


class StorageError(RestoreError):
    """The image is missing, unreadable or truncated, or its server died."""

    errno = _errno.EIO


class MissingError(StorageError):
    """A part of a volume lies on a disk that is not at hand; the rest can be read."""


class DamagedError(RestoreError):
    """A structure inside the guest contradicts its format; only what it describes is lost."""

    errno = _errno.EIO


class UnsupportedError(RestoreError):
    """A feature that restorefs does not read, by name. Never answered with zeros or ENOENT."""

    errno = _errno.EOPNOTSUPP


class KeyNeededError(RestoreError):
    """Encrypted, and no key is known."""

    errno = _errno.ENOKEY


class BusyError(RestoreError):
    """Every attach slot is in use."""

    errno = _errno.EBUSY


class AttachTimeoutError(RestoreError):
    """Attaching, or a read, took longer than allowed."""

    errno = _errno.ETIMEDOUT


class GoneError(RestoreError):
    """The backup behind a node id is no longer in the catalog."""

    errno = _errno.ESTALE


class CatalogError(RestoreError):
    """The catalog cannot be reached, or does not have the expected tables."""

    errno = _errno.EIO


class ConfigError(RestoreError):
    """A setting or argument that cannot work, said before anything is started."""

    errno = _errno.EINVAL


class MountError(RestoreError):
    """Mounting or unmounting failed, or something else is there: it may go well another time."""

    errno = _errno.EBUSY
