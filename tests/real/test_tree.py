"""The whole mount as a tree, over real images and servers, without FUSE.

What a guest must show is the folder that mke2fs copied into its image.
"""

import errno
import logging
import os
import shutil
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.errors import (
    CatalogError,
    GoneError,
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from restorefs.session.pool import Pool
from restorefs.tree.namespace import Changes, Namespace
from restorefs.tree.nodeid import ROOT, NodeId, above, is_above
from restorefs.tree.presentation import Presentation, Profile
from restorefs.tree.refresh import Refresher
from restorefs.tree.tree import (
    ABOVE_TTL,
    ERROR_XATTR,
    FLEETING_TTL,
    GUEST_TTL,
    UNKNOWN_TTL,
    Entry,
    Listed,
    Tree,
)
from tests.images.signatures import SAMPLES
from tests.real.attached import MemoryCatalog, ended, qcow2, running_pool, servers, until
from tests.tools import require, run

STARTED_NS = 1_700_000_000_000_000_000
CREATED = datetime(2025, 10, 8, 18, 24, 31, tzinfo=UTC)
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
MIB = 1 << 20
PLAIN = Presentation()


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-nbd", "setpriv", "mke2fs", "sfdisk", "mkswap", "setfacl")


# The sample


def make_source(root: Path) -> None:
    """A folder with everything that a level above the guests could get wrong."""
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hostname").write_bytes(b"web\n")
    (root / "etc" / "big").write_bytes(bytes(range(251)) * 4000)
    (root / "link").symlink_to("etc/hostname")
    (root / "öffentlich").mkdir()
    (root / "etc" / "ssl" / "certs").mkdir(parents=True)
    many = root / "many"
    many.mkdir()
    for number in range(700):
        (many / f"file-{number:04}").write_text(str(number))
    own = root / "own"
    own.write_text("mine")
    own.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(own, 1234, 2345)
    os.setxattr(own, "user.note", b"worth keeping")
    run("setfacl", "-m", "u:4321:rwx", own)


class Sample(NamedTuple):
    """Three backups of one VM. full/disk0: an ext4 without a partition table; full/disk1: a GPT
    with ext4, FAT, swap and an unformatted partition; later/disk0: like the first; lost/disk3: a
    catalogued image that is missing."""

    source: Path
    backups: Sequence[BackupRecord]

    @property
    def disks(self) -> Sequence[DiskRecord]:
        return [disk for backup in self.backups for disk in backup.disks]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("tree")
    source = folder / "source"
    make_source(source)
    ext4 = folder / "ext4"
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-d",
        source,
        "-N",
        "3000",
        "-E",
        "root_owner=0:0",
        ext4,
        "12M",
    )
    unread = folder / "jfs"
    unread.write_bytes(next(sample.content for sample in SAMPLES if sample.kind == "jfs"))
    swap = folder / "swap"
    swap.write_bytes(bytes(MIB))
    run("mkswap", "-q", swap)
    table = folder / "gpt"
    table.write_bytes(bytes(18 * MIB))
    parts = ((LINUX, 12), (LINUX, 2), (SWAP, 1), (LINUX, 1))
    script = "\n".join(f"size={size}M, type={kind}" for kind, size in parts)
    run("sfdisk", "-q", table, input=f"label: gpt\n{script}\n")
    with table.open("r+b") as disk:
        for offset, content in ((1, ext4), (13, unread), (15, swap)):
            disk.seek(offset * MIB)
            disk.write(content.read_bytes())
    whole = qcow2(ext4, folder / "whole.qcow2")
    parted = qcow2(table, folder / "parted.qcow2")
    again = folder / "again.qcow2"
    shutil.copyfile(whole, again)
    return Sample(
        source,
        (
            backup(
                "full", DiskRecord(1, "full", 0, str(whole)), DiskRecord(2, "full", 1, str(parted))
            ),
            backup("later", DiskRecord(3, "later", 0, str(again))),
            backup("lost", DiskRecord(4, "lost", 3, str(folder / "missing.qcow2"))),
        ),
    )


def backup(name: str, *disks: DiskRecord) -> BackupRecord:
    return BackupRecord(name, "web", CREATED, disks)


