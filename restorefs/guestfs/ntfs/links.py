"""Where links lead: targets as Windows stores them, made paths of the mount.

Owns when an absolute target is on this volume, and the way there from the link's folder. Source:
MS-FSCC 2.1.2.4 (symbolic links) and 2.1.2.5 (mount points); Microsoft's "Naming Files, Paths, and
Namespaces".

A drive letter is not stored on a volume. C is the one that Windows itself is on; another letter can
only be a volume without Windows. And what a target names must be there, at most 256 folders deep:
else it is shown as it is.

Concurrency: any number of calls may be in flight.
"""

import re

import trio

from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.folder import Folders
from restorefs.guestfs.ntfs.layout import (
    DOS,
    FILE_NAME,
    RECORD_MASK,
    REPARSE_POINT,
    ROOT,
    WIN32,
    RecordNumber,
    decode_file_name,
)
from restorefs.guestfs.ntfs.names import shown
from restorefs.guestfs.ntfs.reparse import (
    WSL_SYMLINK,
    LinkData,
    Reparse,
    decode_link,
    decode_wsl_link,
)

_KEPT_TARGETS = 1024
_MAX_DEPTH = 256
# \??\C:\x and C:\x; \??\Volume{...}\x; \x.
_DRIVE = re.compile(rb"(?:\\\?\?\\|\\\\\?\\)?([A-Za-z]):(?:\\|$)")
_VOLUME = re.compile(rb"(?:\\\?\?\\|\\\\\?\\)Volume\{[0-9A-Fa-f-]+\}(?:\\|$)")
_ROOTED = re.compile(rb"\\(?![\\?])")


class Links:
    """All links of a volume."""

    def __init__(self, files: FileTable, folders: Folders) -> None:
        self._files = files
        self._folders = folders
        self._targets: Lru[RecordNumber, bytes] = Lru(_KEPT_TARGETS)
        self._has_windows: bool | None = None

    async def target(self, file: File, reparse: Reparse) -> bytes:
        """Return a link's target. Raises DamagedError."""
        target = self._targets.get(file.number)
        if target is None:
            if reparse.tag == WSL_SYMLINK:
                target = decode_wsl_link(reparse)
            else:
                target = await self._windows_target(file, decode_link(reparse))
            if not target or b"\0" in target:
                raise DamagedError(f"the target of link {file.number} is damaged")
            self._targets.put(file.number, target)
        return target

    async def _windows_target(self, file: File, link: LinkData) -> bytes:
        target = shown(link.substitute)
        if link.relative and not target.startswith(b"\\"):
            return target.replace(b"\\", b"/")
        rest = await self._on_this_volume(target)
        if rest is not None:
            depth = await self._depth(file)
            if depth is not None:
                return b"/".join([b".."] * depth + rest) or b"."
        return shown(link.shown) or target

    async def _on_this_volume(self, target: bytes) -> list[bytes] | None:
        """Return the path from the root that an absolute target means, None if it leads elsewhere
        or to nothing."""
        drive = _DRIVE.match(target)
        prefix = drive or _VOLUME.match(target) or _ROOTED.match(target)
        if prefix is None:
            return None
        parts = [part for part in target[prefix.end() :].split(b"\\") if part]
        if any(part in (b".", b"..") or b"/" in part for part in parts) or len(parts) > _MAX_DEPTH:
            return None
        try:
            if drive:
                is_system_drive = drive[1] in b"Cc"
                if is_system_drive != await self._is_system_volume():
                    return None
                if not parts and not is_system_drive:
                    return None
            elif not parts:
                return None  # the root of some volume
            return await self._walk(parts)
        except (DamagedError, UnsupportedError):
            return None

    async def _is_system_volume(self) -> bool:
        if self._has_windows is None:
            self._has_windows = await self._walk([b"Windows", b"System32"]) is not None
        return self._has_windows

    async def _walk(self, parts: list[bytes]) -> list[bytes] | None:
        """Return the names that a path from the root leads through, as the folders have them, or
        None where it leads to nothing. What is behind another link is taken for granted."""
        file = await self._files.file(ROOT)
        walked: list[bytes] = []
        for part in parts:
            await trio.lowlevel.checkpoint()  # what is remembered is found without a pause
            if file.pieces(REPARSE_POINT):
                return walked + parts[len(walked) :]
            if not file.is_folder:
                return None
            folder = file
            try:
                reference, name = await self._folders.find_entry(folder, part)
                file = await self._files.file(reference & RECORD_MASK, reference >> 48)
            except NotFoundError:
                return None
            walked.append(shown(long_name(file, folder.number, name)))
        return walked

    async def _depth(self, file: File) -> int | None:
        """Return how many folders there are between the root and a link, None where its way up
        does not end there."""
        for depth in range(_MAX_DEPTH):
            await trio.lowlevel.checkpoint()
            try:
                file = await self._folders.parent(file)
            except DamagedError:
                return None
            if file.number == ROOT:
                return depth
        return None


def long_name(file: File, folder: RecordNumber, name: bytes) -> bytes:
    """Return the listed name of a file for one that is not, if it has one in that folder."""
    names = [decode_file_name(a.body) for a in file.attributes if a.kind == FILE_NAME]
    here = [other for other in names if other.parent & RECORD_MASK == folder]
    if any(other.name == name and other.namespace != DOS for other in here):
        return name
    return next((other.name for other in here if other.namespace == WIN32), name)
