"""Finds disk images in a folder.

Owns the layouts of a folder of images and what their names mean. Must not know who keeps the
result. Concurrency: plain blocking calls; looks at each folder once, so that a file which appears
meanwhile is found by the next call.

    <root>/<backup_id>/disk<N>.qcow2
    <root>/<backup_id>/disk-<N>/<any name>.qcow2
    <root>/<backup_id>/disk-<N>/<backup>-disk<N>-<YYYYMMDD>-<HHMMSS>.qcow2

**Several dated images in one disk-<N>** are restore points of that disk: each one, with its backing
files, is the disk as it was then. They are put together in order of their dates: an image belongs
to the same point as the one before it unless that point has this disk already (the disks of one
backup are seldom dated in the same second). The newest point is the backup <backup_id>; each older
one is a backup of its own, <backup_id>@<YYYYMMDD>-<HHMMSS>. A disk without an image of the newest
time is shown in the older point only: nothing pretends to be newer than it is.

**Several images without dates** are one disk if all but one are backing files of another: the one
that nothing is based on is the disk. Otherwise nothing says which one is, and none is shown.

The VM's name and the time come from a backup_id like backup-<vm>-<unix time>; else the backup_id is
the name, and the time is that of the image's name or of its last change. A point of several
takes the time from its images' names. Times in names are UTC.

Links to files are followed within the root. Links to folders are not: what they lead to is listed
where it is, and a link that is turned elsewhere would show other content under an old name.

**What is there and cannot be read** (no permission, storage that fails for a moment) is not gone: a
look that is given what an earlier one found keeps the images that were in it then.
"""

