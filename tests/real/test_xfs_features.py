"""XFS images: what is said of them as a whole, and what is true of single features."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from restorefs.block.file import FileDevice
from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.registry import identify
from restorefs.guestfs.xfs.reader import XfsFilesystem
from tests.images import tree
from tests.images.xfs import (
    MIB,
    NEEDS_REPAIR,
    RECIPES,
    UUID,
    Images,
    field,
    inode_place,
    log_of,
    make_links,
    mkfs,
    next_inode,
    patch,
    set_incompat,
    writable,
    xfs_db,
)
from tests.listing import entries_of, listings
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.test_ext_manifest import created_ns
from tests.real.xfs_trees import copy_of, expected_tree, found_tree, opened
from tests.tools import require, run

DIRTY = ("xfs_dirty", "xfs_external_dirty", "xfs_frozen", "xfs_aged_dirty")


@pytest.mark.parametrize("name", RECIPES)
async def test_identity_is_what_blkid_says(name: str, xfs_images: Images) -> None:
    require("blkid")
    image = xfs_images(name)
    shown = run("blkid", "--probe", "--output", "export", image).splitlines()
    expected = dict(line.split("=", 1) for line in shown)
    async with opened(image) as (fs, device):
        identity = fs.identity
        assert await XfsFilesystem.probe(device) == identity
        assert await identify(device) == identity
    assert identity.kind == expected["TYPE"]
    assert identity.label == expected.get("LABEL", "").replace("\\", "")
    assert identity.uuid == expected["UUID"]
    assert identity.size == field(image, "sb 0", "dblocks") * field(image, "sb 0", "blocksize")
    if RECIPES[name].log:
        assert (identity.clean, identity.log_uuid) == (None, UUID)
    else:
        assert identity.clean == (name not in DIRTY)
        assert identity.log_uuid == ""
        assert ("journal needs recovery" in identity.notes) == (name in DIRTY)


@pytest.mark.parametrize("name", ["xfs_default", "xfs_1k", "xfs_nrext64"])
async def test_opening_costs_few_reads(name: str, xfs_images: Images) -> None:
    async with opened(xfs_images(name)) as (_, device):
        assert device.reads <= 6


@pytest.mark.parametrize("guess", [True, False])
async def test_a_log_that_was_written_over_and_over(
    guess: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guess:
        monkeypatch.setattr("restorefs.guestfs.xfs.journal._GUESSED", 1)
    image = tmp_path / "image"
    mkfs(
        image, "-b", "size=1024", "-l", "size=4m", "--unsupported", "-d", "agcount=1",
        size=64 * MIB,
    )  # fmt: skip
    with writable(image) as root:
        for number in range(3000):
            tree.write(os.fsencode(root / f"{number}"))
    for mount in range(8):
        with writable(image) as root:
            for turn in range(2):
                for number in range(3000):
                    os.utime(root / f"{number}", (mount, turn))
                run("xfs_io", "-c", "syncfs", root)
        async with opened(image) as (fs, _):
            assert fs.identity.clean is True, mount
    assert field(image, "sb 0", "lsn") >> 32 > 1, "the log was not filled even once"
    with writable(image) as root:
        tree.folder(os.fsencode(root), b"last")
        run("xfs_io", "-x", "-c", "shutdown -f", root)
        async with opened(image) as (fs, _):
            assert fs.identity.clean is False


async def test_an_external_log_says_that_it_is_clean(xfs_images: Images) -> None:
    image = xfs_images("xfs_external_log")
    async with opened(image) as (fs, _):
        before = fs.identity
        with FileDevice(log_of(image)) as log:
            await fs.show_log(log)
        assert fs.identity == replace(before, clean=True)


async def test_an_external_log_says_that_it_needs_recovery(xfs_images: Images) -> None:
    image = xfs_images("xfs_external_dirty")
    async with opened(image) as (fs, _):
        with FileDevice(log_of(image)) as log:
            await fs.show_log(log)
        assert fs.identity.clean is False
        assert fs.identity.notes[-1] == "journal needs recovery"


async def test_the_log_of_another_file_system_is_refused(
    xfs_images: Images, tmp_path: Path
) -> None:
    image = xfs_images("xfs_external_log")
    other = tmp_path / "log"
    run("cp", "--sparse=always", log_of(image), other)
    content = other.read_bytes()
    other.write_bytes(content.replace(bytes.fromhex(UUID.replace("-", "")), b"another UUID ..."))
    async with opened(image) as (fs, _):
        before = fs.identity
        for content in (other.read_bytes(), bytes(1000)):
            other.write_bytes(content)
            with FileDevice(other) as log, pytest.raises(DamagedError):
                await fs.show_log(log)
        assert fs.identity == before
    async with opened(xfs_images("xfs_small")) as (fs, device):
        with pytest.raises(UnsupportedError):
            await fs.show_log(device)


@pytest.mark.parametrize("name", ["xfs_external_log", "xfs_external_dirty"])
async def test_an_external_log_is_recognised(name: str, xfs_images: Images) -> None:
    require("blkid")
    log = log_of(xfs_images(name))
    shown = run("blkid", "--probe", "--output", "export", log).splitlines()
    expected = dict(line.split("=", 1) for line in shown)
    with FileDevice(log) as device:
        identity = await identify(device)
    assert identity is not None
    assert identity.kind == expected["TYPE"] == "xfs_external_log"
    assert identity.uuid == UUID
    assert not identity.holds_files


async def test_inode_numbers_and_creation_times(xfs_images: Images) -> None:
    for name in ("xfs_default", "xfs_2k_plain", "xfs_many_groups"):
        image = xfs_images(name)
        async with opened(image) as (fs, _):
            with RECIPES[name].mounted(image) as root:
                checked = 0
                pending = [(os.fsencode(root), fs.root)]
                while pending:
                    path, inode = pending.pop()
                    assert inode == os.lstat(path).st_ino
                    attributes = await fs.attributes(inode)
                    assert attributes.created_ns == created_ns(path), path
                    checked += 1
                    if stat.S_ISDIR(attributes.mode):
                        entries = await entries_of(fs, inode)
                        pending += ((path + b"/" + each.name, each.inode) for each in entries)
                assert checked > 20


async def test_a_folder_of_20000_names(tmp_path: Path) -> None:
    image = tmp_path / "image"
    mkfs(image)
    with writable(image) as root:
        make_links(tree.folder(os.fsencode(root), b"large"), 20_000)
        expected = {each.name.encode(): each.inode() for each in os.scandir(root / "large")}
    async with opened(image) as (fs, device):
        large = await fs.lookup(fs.root, b"large")
        reads = device.reads
        assert await fs.lookup(large, b"entry-12345") == expected[b"entry-12345"]
        with pytest.raises(NotFoundError):
            await fs.lookup(large, b"entry-20000")
        assert device.reads - reads <= 8, "a lookup reads a few blocks"
        parts = [part async for part in listings(fs, large)]
        assert len(parts[0].entries) < 1000, "the first come soon"
        entries = [entry for part in parts for entry in part.entries]
        assert len(entries) == 20_000
        assert {entry.name: entry.inode for entry in entries} == expected
        for entry in entries[::1000]:
            assert await fs.lookup(large, entry.name) == entry.inode
        assert await entries_of(fs, large, entries[15_000].cookie) == entries[15_001:]


async def test_realtime_files_are_refused_by_name(xfs_images: Images, tmp_path: Path) -> None:
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    inode = next_inode(image, "/list")
    xfs_db(image, f"inode {inode}", "write -d core.realtime 1", write=True)
    async with opened(image) as (fs, _):
        assert (await fs.attributes(inode)).size > 0
        assert await fs.xattrs(inode)
        with pytest.raises(UnsupportedError, match="realtime"):
            await fs.map(inode, 0, 1)


async def test_files_of_the_file_system_s_own_are_not_shown(
    xfs_images: Images, tmp_path: Path
) -> None:
    """With metadir, they are marked so (di_flags2, 0x20)."""
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    inode = next_inode(image, "/list")
    flags = field(image, f"inode {inode}", "v3.flags2")
    xfs_db(image, f"inode {inode}", f"write -d v3.flags2 {flags | 0x20:#x}", write=True)
    async with opened(image) as (fs, _):
        with pytest.raises(NotFoundError):
            await fs.attributes(inode)


async def test_what_is_in_need_of_repair_is_read_and_said(
    xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    set_incompat(image, NEEDS_REPAIR)
    async with opened(image) as (fs, device):
        assert fs.identity.clean is False
        assert "marked as in need of xfs_repair" in fs.identity.notes
        found = await manifest_of_guest(fs, device)
    assert_same_tree(expected_tree(xfs_images("xfs_small"), "xfs_small"), found)


@pytest.mark.parametrize("damage", ["checksum", "signature", "all", "geometry"])
async def test_a_damaged_superblock_is_replaced_by_a_copy(
    damage: str, xfs_images: Images, tmp_path: Path
) -> None:
    name = "xfs_default"
    image = copy_of(xfs_images(name), tmp_path)
    what = {
        "checksum": (140, b"\xff\xff"),
        "signature": (0, bytes(4)),
        "all": (0, bytes(512)),
        "geometry": (84, b"\xff\xff\xff\xff"),
    }
    patch(image, *what[damage])
    async with opened(image) as (fs, _):
        assert "copy in group 1 is used" in fs.identity.notes[0]
        assert fs.identity.clean is True
    assert_same_tree(expected_tree(xfs_images(name), name), await found_tree(image))


async def test_a_copy_that_was_left_behind_is_nobodys(xfs_images: Images, tmp_path: Path) -> None:
    image = copy_of(xfs_images("xfs_default"), tmp_path)
    for start in (b"somebody else's first sector".ljust(512), bytes(64 << 10)):
        patch(image, 0, start)
        with FileDevice(image) as device:
            assert await XfsFilesystem.probe(device) is None


async def test_inodes_that_never_were(xfs_images: Images) -> None:
    image = xfs_images("xfs_default")
    async with opened(image) as (fs, _):
        for inode in (0, 1, 2, 1 << 20, (1 << 31) + 5, 1 << 40, (1 << 64) - 1):
            with pytest.raises(NotFoundError):
                await fs.attributes(inode)


async def test_a_file_system_that_does_not_fit_its_volume_says_so(
    xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images("xfs_default"), tmp_path)
    os.truncate(image, 310 * MIB)
    async with opened(image) as (fs, _):
        assert any("its volume only" in note for note in fs.identity.notes)
        assert await entries_of(fs, fs.root)


async def test_a_file_that_lost_its_last_name_is_not_shown(
    xfs_images: Images, tmp_path: Path
) -> None:
    image = copy_of(xfs_images("xfs_small"), tmp_path)
    inode = next_inode(image, "/list")
    xfs_db(image, f"inode {inode}", "write -d core.nlinkv2 0", write=True)
    assert inode_place(image, inode)
    async with opened(image) as (fs, _):
        with pytest.raises(NotFoundError):
            await fs.attributes(inode)
        names = {entry.name: entry.attributes for entry in await entries_of(fs, fs.root)}
        assert names[b"list"] is None
