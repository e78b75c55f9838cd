"""Built NTFS volumes, as our reader and as two others see them.

Owns opening and walking both sides. ntfs-3g is mounted read-only; libfsntfs is asked through its
Python binding. Neither is believed blindly: the tests know what they built, and say where another
reader is not asked because it cannot answer. Concurrency: none.
"""

import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType

from restorefs.block.base import BlockDevice
from restorefs.block.file import FileDevice
from restorefs.guestfs.base import DEFAULT_OPTIONS, DirEntry, GuestOptions, Inode
from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.contracts.devices import WatchedDevice
from tests.images.ntfs_bytes import Volume
from tests.listing import entries_of
from tests.tools import require, require_root, run, unavailable, unmount


class Built:
    """An opened volume."""

    def __init__(self, fs: NtfsFilesystem, device: WatchedDevice) -> None:
        self.fs, self.device = fs, device

    async def find(self, path: str | bytes) -> Inode:
        """Look a path up, name by name; the empty path is the root."""
        inode = self.fs.root
        for name in encoded(path).split(b"/"):
            inode = await self.fs.lookup(inode, name) if name else inode
        return inode

    async def entries(self, path: str | bytes = b"") -> dict[bytes, DirEntry]:
        """Return a folder's entries by name, each of which must be there once."""
        entries = await entries_of(self.fs, await self.find(path))
        named = {entry.name: entry for entry in entries}
        assert len(named) == len(entries)
        return named

    async def names(self, path: str | bytes = b"") -> set[bytes]:
        return set(await self.entries(path))

    async def content(self, path: str | bytes) -> bytes:
        """Read a whole file as the layers above do."""
        inode = await self.find(path)
        size = (await self.fs.attributes(inode)).size
        return await self.content_of(inode, 0, size)

    async def content_of(self, inode: Inode, offset: int, length: int) -> bytes:
        pieces = []
        for extent in await self.fs.map(inode, offset, length):
            if extent.encoded:
                assert extent.offset is None
                pieces.append(await self.fs.read_encoded(inode, offset, extent.length))
                assert len(pieces[-1]) == extent.length
            elif extent.offset is None:
                pieces.append(bytes(extent.length))
            else:
                pieces.append(await self.device.read(extent.offset, extent.length))
            offset += extent.length
        return b"".join(pieces)

    async def tree(self, path: bytes = b"") -> dict[bytes, bytes | None]:
        """Return every path below a folder with its content, None for a folder."""
        found: dict[bytes, bytes | None] = {}
        for name, entry in (await self.entries(path)).items():
            below = path + b"/" + name if path else name
            assert entry.attributes is not None, below
            if stat.S_ISDIR(entry.attributes.mode):
                found[below] = None
                found |= await self.tree(below)
            else:
                found[below] = await self.content(below)
        return found


def encoded(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogatepass")


@asynccontextmanager
async def opened(image: Path, options: GuestOptions = DEFAULT_OPTIONS) -> AsyncIterator[Built]:
    """Open an image with our reader."""
    with FileDevice(image) as file:
        device = WatchedDevice(file)
        yield Built(await NtfsFilesystem.open(device, options), device)


@asynccontextmanager
async def built(
    volume: Volume, folder: Path, options: GuestOptions = DEFAULT_OPTIONS
) -> AsyncIterator[Built]:
    """Write a volume to folder/built.img and open it with our reader."""
    async with opened(volume.write(folder / "built.img"), options) as found:
        yield found


async def identity_of(device: BlockDevice) -> object:
    return await NtfsFilesystem.probe(device)


# Other readers


@contextmanager
def ntfs_3g(image: Path, options: str = "ro") -> Iterator[bytes]:
    """Mount an image by ntfs-3g; yields the folder."""
    require("ntfs-3g", "fusermount3")
    require_root()
    folder = Path(tempfile.mkdtemp(prefix="restorefs-ntfs-3g-"))
    try:
        run("ntfs-3g", "-o", options, image, folder)
        try:
            yield os.fsencode(folder)
        finally:
            unmount(folder)
    finally:
        folder.rmdir()


def tree_by_ntfs_3g(image: Path, top: bytes = b"") -> dict[bytes, bytes | None]:
    """Return every path below a folder with its content, None for a folder, as ntfs-3g has it."""
    found: dict[bytes, bytes | None] = {}
    with ntfs_3g(image) as root:
        for base, folders, files in os.walk(os.path.join(root, top)):  # noqa: PTH118
            for name in folders + files:
                path = os.path.join(base, name)  # noqa: PTH118
                relative = os.path.relpath(path, root)
                if name in folders:
                    found[relative] = None
                else:
                    with open(path, "rb") as file:
                        found[relative] = file.read()
    return found


def pyfsntfs() -> ModuleType:
    """Return libfsntfs' binding; skips the test where it is not installed."""
    try:
        import pyfsntfs as module
    except ImportError:
        unavailable("not installed: libfsntfs-python")
    return module


def tree_by_libfsntfs(image: Path) -> dict[bytes, bytes | None]:
    """Return what tree_by_ntfs_3g() does, as libfsntfs has it, without the $ files of the root."""
    found: dict[bytes, bytes | None] = {}

    def walk(folder: object, path: str) -> None:
        for entry in folder.sub_file_entries:  # type: ignore[attr-defined]
            if not path and entry.name.startswith("$"):
                continue
            below = f"{path}{entry.name}"
            if entry.has_directory_entries_index():
                found[encoded(below)] = None
                walk(entry, below + "/")
            else:
                found[encoded(below)] = entry.read(entry.size) if entry.size else b""

    volume = pyfsntfs().volume()
    volume.open(str(image))
    try:
        walk(volume.get_root_directory(), "")
    finally:
        volume.close()
    return found


def assert_others_agree(
    image: Path,
    expected: Mapping[bytes, bytes | None],
    *,
    ntfs3g: bool = True,
    libfsntfs: bool = True,
) -> None:
    """Assert that the other readers find exactly this tree, where they are asked."""
    if ntfs3g:
        assert_same(expected, tree_by_ntfs_3g(image), "ntfs-3g")
    if libfsntfs:
        assert_same(expected, tree_by_libfsntfs(image), "libfsntfs")


def assert_same(
    expected: Mapping[bytes, bytes | None], found: Mapping[bytes, bytes | None], who: str
) -> None:
    assert set(found) == set(expected), who
    different = [path for path in expected if found[path] != expected[path]]
    assert not different, f"{who}: {different[:10]}"
