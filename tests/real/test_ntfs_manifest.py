"""Every NTFS image, compared with ntfs-3g and with libfsntfs in everything that both can see."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from restorefs.block.file import FileDevice
from restorefs.guestfs.base import GuestOptions
from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.images.ntfs import MANY, RECIPES, Images, readable
from tests.listing import entries_of, listings
from tests.manifest import manifest_of_guest
from tests.real.ntfs_trees import (
    assert_same_as_ntfs_3g,
    content_of,
    fsntfs,
    inode_at,
    opened,
    streams_by_ntfs_3g,
)
from tests.tools import require, run

COMPARED_APART = ("ntfs_many", "ntfs_small")
COMMON = ("ntfs_4k", "ntfs_512", "ntfs_64k", "ntfs_sector_4k")
DATA = 0x80
BYTE_ORDER_MARK = "\ufeff".encode()


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in COMPARED_APART])
async def test_the_reader_shows_what_ntfs_3g_shows(name: str, ntfs_images: Images) -> None:
    expected = await assert_same_as_ntfs_3g(ntfs_images(name), name)
    assert len(expected) > 1000 or name == "ntfs_empty"
    assert not any(entry.errors for entry in expected.values())


@pytest.mark.parametrize("name", COMMON)
async def test_every_stream_of_any_size_by_its_path(name: str, ntfs_images: Images) -> None:
    image = ntfs_images(name)
    with readable(image) as root:
        base = os.fsencode(root)
        paths = [
            os.path.relpath(folder + b"/" + each, base)
            for top in (b"streams", b"large-streams")
            for folder, folders, files in os.walk(base + b"/" + top)
            for each in (*folders, *files)
        ]
    expected = streams_by_ntfs_3g(image, paths)
    assert sum(len(streams) for streams in expected.values()) > 100
    assert any(len(data) > 1 << 20 for streams in expected.values() for data in streams.values())
    async with opened(image) as (fs, device):
        for path, streams in expected.items():
            xattrs = await fs.xattrs(await inode_at(fs, path))
            for stream, data in streams.items():
                where = path + b":" + stream
                inode = await inode_at(fs, where)
                attributes = await fs.attributes(inode)
                assert stat.S_ISREG(attributes.mode), where
                assert attributes.size == len(data), where
                assert await content_of(fs, device, inode) == data, where
                assert xattrs.get(b"user." + stream) == (data if len(data) <= 65_536 else None)


async def test_a_folder_of_100000_files(ntfs_images: Images) -> None:
    image = ntfs_images("ntfs_many")
    with readable(image) as root:
        expected = {os.fsencode(each.name): each.inode() for each in os.scandir(root / "many")}
    async with opened(image) as (fs, device):
        many = await fs.lookup(fs.root, b"many")
        reads = device.reads
        parts = [part async for part in listings(fs, many)]
        assert len(parts[0].entries) < 1000, "the first come soon"
        assert all(len(part.entries) < 10_000 for part in parts)
        assert device.reads - reads < MANY / 10, "records are fetched together, a piece at a time"
        entries = [entry for part in parts for entry in part.entries]
        assert len(entries) == MANY
        assert {entry.name: entry.inode for entry in entries} == expected
        assert all(entry.attributes is not None for entry in entries)
        for entry in entries[::2000]:
            assert await fs.lookup(many, entry.name) == entry.inode
            assert await fs.lookup(many, entry.name.upper()) == entry.inode
        assert await entries_of(fs, many, entries[70_000].cookie) == entries[70_001:]


@pytest.mark.parametrize("name", COMMON)
async def test_short_names_lead_to_their_files(name: str, ntfs_images: Images) -> None:
    async with opened(ntfs_images(name)) as (fs, _):
        links = await fs.lookup(fs.root, b"links")
        for long, short in (
            (b"a short name.text", b"ASHORT~1.TEX"),
            (b"a short folder", b"ASHORT~2"),
        ):
            inode = await fs.lookup(links, long)
            assert await fs.lookup(links, short) == inode
            assert await fs.lookup(links, short.lower()) == inode
        listed = [entry.name for entry in await entries_of(fs, links)]
        assert b"a short name.text" in listed
        assert not any(b"~" in each for each in listed)


@pytest.mark.parametrize("name", COMMON)
async def test_system_files_as_ntfs_3g_shows_them(name: str, ntfs_images: Images) -> None:
    image = ntfs_images(name)
    with readable(image, "show_sys_files") as root:
        base = os.fsencode(root)
        expected = {each.name: each.inode() for each in os.scandir(base)}
        sizes = {each: os.lstat(base + b"/" + each).st_size for each in expected}
    assert b"$LogFile" in expected
    with FileDevice(image) as device:
        fs = await NtfsFilesystem.open(device, GuestOptions(show_system_files=True))
        entries = {entry.name: entry for entry in await entries_of(fs, fs.root)}
        # readdir(3) swallows the one whose number is 0, so that ntfs-3g's manual calls it a bug.
        assert entries.pop(b"$MFT").attributes is not None
        expected.pop(b"$MFT", None)
        assert {each: entry.inode for each, entry in entries.items()} == expected
        for each, entry in entries.items():
            assert entry.attributes is not None, each
            if stat.S_ISREG(entry.attributes.mode):
                assert entry.attributes.size == sizes[each], each
        hidden = await NtfsFilesystem.open(device)
        shown = {entry.name for entry in await entries_of(hidden, hidden.root)}
        assert shown == {each for each in expected if not each.startswith(b"$")}


# The second opinion


def fsntfs_tree(volume: Any) -> Iterator[tuple[bytes, Any]]:
    """Yield every path below the root, with libfsntfs' entry of it."""
    pending = [(b"", volume.get_root_directory())]
    while pending:
        path, folder = pending.pop()
        for entry in folder.sub_file_entries:
            if not path and entry.name.startswith("$"):
                continue
            child = path + entry.name.encode("utf-8", "surrogatepass")
            yield child, entry
            if entry.has_directory_entries_index():
                pending.append((child + b"/", entry))