import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from restorefs.errors import CatalogError

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of backup folders looked at, and of all."""

_BACKUP = re.compile(r"backup-(?P<vm>.+)-(?P<time>[0-9]{9,11})", re.DOTALL)
_INDEX = r"(?P<index>0|[1-9][0-9]{0,3})"
_DISK_FILE = re.compile(rf"disk{_INDEX}\.qcow2")
_DISK_FOLDER = re.compile(rf"disk-{_INDEX}")
_DATED = re.compile(r".+-disk(?P<index>[0-9]+)-(?P<date>[0-9]{8}-[0-9]{6})\.qcow2", re.DOTALL)
_DATE = "%Y%m%d-%H%M%S"

# The start of a qcow2 header, big-endian: magic, version, offset and length of the backing file's
# name, cluster_bits, virtual size in bytes. Format: QEMU, docs/interop/qcow2, "Header".
_HEADER = struct.Struct(">4sIQIIQ")
_MAGIC = b"QFI\xfb"
_LONGEST_NAME = 1023
_LAST_OFFSET = 2**63 - 1 - _LONGEST_NAME  # what the kernel takes as an offset

_LATEST = datetime.max.replace(tzinfo=UTC)
# What an error says of what it is about: that it is not there. ELOOP: a link that leads to itself.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class Image:
    """A qcow2 file that is a disk. `folder` is the name of the backup's folder, `path` is real (no
    links), `size` the disk's size in bytes, `dated` the time in the file's name."""

    folder: str
    disk_index: int
    path: Path
    size: int
    backing_name: str | None
    dated: datetime | None
    modified: datetime

    @property
    def size_gb(self) -> int:
        """The disk's size in GiB, rounded up."""
        return -(-self.size // 2**30)


@dataclass(frozen=True, slots=True)
class FoundBackup:
    """A backup with its images, by disk_index, each index once."""

    id: str
    vm_name: str
    created_at: datetime
    images: Sequence[Image]


Known: TypeAlias = Mapping[str, Mapping[str, Sequence[Image]]]
"""What a look found, for the next one: by the name of a backup's folder, and by path, the images in
each folder and file."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the folder that is not shown, and why. `unread`: because it cannot be read now;
    what was known of it is shown."""

    path: Path
    reason: str
    unread: bool = False

    @property
    def is_trouble(self) -> bool:
        """Whether it is, or may hold, what somebody wants to see."""
        return self.unread or self.path.suffix == ".qcow2"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a folder holds: `root` is its real path; `notes` say what was read into names; `known`
    is for the next look."""

    root: Path
    backups: Sequence[FoundBackup]
    skipped: Sequence[Skipped]
    notes: Sequence[str]
    known: Known


def real_folder(folder: Path) -> Path:
    """Return the real path of a folder of images. Raises CatalogError."""
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise CatalogError(f"folder of images {folder}: {_text(error)}") from error
    if not real.is_dir():
        raise CatalogError(f"folder of images {folder}: not a folder")
    return real


def find_backups(root: Path, progress: Progress, known: Known | None = None) -> Findings:
    """Find the backups in a folder, in order of their folders' names. `known` is what the look
    before found. Raises CatalogError when the folder itself cannot be read."""
    root = real_folder(root)
    try:
        entries = _entries(root)
    except OSError as error:
        raise CatalogError(f"folder of images {root}: {_text(error)}") from error
    walk = _Walk(root, {entry.name for entry in entries}, known or {})
    backups: list[FoundBackup] = []
    for done, entry in enumerate(entries):
        progress(done, len(entries))
        backups.extend(walk.backup_folder(entry))
    progress(len(entries), len(entries))
    return Findings(root, backups, walk.skipped, walk.notes, walk.known)


def is_gone(path: str | Path) -> bool:
    """Whether nothing is at a path; not when that cannot be seen."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _NOT_THERE
    return False


def time_in_name(backup_id: str) -> datetime | None:
    """Return the time in a backup_id like backup-<vm>-<unix time>."""
    match = _BACKUP.fullmatch(backup_id)
    return datetime.fromtimestamp(int(match["time"]), UTC) if match else None


class _Walk:
    """One look at a folder: collects what is skipped, and what was read into names."""

    def __init__(self, root: Path, names: set[str], before: Known) -> None:
        self.root = root
        self.names = names
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []
        self.known: dict[str, dict[str, Sequence[Image]]] = {}
        self._before = before

    def backup_folder(self, folder: os.DirEntry[str]) -> list[FoundBackup]:
        """Return the backups in <root>/<backup_id>: none, one, or one for each restore point."""
        self.known[folder.name] = {}
        images = self._read(folder.name, folder, self._images)
        return self._backups(folder.name, images) if images else []

    def _read(
        self,
        backup: str,
        what: os.DirEntry[str],
        images_in: Callable[[os.DirEntry[str]], Sequence[Image]],
    ) -> Sequence[Image]:
        """Return the images in a folder or file; if it is there and cannot be read, those that the
        look before found in it."""
        now, before = self.known[backup], self._before.get(backup, {})
        try:
            images = images_in(what)
        except OSError as error:
            unread = error.errno not in _NOT_THERE
            self._skip(what, _text(error), unread=unread)
            if not unread:
                return ()
            inside = what.path + "/"
            now |= {path: each for path, each in before.items() if path.startswith(inside)}
            images = before.get(what.path, ())
        now[what.path] = images
        return images

    def _images(self, folder: os.DirEntry[str]) -> Sequence[Image]:
        """Return the images of <root>/<backup_id>. Raises OSError."""
        entries = self._open(folder, "not a folder: expected <backup_id>/disk<N>.qcow2")
        if entries is None:
            return ()
        disks: dict[int, Sequence[Image]] = {}
        # Files before folders: disk0.qcow2 is disk 0, whatever a folder disk-0 holds.
        for entry in entries:
            if match := _DISK_FILE.fullmatch(entry.name):
                index = int(match["index"])
                image = partial(self._image, folder.name, index)
                if found := self._read(folder.name, entry, image):
                    disks[index] = found
        for entry in entries:
            match = _DISK_FOLDER.fullmatch(entry.name)
            if match and int(match["index"]) in disks:
                self._skip(entry, f"disk {match['index']} is the file disk{match['index']}.qcow2")
            elif match:
                index = int(match["index"])
                of_disk = partial(self._disk_folder, folder.name, index)
                disks[index] = self._read(folder.name, entry, of_disk)
            elif not _DISK_FILE.fullmatch(entry.name):
                self._skip(entry, "neither disk<N>.qcow2 nor a folder disk-<N>")
        images = [image for of_disk in disks.values() for image in of_disk]
        if not images:
            self._skip(folder, "no disk image in it" if entries else "an empty folder")
        return images

    def _disk_folder(self, backup: str, index: int, folder: os.DirEntry[str]) -> Sequence[Image]:
        """Return the images in <backup_id>/disk-<N> that are shown: any number of dated ones, or
        one without a date. Raises OSError."""
        entries = self._open(folder, "not a folder")
        if entries is None:
            return ()
        if not entries:
            self._skip(folder, "an empty folder")
        images: list[Image] = []
        image = partial(self._image, backup, index)
        for entry in entries:
            match = _DATED.fullmatch(entry.name)
            if not entry.name.endswith(".qcow2"):
                self._skip(entry, "not named .qcow2")
            elif match and int(match["index"]) != index:
                self._skip(entry, f"its name says disk {match['index']}, its folder disk {index}")
            else:
                images += self._read(backup, entry, image)
        return self._shown(images) if len(images) > 1 else images

    def _shown(self, images: Sequence[Image]) -> Sequence[Image]:
        """Of several images of one disk, return the restore points, or the one disk."""
        above = {_backing_path(image): image for image in images if image.backing_name}
        dated = {image.dated: image for image in reversed(images) if image.dated is not None}
        tips = [image for image in images if image.path not in above]
        shown = list(dated.values()) or (tips if len(tips) == 1 else [])
        for image in images:
            if image in shown:
                continue
            if image.dated is not None:
                reason = f"has the same date as {dated[image.dated].path.name}"
            elif image.path in above:
                reason = f"the backing file of {above[image.path].path.name}"
            elif dated:
                reason = "no date in its name, beside images that have one"
            else:
                reason = (
                    "one of several images, and nothing says which is the disk: no dates in the "
                    "names, and not all but one are backing files"
                )
            self._skip(image.path, reason)
        return shown

    def _backups(self, folder: str, images: Sequence[Image]) -> list[FoundBackup]:
        """Put the images in one backup's folder together to restore points, the newest last."""
        match = _BACKUP.fullmatch(folder)
        vm_name = match["vm"] if match else folder
        *older, newest = _points(images)
        # Beside older points, the newest one must have a time of the same kind as theirs.
        taken = None if older else time_in_name(folder)
        taken = taken or _first_date(newest)
        created_at = taken or max(image.modified for image in newest.values())
        backups = []
        for point in older:
            date = _first_date(point)
            assert date is not None  # what has no date is in the newest point
            point_id = f"{folder}@{date:{_DATE}}"
            if point_id in self.names:
                for image in point.values():
                    self._skip(image.path, f"an older restore point, but {point_id} is a folder")
                continue
            self.notes.append(f"{point_id}: {_kind(point, images)}")
            backups.append(FoundBackup(point_id, vm_name, date, _by_index(point)))
        for index in sorted({image.disk_index for image in images} - set(newest)):
            self.notes.append(f"{folder}: disk {index} has images in older restore points only")
        backups.append(FoundBackup(folder, vm_name, created_at, _by_index(newest)))
        return backups

    def _image(self, folder: str, index: int, entry: os.DirEntry[str]) -> Sequence[Image]:
        """Look at one file; nothing if it is skipped. Raises OSError."""
        path = Path(entry.path)
        try:
            if entry.is_symlink():
                path = path.resolve(strict=True)
                if not path.is_relative_to(self.root):
                    self._skip(entry, f"a link that leaves the folder, to {path}")
                    return ()
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                self._skip(entry, "not a file")
                return ()
            size, backing_name = _read_header(path)
        except (RuntimeError, ValueError) as error:
            self._skip(entry, str(error))
            return ()
        image = Image(
            folder=folder,
            disk_index=index,
            path=path,
            size=size,
            backing_name=backing_name,
            dated=_date_in_name(entry.name),
            modified=datetime.fromtimestamp(status.st_mtime, UTC),
        )
        return (image,)

    def _open(self, folder: os.DirEntry[str], otherwise: str) -> list[os.DirEntry[str]] | None:
        """List a folder; None if it is skipped. Raises OSError."""
        if folder.is_symlink() and folder.is_dir():
            self._skip(folder, "a link to a folder; these are not followed")
        elif folder.is_dir():
            return _entries(folder.path)
        else:
            self._skip(folder, otherwise)
        return None

    def _skip(self, what: os.DirEntry[str] | Path, reason: str, *, unread: bool = False) -> None:
        self.skipped.append(Skipped(Path(what), reason, unread))


def _points(images: Sequence[Image]) -> list[dict[int, Image]]:
    """Group images by the backup that wrote them, in order of their dates; at least one group. An
    image without a date belongs to the newest."""
    points: list[dict[int, Image]] = []
    for image in sorted(images, key=lambda image: (image.dated or _LATEST, image.disk_index)):
        if not points or (image.dated is not None and image.disk_index in points[-1]):
            points.append({})
        points[-1][image.disk_index] = image
    return points


def _kind(point: Mapping[int, Image], images: Sequence[Image]) -> str:
    """Say how an older restore point's images relate to the newest ones."""
    said = []
    for index, image in sorted(point.items()):
        of_disk = [other for other in images if other.disk_index == index]
        newest = max(of_disk, key=lambda other: other.dated or _LATEST)
        if image is newest:
            said.append(f"disk {index} is its newest image")
        elif image.path in _chain(newest, of_disk):
            said.append(f"disk {index} is a backing file of {newest.path.name}")
        else:
            said.append(f"disk {index} is independent of {newest.path.name}")
    return f"an older restore point ({', '.join(said)})"


def _chain(image: Image, images: Sequence[Image]) -> set[Path]:
    """Return the paths of those of `images` that `image` is based on."""
    by_path = {other.path: other for other in images}
    below: set[Path] = set()
    while (path := _backing_path(image)) in by_path and path not in below:
        below.add(path)
        image = by_path[path]
    return below


def _backing_path(image: Image) -> Path | None:
    if image.backing_name is None:
        return None
    return Path(os.path.realpath(image.path.parent / image.backing_name))


def _first_date(point: Mapping[int, Image]) -> datetime | None:
    return min((image.dated for image in point.values() if image.dated), default=None)


def _by_index(point: Mapping[int, Image]) -> Sequence[Image]:
    return tuple(point[index] for index in sorted(point))


def _date_in_name(name: str) -> datetime | None:
    match = _DATED.fullmatch(name)
    try:
        return datetime.strptime(match["date"], _DATE).replace(tzinfo=UTC) if match else None
    except ValueError:  # digits, but no date
        return None


def _read_header(path: Path) -> tuple[int, str | None]:
    """Return the disk's size in bytes and the backing file's name as the image gives it.

    Whether the image is sound is found out when it is attached. Raises OSError, and ValueError with
    the reason for what is no qcow2 image. Format: QEMU, docs/interop/qcow2, "Header".
    """
    # O_NONBLOCK: should a pipe have taken the file's place since it was looked at.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.pread(fd, _HEADER.size, 0)
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise ValueError("not a qcow2 image")
        _, version, name_offset, name_length, _, size = _HEADER.unpack(data)
        if version not in (2, 3):
            raise ValueError(f"qcow2 version {version}; known are 2 and 3")
        if name_offset == 0 or name_length > _LONGEST_NAME or name_offset > _LAST_OFFSET:
            return size, None
        return size, os.fsdecode(os.pread(fd, name_length, name_offset))
    finally:
        os.close(fd)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
