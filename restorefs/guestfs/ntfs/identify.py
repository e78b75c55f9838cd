"""What an NTFS volume says of itself, for people.

Owns the volume's Identity: label, serial number, version, and whether Windows let go of it
properly. Sources: linux-ntfs, "$Volume" and "$LogFile" (LFS_RESTART_PAGE, LFS_RESTART_AREA); the
signatures of PO_MEMORY_IMAGE, which hiberfil.sys begins with: "hibr" while it holds a system,
"rstr" while that is being restored, "wake" afterwards, in capitals since Windows 8.

Nothing here raises DamagedError: what cannot be read is not said.
"""

import struct
from collections.abc import Iterable

from restorefs.block.base import BlockDevice
from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.ntfs.content import Content
from restorefs.guestfs.ntfs.files import FileTable
from restorefs.guestfs.ntfs.folder import Folders
from restorefs.guestfs.ntfs.layout import (
    DATA,
    LOG_FILE,
    RECORD_MASK,
    ROOT,
    VOLUME,
    VOLUME_INFORMATION,
    VOLUME_NAME,
    Boot,
    apply_fixups,
    looks_like_ntfs,
    size_and_serial,
)
from restorefs.guestfs.ntfs.names import shown

DIRTY = "volume is marked dirty: Windows was running or did not shut down cleanly"
HIBERNATED = "hibernated: hiberfil.sys has a live header, so what is on disk may be behind memory"
LOG_NOT_CLEAN = "$LogFile is not clean: what is on disk may be behind what it records"

_UNREADABLE = (DamagedError, NotFoundError, UnsupportedError)
_VERSION = struct.Struct("<8xBBH")
_DIRTY_FLAG = 0x0001
_LABEL_BYTES = 256
_LIVE_HIBERNATION = (b"hibr", b"HIBR", b"rstr", b"RSTR")
_HIBERFIL = b"hiberfil.sys"
_LOG_PAGE = 4096
_LOG_PAGES = 2
_RESTART = struct.Struct("<4xHH8xIIH")  # update sequence, page sizes, restart area
_RESTART_AREA = struct.Struct("<QHHHH")
_LOG_IS_CLEAN = 0x0002
_NO_CLIENT = 0xFFFF


def of_boot_sector(sector: bytes, notes: Iterable[str] = ()) -> Identity:
    """Return what a boot sector alone says."""
    size, serial = size_and_serial(sector)
    return Identity(kind="ntfs", readable=True, uuid=serial, size=size, notes=tuple(notes))


async def boot_sector(device: BlockDevice) -> bytes | None:
    """Return the boot sector, None where it is not NTFS'. Raises StorageError."""
    if device.size < 512:
        return None
    sector = await device.read(0, 512)
    return sector if looks_like_ntfs(sector) else None


async def describe(
    boot: Boot, device: BlockDevice, files: FileTable, folders: Folders, content: Content
) -> Identity:
    """Say for people what a volume says. Raises StorageError."""
    notes = list(files.mft.damage)
    label, clean = "", None
    try:
        volume = await files.file(VOLUME)
        information = await files.value(volume, VOLUME_INFORMATION, _LABEL_BYTES)
        if len(information) >= _VERSION.size:
            major, minor, flags = _VERSION.unpack_from(information)
            notes.append(f"NTFS {major}.{minor}")
            clean = not flags & _DIRTY_FLAG
            if not clean:
                notes.append(DIRTY)
        # Last: what is wrong with it must not hide that the volume is dirty.
        stored_label = await files.value(volume, VOLUME_NAME, _LABEL_BYTES)
        label = shown(stored_label).decode("utf-8", "replace")
    except _UNREADABLE as error:
        notes.append(f"$Volume cannot be read: {error}")
    if await _log_is_clean(files) is False:
        notes.append(LOG_NOT_CLEAN)
        clean = False
    if await _is_hibernated(files, folders, content):
        notes.append(HIBERNATED)
        clean = False
    if boot.size > device.size:
        notes.append(f"the file system has {boot.size} bytes, its volume only {device.size}")
    return Identity(
        kind="ntfs",
        readable=True,
        label=label.partition("\0")[0],
        uuid=f"{boot.serial:016X}",
        size=boot.size,
        clean=clean,
        notes=tuple(notes),
    )


async def _log_is_clean(files: FileTable) -> bool | None:
    """Tell whether $LogFile has nothing to be done again, None if that is not known."""
    try:
        file = await files.file(LOG_FILE)
        stream = await files.stream(file, DATA)
        if stream is None or stream.size < _LOG_PAGE * _LOG_PAGES:
            return None
        pages = await files.read(stream, 0, _LOG_PAGE * _LOG_PAGES)
        if pages.count(b"\xff") == len(pages):
            return True  # emptied, as by mkntfs, ntfs-3g and chkdsk
        newest: tuple[int, bool] | None = None
        for start in range(0, len(pages), _LOG_PAGE):
            try:
                found = _decode_restart(pages, start)
            except DamagedError:
                continue
            newest = max(newest or found, found)
    except _UNREADABLE:
        return None
    return newest[1] if newest else None


def _decode_restart(pages: bytes, start: int) -> tuple[int, bool]:
    """Return a restart page's number and whether the log is clean by it. Raises DamagedError."""
    if pages[start : start + 4] != b"RSTR":
        raise DamagedError("this is no restart page")
    page = apply_fixups(pages, start, _LOG_PAGE)
    *_, area = _RESTART.unpack_from(page)
    if area + _RESTART_AREA.size > _LOG_PAGE:
        raise DamagedError("a restart page is damaged")
    number, _, _, client, flags = _RESTART_AREA.unpack_from(page, area)
    return number, client == _NO_CLIENT or bool(flags & _LOG_IS_CLEAN)


async def _is_hibernated(files: FileTable, folders: Folders, content: Content) -> bool:
    try:
        reference = await folders.find(await files.file(ROOT), _HIBERFIL)
        file = await files.file(reference & RECORD_MASK, reference >> 48)
        source = await content.named(file, b"")
        if source.stream.size < 4:
            return False
        return await content.read(source, 0, 4) in _LIVE_HIBERNATION
    except _UNREADABLE:
        return False