def make_tree(pool: Pool, backups: Sequence[BackupRecord], shown: Presentation) -> Tree:
    tree = Tree(pool, shown, STARTED_NS)
    tree.namespace = Namespace(backups, STARTED_NS)
    return tree


@asynccontextmanager
async def tree_of(sample: Sample, shown: Presentation = PLAIN) -> AsyncIterator[Tree]:
    async with running_pool() as pool:
        yield make_tree(pool, sample.backups, shown)


# Asking


async def find(tree: Tree, path: bytes) -> Entry:
    """Look a path up, name by name, from the root."""
    entry = await tree.getattr(ROOT)
    for name in path.split(b"/") if path else ():
        entry = await tree.lookup(entry.node, name)
    return entry


async def listing(tree: Tree, node: NodeId, cookie: int = 0) -> list[Listed]:
    """List a folder behind a cookie to its end, batch by batch."""
    found: list[Listed] = []
    complete = False
    while not complete:
        items, complete = await tree.readdir(node, found[-1].cookie if found else cookie)
        assert items or complete, "empty, but not complete"
        found += items
        assert len(found) < 10_000, "the listing does not end"
    return found


async def names(tree: Tree, path: bytes) -> set[bytes]:
    return {item.name for item in await listing(tree, (await find(tree, path)).node)}


async def content(tree: Tree, node: NodeId) -> bytes:
    found = b""
    while data := await tree.read(node, len(found), 100_000):
        found += data
    return found


def kind(entry: Entry) -> int:
    assert entry.attributes is not None
    return stat.S_IFMT(entry.attributes.mode)


# Above the guests


