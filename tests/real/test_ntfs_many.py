"""Much of everything in one NTFS volume: what it costs, and that others get their turn meanwhile.

Nothing is measured in seconds: tests/turns.py counts how often another task got its turn.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from restorefs.block.cache import BlockCache, CachedDisk
from restorefs.errors import DamagedError
from restorefs.guestfs.base import GuestOptions
from restorefs.guestfs.limits import DEFAULT_LIMITS
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.index import open_index
from restorefs.guestfs.ntfs.layout import I30, decode_boot
from restorefs.guestfs.ntfs.layout import Attribute as Decoded
from restorefs.guestfs.ntfs.mft import Mft
from restorefs.guestfs.pieces import PieceReader
from restorefs.tree.nodeid import MAX_INODE
from tests.contracts.transports import PromptTransport
from tests.images.ntfs_bytes import (
    A_REPARSE,
    DATA,
    Attribute,
    Name,
    Volume,
    extended_attributes,
    symlink,
)
from tests.images.ntfs_bytes import File as BuiltFile
from tests.listing import entries_of
from tests.real.ntfs_built import built
from tests.turns import Turns

MIB = 1 << 20


# Streams


async def test_large_streams_do_not_hide_small_ones(tmp_path: Path) -> None:
    volume = Volume()
    large = [
        Attribute(DATA, f"a{number}", runs=[(None, 2560)], size=10 * MIB) for number in range(3)
    ]
    small = Attribute(DATA, "small", value=b"there")
    volume.file("file", Attribute(DATA, value=b""), *large, small)
    async with built(volume, tmp_path) as found:
        xattrs = await found.fs.xattrs(await found.find("file"))
        assert {name for name in xattrs if name.startswith(b"user.")} == {
            b"user.DOSATTRIB",
            b"user.small",
        }
        assert xattrs[b"user.small"] == b"there"


async def test_more_streams_than_are_shown_are_an_error(tmp_path: Path) -> None:
    """Some would be missing, and nobody would know."""
    volume = Volume()
    streams = [
        Attribute(DATA, f"{number:03d}", runs=[(None, 16)], size=64 << 10, record=number // 8 + 1)
        for number in range(257)
    ]
    volume.file("file", Attribute(DATA, value=b"content"), *streams, list_outside=True)
    async with built(volume, tmp_path) as found:
        with pytest.raises(DamagedError, match="too large"):
            await found.fs.xattrs(await found.find("file"))
        assert await found.content("file") == b"content"
        assert await found.content("file:256") == bytes(64 << 10)


async def test_a_file_of_many_streams_lets_others_go_on(tmp_path: Path) -> None:
    volume = Volume()
    streams = [
        Attribute(DATA, f"{number:04d}", value=b"%d" % number, record=number // 12 + 1)
        for number in range(1024)
    ]
    volume.file("file", Attribute(DATA, value=b""), *streams, list_outside=True)
    async with built(volume, tmp_path) as found:
        inode = await found.find("file")
        await found.fs.xattrs(inode)  # now all of it is in memory
        async with Turns() as turns:
            xattrs = await found.fs.xattrs(inode)
            assert turns.count >= 8
        for number in range(1024):
            assert xattrs[b"user.%04d" % number] == b"%d" % number


class Counted(list[Decoded]):
    """Attributes that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Decoded]:
        self.passes += 1
        return super().__iter__()


