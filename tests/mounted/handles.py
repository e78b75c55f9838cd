"""File handles, as an NFS server keeps them: name_to_handle_at(2) and open_by_handle_at(2).

Owns the two system calls, which Python does not have. Concurrency: none.
"""

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_MAX = 128


class _Handle(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("data", ctypes.c_ubyte * _MAX),
    )


def handle_of(path: Path) -> bytes:
    """Return the handle of a file or folder. Raises OSError."""
    handle = _Handle(size=_MAX)
    mount = ctypes.c_int()
    result = _libc.name_to_handle_at(
        _AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0
    )
    _check(result)
    return bytes(handle)[: 8 + handle.size]


def open_handle(handle: bytes, mountpoint: Path, flags: int = os.O_RDONLY) -> int:
    """Open what a handle means in a mount; returns a descriptor. Raises OSError.

    flags: os.O_PATH for what must not be opened to be read, such as a pipe.
    """
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        result = _libc.open_by_handle_at(fd, handle, flags | os.O_CLOEXEC)
    finally:
        os.close(fd)
    _check(result)
    return int(result)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
