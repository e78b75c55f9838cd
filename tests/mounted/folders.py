"""An open folder by the C library: telldir(3), seekdir(3), rewinddir(3), which Python lacks.

Concurrency: none.
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.opendir.argtypes = (ctypes.c_char_p,)
_libc.readdir64.argtypes = (ctypes.c_void_p,)
_libc.telldir.restype = ctypes.c_long
_libc.telldir.argtypes = (ctypes.c_void_p,)
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)
_libc.rewinddir.argtypes = (ctypes.c_void_p,)
_libc.closedir.argtypes = (ctypes.c_void_p,)


class _Entry(ctypes.Structure):
    """struct dirent64 of the GNU C library."""

    _fields_ = (
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.readdir64.restype = ctypes.POINTER(_Entry)


class OpenFolder:
    """A folder that is read entry by entry. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = _libc.opendir(os.fsencode(path))
        assert self._stream, os.strerror(ctypes.get_errno())

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield names from here on, each with the position behind it."""
        while True:
            ctypes.set_errno(0)
            entry = _libc.readdir64(self._stream)
            if not entry:
                assert ctypes.get_errno() == 0, os.strerror(ctypes.get_errno())
                return
            yield bytes(entry.contents.name), _libc.telldir(self._stream)

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, position)

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _libc.closedir(self._stream)