def test_a_files_attributes_are_gone_through_once() -> None:
    attributes = Counted(
        Decoded(DATA, b"%d\0" % (number // 2), 0, number, True, number % 2, b"")
        for number in range(200)
    )
    file = File(100, 1, False, attributes)
    for number, name in enumerate(file.names(DATA)):
        assert name == b"%d\0" % number
        assert file.pieces(DATA, name) == attributes[2 * number : 2 * number + 2]
    assert not file.pieces(DATA)
    assert attributes.passes == 1


# Links and other files that take the long way


@pytest.mark.parametrize(("depth", "is_found"), [(256, True), (257, False)])
async def test_a_target_of_many_parts(depth: int, is_found: bool, tmp_path: Path) -> None:
    volume = Volume(record=4096)
    volume.folder("System32", volume.folder("Windows"))
    folder = volume.root
    for _ in range(depth):
        folder = volume.folder("d", folder)
    path = "\\".join(["d"] * depth)
    for name in ("one", "two"):
        volume.file(name, symlink(f"\\??\\C:\\{path}", "as stored"), dos_attributes=A_REPARSE)
    async with built(volume, tmp_path) as found:
        one, two = await found.find("one"), await found.find("two")
        expected = b"/".join([b"d"] * depth) if is_found else b"as stored"
        assert await found.fs.readlink(one) == expected
        async with Turns() as turns:  # everything is in memory
            assert await found.fs.readlink(two) == expected
            assert turns.count >= (depth // 2 if is_found else 0)


async def test_a_folder_of_slow_files_lets_others_go_on(tmp_path: Path) -> None:
    volume = Volume()
    folder = volume.folder("folder")
    for number in range(100):
        volume.file(
            f"{number}",
            *extended_attributes({b"$LXMOD": (0o100600).to_bytes(4, "little")}),
            parent=folder,
        )
    async with built(volume, tmp_path) as found:
        await found.entries("folder")
        inode = await found.find("folder")
        async with Turns() as turns:
            assert len(await entries_of(found.fs, inode)) == 100
            assert turns.count >= 50


async def test_scattered_index_blocks_are_read_together(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    volume = Volume()
    built_folder = volume.folder("folder", leaf_entries=2)
    for number in range(4000):
        volume.resident(f"file {number:05d}", b"", parent=built_folder)
    content = volume.write(tmp_path / "built.img").read_bytes()
    transport = PromptTransport(content, random.Random(1))
    nursery.start_soon(transport.serve)
    files = FileTable(
        await Mft.open(
            PieceReader(CachedDisk(BlockCache(64 << 20), transport)),
            decode_boot(content[:512]),
            DEFAULT_LIMITS,
        )
    )
    index = await open_index(files, await files.file(built_folder.number), I30)
    assert index is not None
    transport.asked.clear()
    numbers = range(0, index.block_count, 40)
    nodes = await index.blocks(numbers)
    assert len(nodes) == len(numbers) >= 30
    assert len(transport.asked) <= len(numbers) // 4
    nursery.cancel_scope.cancel()


# Entries that lead to nothing


async def test_entries_that_lead_to_nothing_have_one_inode(tmp_path: Path) -> None:
    """Whoever numbers inodes of more than 36 bits keeps each for ever."""
    volume = Volume()
    folder = volume.folder("folder")
    other = volume.resident("other", b"another file by now")
    ghost = BuiltFile(900)
    assert folder.entries is not None
    for number in range(100):
        stale = ghost.key(Name(folder.reference, f"stale {number}"))
        folder.entries.append((stale, other.number | number + 2 << 48))
        beyond = ghost.key(Name(folder.reference, f"beyond {number}"))
        folder.entries.append((beyond, (1 << 40) + number | 1 << 48))
        near = ghost.key(Name(folder.reference, f"near {number}"))
        folder.entries.append((near, 100_000 + number | 1 << 48))
        impossible = ghost.key(Name(folder.reference, f"im/possible {number}"))
        folder.entries.append((impossible, other.reference))
    volume.resident("live", b"live", parent=folder)
    async with built(volume, tmp_path, GuestOptions(show_system_files=True)) as found:
        entries = await found.entries("folder")
        assert len(entries) == 401
        live = entries.pop(b"live")
        assert live.attributes is not None
        inodes = {entry.inode for entry in entries.values()}
        assert all(entry.attributes is None for entry in entries.values())
        assert len(inodes) == 1
        nothing = inodes.pop()
        assert 0 < nothing <= MAX_INODE
        with pytest.raises(DamagedError):
            await found.fs.attributes(nothing)
        with pytest.raises(DamagedError):
            await found.fs.map(nothing, 0, 0)
        mft = (await found.entries())[b"$MFT"]
        assert mft.inode != nothing
        assert (await found.fs.attributes(mft.inode)).size