def data_segments(entry: Any) -> list[tuple[int, int]] | None:
    """Return where a file's data lies in it, by libfsntfs' runs as far as they were ever written;
    None for a resident one."""
    if not entry.number_of_extents:
        return None
    written = next(
        attribute.valid_data_size
        for attribute in map(entry.get_attribute, range(entry.number_of_attributes))
        if attribute.attribute_type == DATA and not attribute.attribute_name
    )
    segments: list[tuple[int, int]] = []
    position = 0
    for number in range(entry.number_of_extents):
        _, length, flags = entry.get_extent(number)
        end = min(position + length, written)
        if not flags & 1 and position < end:
            if segments and segments[-1][1] == position:
                segments[-1] = (segments[-1][0], end)
            else:
                segments.append((position, end))
        position += length
    return segments


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "ntfs_many"])
async def test_libfsntfs_sees_the_same_tree(name: str, ntfs_images: Images) -> None:
    image = ntfs_images(name)
    async with opened(image) as (fs, device):
        found = await manifest_of_guest(fs, device)
    del found[b"."]
    # It takes a name's first character for a byte-order mark where it can.
    found = {path.replace(BYTE_ORDER_MARK, b""): entry for path, entry in found.items()}
    seen = set()
    with fsntfs(image) as volume:
        for path, entry in fsntfs_tree(volume):
            shown = found[path]
            seen.add(path)
            flags = int.from_bytes(shown.xattrs[b"system.ntfs_attrib_be"], "big")
            times = (entry.get_modification_time_as_integer(), entry.get_access_time_as_integer())
            epoch = 116_444_736_000_000_000
            assert times == (shown.mtime_ns // 100 + epoch, shown.atime_ns // 100 + epoch), path
            created = int.from_bytes(shown.xattrs[b"system.ntfs_crtime_be"], "big")
            assert entry.get_creation_time_as_integer() == created, path
            assert entry.file_attribute_flags & 0xFFFF == flags & 0xFFEF, path
            streams = {
                b"user." + each.name.encode(): each.read_buffer(each.size) if each.size else b""
                for each in entry.alternate_data_streams
                if each.size <= 65_536
            }
            attributes = {
                key: value
                for key, value in shown.xattrs.items()
                if key.startswith(b"user.") and key != b"user.DOSATTRIB"
            }
            assert attributes == streams, path
            if stat.S_ISREG(shown.mode):
                assert shown.size == entry.size, path
                segments = data_segments(entry)
                if segments is not None and not flags & 0x800:
                    assert list(shown.segments or ()) == segments, path
    if RECIPES[name].cluster <= 4096:
        assert seen == found.keys()
    # Of larger clusters, it lists only a part of large folders, and says nothing.
    assert len(seen) >= len(found) // 32


# What a volume says of itself


@pytest.mark.parametrize("name", RECIPES)
async def test_identity_is_what_blkid_and_ntfsinfo_say(name: str, ntfs_images: Images) -> None:
    require("blkid", "ntfsinfo", "ntfslabel")
    image = ntfs_images(name)
    shown = run("blkid", "--probe", "--output", "export", image).splitlines()
    expected = dict(line.split("=", 1) for line in shown)
    async with opened(image) as (fs, device):
        identity = fs.identity
        assert await NtfsFilesystem.probe(device) == identity
    assert identity.kind == expected["TYPE"] == "ntfs"
    assert identity.uuid == expected["UUID"]
    assert identity.label == label_of(image)
    assert identity.clean
    details = run("ntfsinfo", "-m", image)
    version = details.split("Volume Version:")[1].split()[0]
    assert any(version in note for note in identity.notes)
    clusters, cluster = (
        int(details.split(f"{field}:")[1].split()[0])
        for field in ("Volume Size in Clusters", "Cluster Size")
    )
    assert identity.size is not None
    assert clusters * cluster <= identity.size < clusters * cluster + max(cluster, 4096) + 512


def label_of(image: Path) -> str:
    """Return the label as ntfslabel prints it, in UTF-8."""
    return run("ntfslabel", image, env={**os.environ, "LC_ALL": "C.UTF-8"}).rstrip("\n")