async def test_nothing_above_the_guests_attaches_a_disk(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        seen: list[bytes] = []

        async def walk(path: bytes, entry: Entry) -> None:
            assert await tree.getattr(entry.node) == entry
            assert await tree.lookup(entry.node, b".") == entry
            await tree.lookup(entry.node, b"..")
            assert await tree.xattrs(entry.node) == {}
            assert entry.ttl == (UNKNOWN_TTL if b"/disk" in path else ABOVE_TTL)
            seen.append(path)
            if kind(entry) == stat.S_IFLNK:
                assert (await tree.readlink(entry.node)).startswith(b"../../backups/")
                with pytest.raises(NotAFolderError):
                    await tree.readdir(entry.node)
                return
            with pytest.raises(NotALinkError):
                await tree.readlink(entry.node)
            if b"/disk" in path:
                return
            with pytest.raises(NotFoundError):
                await tree.lookup(entry.node, b"desktop.ini")
            for item in await listing(tree, entry.node):
                assert await tree.lookup(entry.node, item.name) == item.entry
                await walk(path + b"/" + item.name, item.entry)

        await walk(b"", await tree.getattr(ROOT))
        assert set(seen) == {
            *(b"", b"/backups", b"/vms", b"/vms/web"),
            *(b"/backups/full", b"/backups/full/disk0", b"/backups/full/disk1"),
            *(b"/backups/later", b"/backups/later/disk0"),
            *(b"/backups/lost", b"/backups/lost/disk3"),
            *(b"/vms/web/2025-10-08T182431Z", b"/vms/web/2025-10-08T182431Z-2"),
            *(b"/vms/web/2025-10-08T182431Z-3", b"/vms/web/latest"),
        }
        assert servers() == []


async def test_the_way_to_other_backups_is_found_but_not_listed(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        link = await find(tree, b"backups/full/.previous-versions")
        assert kind(link) == stat.S_IFLNK
        assert await tree.readlink(link.node) == b"../../vms/web"
        assert (await tree.getattr(link.node), link.ttl) == (link, ABOVE_TTL)
        assert await names(tree, b"backups/full") == {b"disk0", b"disk1"}
        assert servers() == []


async def test_what_is_above_the_guests_belongs_to_the_daemon(sample: Sample) -> None:
    async with tree_of(sample, Presentation(uid=1, gid=2, umask=0o777)) as tree:
        disk = (await find(tree, b"backups/full/disk0")).attributes
        assert disk is not None, "its content may be a guest's, so what is wished for guests counts"
        assert (disk.uid, disk.gid, disk.mode) == (1, 2, stat.S_IFDIR)
        folder = (await find(tree, b"backups/full")).attributes
        assert folder is not None
        assert (folder.uid, folder.gid) == (os.geteuid(), os.getegid())
        assert folder.mode == stat.S_IFDIR | 0o555
        assert folder.mtime_ns == int(CREATED.timestamp()) * 1_000_000_000
        link = (await find(tree, b"vms/web/latest")).attributes
        assert link is not None
        assert link.mode == stat.S_IFLNK | 0o777
        assert link.size == len(await tree.readlink((await find(tree, b"vms/web/latest")).node))
        root = (await find(tree, b"")).attributes
        assert root is not None
        assert root.mtime_ns == STARTED_NS


async def test_dots_above_the_guests(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        assert (await tree.lookup(ROOT, b"..")).node == ROOT
        assert (await tree.lookup(ROOT, b".")).node == ROOT
        disk = await find(tree, b"backups/full/disk1")
        backup = await find(tree, b"backups/full")
        assert await tree.lookup(disk.node, b"..") == backup
        assert (await tree.lookup(backup.node, b"..")).node == above(b"backups")
        assert servers() == []


async def test_the_parents_of_folders_above_the_guests(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        assert await tree.parent(ROOT) == ROOT
        for path in (
            *(b"backups", b"vms", b"vms/web", b"vms/web/latest", b"backups/full"),
            *(b"backups/full/disk0", b"backups/full/disk1", b"backups/lost/disk3"),
        ):
            assert await tree.parent(above(path)) == above(path.rpartition(b"/")[0]), path
        assert servers() == []


# Guests


def timeless(entry: Entry) -> Entry:
    """Return an entry without what depends on the way it was found."""
    return entry._replace(kind=0, ttl=0)


async def check_folder(tree: Tree, node: NodeId, source: Path) -> None:
    """Assert that a folder and all below it is what the source has, by every way to ask."""
    listed = {os.fsdecode(item.name): item.entry for item in await listing(tree, node)}
    listed.pop("lost+found", None)
    assert set(listed) == {path.name for path in source.iterdir()}
    for name, entry in listed.items():
        path = source / name
        assert timeless(await tree.lookup(node, os.fsencode(name))) == timeless(entry)
        assert timeless(await tree.getattr(entry.node)) == timeless(entry)
        assert timeless(await tree.lookup(entry.node, b".")) == timeless(entry)
        assert entry.ttl == (FLEETING_TTL if is_above(node) else GUEST_TTL)
        expected, found = path.lstat(), entry.attributes
        assert found is not None
        assert (found.mode, found.uid, found.gid) == (
            expected.st_mode, expected.st_uid, expected.st_gid,
        )  # fmt: skip
        assert found.mtime_ns // 10**9 == expected.st_mtime_ns // 10**9
        assert entry.kind == stat.S_IFMT(expected.st_mode)
        if path.is_symlink():
            assert await tree.readlink(entry.node) == os.fsencode(path.readlink())
            continue
        xattrs = {os.fsencode(key): os.getxattr(path, key) for key in os.listxattr(path)}
        assert await tree.xattrs(entry.node) == xattrs
        if path.is_dir():
            parent = await tree.lookup(entry.node, b"..")
            assert parent.node == node
            await check_folder(tree, entry.node, path)
        else:
            assert found.size == expected.st_size
            assert await content(tree, entry.node) == path.read_bytes()
            with pytest.raises(NotALinkError):
                await tree.readlink(entry.node)
            with pytest.raises(NotAFolderError):
                await tree.readdir(entry.node)


async def test_a_disk_without_a_partition_table_is_its_file_system(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        disk = await find(tree, b"backups/full/disk0")
        await check_folder(tree, disk.node, sample.source)
        assert len(servers()) == 1
        etc = await tree.lookup(disk.node, b"etc")
        root = await tree.lookup(etc.node, b"..")
        assert root.node == disk.node, "the root's id is the disk folder's"
        # Nobody knew the root's own attributes before somebody looked inside.
        assert disk.ttl == UNKNOWN_TTL
        assert tree.disk_attributes(disk.node) == root.attributes
        assert tree.disk_attributes(etc.node) is None
        expected = sample.source.stat()
        assert disk.attributes is not None
        assert disk.attributes.mode == stat.S_IFDIR | 0o555
        assert root.attributes is not None
        assert root.attributes.mode == expected.st_mode
        assert root.attributes.mtime_ns != disk.attributes.mtime_ns
        assert await tree.getattr(disk.node) == root
        assert (await tree.lookup(disk.node, b"..")).node == above(b"backups/full")


async def test_a_disk_with_a_partition_table_has_its_volumes(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        disk = await find(tree, b"backups/full/disk1")
        listed = await listing(tree, disk.node)
        assert [item.name for item in listed] == [b"part1", b"part2"]
        part = await tree.lookup(disk.node, b"part1")
        assert part == listed[0].entry
        await check_folder(tree, part.node, sample.source)
        etc = await tree.lookup(part.node, b"etc")
        assert timeless(await tree.lookup(etc.node, b"..")) == timeless(part)
        parent = await tree.lookup(part.node, b"..")
        assert parent == disk._replace(ttl=ABOVE_TTL), "now that it is known"
        assert timeless(await tree.lookup(part.node, b".")) == timeless(part)
        assert timeless(await tree.getattr(part.node)) == timeless(part)
        for name in (b"part3", b"part4", b"part5", b"etc"):
            with pytest.raises(NotFoundError):
                await tree.lookup(disk.node, name)
        with pytest.raises(NotFoundError):
            await tree.lookup(part.node, b"no-such-file")


async def test_the_parents_of_folders_of_a_guest(sample: Sample) -> None:
    paths = [
        *(b"backups/full/disk0/etc", b"backups/full/disk0/etc/ssl"),
        *(b"backups/full/disk0/etc/ssl/certs", b"backups/full/disk1/part1"),
        *(b"backups/full/disk1/part1/etc", b"backups/full/disk1/part1/etc/ssl"),
    ]
    async with tree_of(sample) as tree:
        nodes = {path: (await find(tree, path)).node for path in paths}
        for path, node in nodes.items():
            folder = path.rpartition(b"/")[0]
            expected = nodes[folder] if folder in nodes else above(folder)
            assert await tree.parent(node) == expected, path
            assert (await tree.lookup(node, b"..")).node == expected
        hostname = await find(tree, b"backups/full/disk0/etc/hostname")
        with pytest.raises(NotAFolderError):
            await tree.parent(hostname.node)


async def test_the_parents_of_volumes_attach_nothing(sample: Sample) -> None:
    """Also where the volume cannot be read."""
    async with tree_of(sample) as tree:
        parts = [
            (await find(tree, b"backups/full/disk1/" + name)).node for name in (b"part1", b"part2")
        ]
    async with tree_of(sample) as tree:
        for part in parts:
            assert await tree.parent(part) == above(b"backups/full/disk1")
        assert servers() == []


async def test_what_is_not_read_yet_is_a_folder_that_says_so(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        part = await find(tree, b"backups/full/disk1/part2")
        assert kind(part) == stat.S_IFDIR
        assert await tree.getattr(part.node) == part
        assert part.ttl == FLEETING_TTL
        for ask in (tree.readdir(part.node), tree.lookup(part.node, b"x")):
            with pytest.raises(UnsupportedError, match="part2: JFS") as caught:
                await ask
            assert caught.value.errno == errno.EOPNOTSUPP
        assert await tree.xattrs(part.node) == {ERROR_XATTR: str(caught.value).encode()}
        assert await tree.lookup(part.node, b"..") == await find(tree, b"backups/full/disk1")


async def test_a_disk_that_cannot_be_attached_says_why(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        disk = await find(tree, b"backups/lost/disk3")
        assert await tree.xattrs(disk.node) == {}
        for ask in (tree.readdir(disk.node), tree.lookup(disk.node, b"part1")):
            with pytest.raises(StorageError, match=r"missing\.qcow2") as caught:
                await ask
        assert await tree.xattrs(disk.node) == {ERROR_XATTR: str(caught.value).encode()}
        assert await tree.getattr(disk.node) == disk
        assert b"lost" in await names(tree, b"backups"), "and is still listed"


async def test_an_error_in_a_name_that_is_not_utf8_can_be_shown(tmp_path: Path) -> None:
    image = tmp_path / os.fsdecode(b"\xff.qcow2")
    async with running_pool() as pool:
        tree = make_tree(pool, [backup("b", DiskRecord(9, "b", 0, str(image)))], Presentation())
        disk = await find(tree, b"backups/b/disk0")
        pool.note_failure(tree.namespace.disks[9], StorageError(f"{image} is on fire"))
        assert (await tree.xattrs(disk.node))[ERROR_XATTR].endswith(b"\xff.qcow2 is on fire")


async def test_ids_mean_the_same_in_another_process(sample: Sample) -> None:
    """As an NFS client's handles do: nothing was looked up there before."""
    paths = [
        *(b"backups/full/disk0", b"backups/full/disk0/etc", b"backups/full/disk0/etc/hostname"),
        *(b"backups/full/disk1/part1", b"backups/full/disk1/part1/link", b"vms/web/latest"),
        *(b"backups/full/disk1/part2", b"backups/full/disk1/part1/many"),
    ]
    async with tree_of(sample) as tree:
        before = [await find(tree, path) for path in paths]
    assert len({entry.node for entry in before}) == len(paths)
    for path, entry in zip(paths, before, strict=True):
        async with tree_of(sample) as tree:
            assert timeless(await tree.getattr(entry.node)) == timeless(entry), path
            assert timeless(await tree.lookup(entry.node, b".")) == timeless(entry)
            if kind(entry) == stat.S_IFDIR:
                parent = await tree.lookup(entry.node, b"..")
                name = path.rpartition(b"/")[2]
                assert (await tree.lookup(parent.node, name)).node == entry.node


async def test_reading_at_and_past_the_end(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        big = (await find(tree, b"backups/full/disk0/etc/big")).node
        expected = (sample.source / "etc" / "big").read_bytes()
        size = len(expected)
        assert bytes(await tree.read(big, size - 10, 4096)) == expected[-10:]
        assert await tree.read(big, size, 4096) == b""
        assert await tree.read(big, size + MIB, 4096) == b""
        assert await tree.read(big, 5, 0) == b""


# Listing in parts


@pytest.mark.parametrize(
    "path",
    [b"", b"backups", b"vms/web", b"backups/full/disk1", b"backups/full/disk0/many"],
)
async def test_a_listing_goes_on_behind_any_entry(sample: Sample, path: bytes) -> None:
    async with tree_of(sample) as tree:
        node = (await find(tree, path)).node
        everything = await listing(tree, node)
        cookies = [item.cookie for item in everything]
        assert len(set(cookies)) == len(cookies)
        assert all(cookie > 0 for cookie in cookies)
        assert await listing(tree, node) == everything
        step = 1 + len(everything) // 20
        for number in range(0, len(everything), step):
            rest = await listing(tree, node, cookies[number])
            assert rest == everything[number + 1 :]
        items, complete = await tree.readdir(node, cookies[-1])
        assert (list(items), complete) == ([], True)


# What has gone


async def test_what_left_the_catalog_is_gone(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        gone = [
            (await find(tree, path)).node
            for path in (
                *(b"backups/full", b"backups/full/disk0", b"backups/full/disk0/etc/hostname"),
                *(b"backups/full/disk1/part1", b"backups/full/disk0/etc", b"backups/full/disk1"),
            )
        ]
        stay = await find(tree, b"backups/later/disk0/etc")
        tree.namespace = Namespace(sample.backups[1:2], STARTED_NS)
        for node in gone:
            for ask in (
                tree.getattr(node),
                tree.lookup(node, b"x"),
                tree.lookup(node, b"."),
                tree.lookup(node, b".."),
                tree.parent(node),
                tree.readdir(node),
                tree.readlink(node),
                tree.xattrs(node),
            ):
                with pytest.raises(GoneError) as caught:
                    await ask
                assert caught.value.errno == errno.ESTALE
        with pytest.raises(GoneError):
            await tree.read(gone[2], 0, 10)
        assert timeless(await tree.getattr(stay.node)) == timeless(stay)
        with pytest.raises(NotFoundError):
            await find(tree, b"backups/full")


@pytest.mark.parametrize("node", [2, 1 << 36, 63 << 36 | 1, 5 << 42, 1 << 63, 2**64 - 1])
async def test_ids_that_never_were_are_gone(sample: Sample, node: int) -> None:
    async with tree_of(sample) as tree:
        with pytest.raises(GoneError):
            await tree.getattr(NodeId(node))
        with pytest.raises(GoneError):
            await tree.parent(NodeId(node))


async def test_ids_of_files_that_are_not_there(sample: Sample) -> None:
    """Of a disk that is, but not of a file on it: the kernel makes a stale handle of that."""
    async with tree_of(sample) as tree:
        for node in (1 << 42 | 2500, 2 << 42 | 7 << 36 | 12, 2 << 42 | 1 << 36 | 2500):
            with pytest.raises((NotFoundError, GoneError)):
                await tree.getattr(NodeId(node))
            with pytest.raises((NotFoundError, GoneError)):
                await tree.lookup(NodeId(node), b".")
        for disk in (b"backups/full/disk0", b"backups/full/disk1"):
            entry = await find(tree, disk)
            assert await tree.xattrs(entry.node) == {}, "nothing is wrong with the disk"


# Presentation


async def test_owners_and_modes_are_shown_as_told_everywhere(sample: Sample) -> None:
    shown = Presentation(uid=7, gid=8, umask=0o027)
    async with tree_of(sample, shown) as tree:
        for path in (b"backups/full/disk0/own", b"backups/full/disk1/part1/own"):
            own = await find(tree, path)
            parent = await listing(tree, (await find(tree, path.rpartition(b"/")[0])).node)
            listed = next(item.entry for item in parent if item.name == b"own")
            for entry in (own, listed, await tree.getattr(own.node)):
                assert entry.attributes is not None
                assert (entry.attributes.uid, entry.attributes.gid) == (7, 8)
                mode = (sample.source / "own").stat().st_mode
                assert entry.attributes.mode == mode & ~0o027
            assert await tree.xattrs(own.node) == {b"user.note": b"worth keeping"}
        link = (await find(tree, b"backups/full/disk0/link")).attributes
        assert link is not None
        assert link.mode == stat.S_IFLNK | 0o777
        part = (await find(tree, b"backups/full/disk1/part1")).attributes
        assert part is not None
        assert part.mode == stat.S_IFDIR | 0o750


async def test_acls_are_shown_where_nothing_is_overridden(sample: Sample) -> None:
    async with tree_of(sample) as tree:
        own = (await find(tree, b"backups/full/disk0/own")).node
        assert b"system.posix_acl_access" in await tree.xattrs(own)


async def test_a_plain_mount_is_one_owners_everywhere(sample: Sample) -> None:
    shown = Presentation(uid=7, gid=8, profile=Profile.PLAIN)
    async with tree_of(sample, shown) as tree:
        for path in (b"backups/full/disk0/own", b"backups/full/disk1/part1/own"):
            own = await find(tree, path)
            parent = await listing(tree, (await find(tree, path.rpartition(b"/")[0])).node)
            listed = next(item.entry for item in parent if item.name == b"own")
            for entry in (own, listed, await tree.getattr(own.node)):
                assert entry.attributes is not None
                assert (entry.attributes.uid, entry.attributes.gid) == (7, 8)
                assert entry.attributes.mode == stat.S_IFREG | 0o644
            assert await tree.xattrs(own.node) == {b"user.note": b"worth keeping"}
        part = (await find(tree, b"backups/full/disk1/part1")).attributes
        assert part is not None
        assert (part.uid, part.mode) == (7, stat.S_IFDIR | 0o755)


# The catalog changes


class Refreshed(NamedTuple):
    """A tree that follows a catalog."""

    catalog: MemoryCatalog
    tree: Tree
    pool: Pool
    refresher: Refresher


@asynccontextmanager
async def refreshed(sample: Sample) -> AsyncIterator[Refreshed]:
    catalog = MemoryCatalog(*sample.backups)
    async with running_pool(catalog) as pool, trio.open_nursery() as nursery:
        tree = Tree(pool, Presentation(), STARTED_NS)
        refresher = Refresher(catalog, tree, pool)
        await refresher.load()
        nursery.start_soon(refresher.run)
        yield Refreshed(catalog, tree, pool, refresher)
        nursery.cancel_scope.cancel()


async def test_a_new_backup_appears_within_half_a_minute(
    sample: Sample, mock_clock: MockClock
) -> None:
    async with refreshed(sample) as r:
        new = backup("new", replace(sample.disks[0], id=77, backup_id="new"))
        r.catalog.said = (*sample.backups, new)
        await wait_all_tasks_blocked()
        assert b"new" not in await names(r.tree, b"backups")
        mock_clock.jump(31)
        await until(lambda: 77 in r.tree.namespace.disks)
        await check_folder(r.tree, (await find(r.tree, b"backups/new/disk0")).node, sample.source)


async def test_a_new_backup_appears_at_once_when_told(sample: Sample) -> None:
    async with refreshed(sample) as r:
        r.catalog.said = sample.backups[:1]
        r.refresher.wake()
        await until(lambda: len(r.tree.namespace.backups) == 1)


async def test_while_the_catalog_is_down_what_was_known_is_served(
    sample: Sample, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with refreshed(sample) as r:
        with caplog.at_level(logging.WARNING):
            r.catalog.error = CatalogError("no route to host")
            for _ in range(3):
                await wait_all_tasks_blocked()
                mock_clock.jump(31)
                await until(lambda: r.refresher.error)
            assert r.refresher.error == "no route to host"
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert "no route to host" in caplog.text
            disk = (await find(r.tree, b"backups/later/disk0")).node
            await check_folder(r.tree, disk, sample.source)
            caplog.clear()
            r.catalog.error = None
            r.catalog.said = sample.backups[1:]
            mock_clock.jump(31)
            await until(lambda: r.refresher.error is None)
            assert "can be read again" in caplog.text
            assert b"full" not in await names(r.tree, b"backups")


async def test_an_unchanged_catalog_changes_nothing(sample: Sample) -> None:
    async with refreshed(sample) as r:
        before = r.tree.namespace
        await r.refresher.load()
        assert r.tree.namespace is before


async def test_disks_that_left_the_catalog_are_detached(sample: Sample) -> None:
    async with refreshed(sample) as r:
        await names(r.tree, b"backups/full/disk1")
        await names(r.tree, b"backups/later/disk0")
        gone, stays = r.pool.find(2), r.pool.find(3)
        assert gone is not None
        pidfd = os.pidfd_open(gone.server.process.pid)
        r.catalog.said = sample.backups[1:]
        r.refresher.wake()
        await ended(pidfd)
        await until(lambda: r.pool.find(2) is None)
        assert r.pool.find(3) is stays is not None


async def test_a_disk_whose_image_is_another_now_is_attached_anew(sample: Sample) -> None:
    async with refreshed(sample) as r:
        await names(r.tree, b"backups/full/disk0")
        moved = replace(sample.disks[0], qcow2_path=sample.disks[2].qcow2_path)
        r.catalog.said = (backup("full", moved), *sample.backups[1:])
        await r.refresher.load()
        assert r.pool.find(1) is None
        await names(r.tree, b"backups/full/disk0")
        disk = r.pool.find(1)
        assert disk is not None
        assert disk.record == moved


async def test_the_kernel_is_told_also_when_who_asked_has_left(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it keeps of the old tree would stay for ever: the next look at the catalog finds no
    difference any more."""
    told: list[Changes] = []
    compare = Namespace.changes_since
    asking = trio.CancelScope()

    def leave(now: Namespace, before: Namespace) -> Changes:
        trio.from_thread.run_sync(asking.cancel)
        return compare(now, before)

    async def tell(changes: Changes) -> None:
        await trio.lowlevel.checkpoint()
        told.append(changes)

    async with refreshed(sample) as r:
        r.refresher.tell = tell
        r.catalog.said = sample.backups[:1]
        monkeypatch.setattr(Namespace, "changes_since", leave)
        with asking:
            await r.refresher.load()
        assert len(r.tree.namespace.backups) == len(told) == 1


async def test_a_catalog_that_is_down_at_start_is_an_error(sample: Sample) -> None:
    async with running_pool() as pool:
        catalog = MemoryCatalog()
        catalog.error = CatalogError("no route to host")
        tree = Tree(pool, Presentation(), STARTED_NS)
        with pytest.raises(CatalogError, match="no route"):
            await Refresher(catalog, tree, pool).load()
