"""What every GuestFilesystem must do, whatever its format.

Subclass GuestFilesystemContract in a test module of the format (named Test...), say which reader
is meant, and give a fixture `known`: an opened file system and some facts about it that come from
another program. Owns only what the seam in restorefs/guestfs/base.py promises.
"""

import bisect
import itertools
import random
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from restorefs.block.base import Window
from restorefs.errors import (
    DamagedError,
    IsAFolderError,
    NoDataError,
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    RestoreError,
    StorageError,
)
from restorefs.guestfs.base import Extent, GuestFilesystem, Inode
from restorefs.tree.holes import find_data, find_hole
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.listing import entries_of, listings


@dataclass(frozen=True, slots=True)
class Known:
    """An opened file system and what another program says of it. Paths are relative to the root.

    file: a regular file without extended attributes; content: its bytes. sparse: a file with
    holes and data, some of it in several pieces; sparse_content: its bytes. folder: with some
    hundreds of entries; names: all of them. nested: a folder two levels below the root.
    link, target: a symlink; None where the format has none. attributed, xattrs: a file with
    extended attributes. unused: an inode number within the file system's range that is not in
    use. has_holes: False where the format has none, and so the sparse file.
    """

    fs: GuestFilesystem
    device: WatchedDevice
    file: bytes
    content: bytes
    sparse: bytes
    sparse_content: bytes
    folder: bytes
    names: frozenset[bytes]
    nested: bytes
    link: bytes | None
    target: bytes | None
    attributed: bytes
    xattrs: Mapping[bytes, bytes]
    unused: Inode
    has_holes: bool = True

    async def find(self, path: bytes) -> Inode:
        """Look a path up, name by name."""
        inode = self.fs.root
        for name in path.split(b"/"):
            inode = await self.fs.lookup(inode, name)
        return inode


async def bytes_of(known: Known, inode: Inode, offset: int, length: int) -> bytes:
    """Read a range as the layers above do: by the map, and then from the device."""
    pieces = []
    for extent in await known.fs.map(inode, offset, length):
        if extent.encoded:
            pieces.append(await known.fs.read_encoded(inode, offset, extent.length))
        elif extent.offset is None:
            pieces.append(bytes(extent.length))
        else:
            pieces.append(await known.device.read(extent.offset, extent.length))
        offset += extent.length
    return b"".join(pieces)


def could_be_merged(one: Extent, other: Extent) -> bool:
    if one.encoded or other.encoded:
        return one.encoded and other.encoded
    if one.offset is None or other.offset is None:
        return one.offset is other.offset
    return one.offset + one.length == other.offset


class GuestFilesystemContract(ABC):
    reader: type[GuestFilesystem]

    @abstractmethod
    def known(self) -> Known:
        """A fixture."""

    # Probing and opening

    async def test_probe_and_open_agree(self, known: Known) -> None:
        identity = await self.reader.probe(known.device)
        assert identity == known.fs.identity
        assert identity.kind in self.reader.kinds
        assert identity.readable
        assert identity.holds_files

    @pytest.mark.parametrize(
        "size", [0, 1, 511, 512, 1023, 1024, 1535, 2048, 4096, 70_000, 1 << 20]
    )
    @pytest.mark.parametrize("kind", ["zeros", "ones", "random"])
    async def test_foreign_content_is_nobodys(self, kind: str, size: int) -> None:
        patterns = {
            "zeros": bytes(size),
            "ones": b"\xff" * size,
            "random": random.Random(size).randbytes(size),
        }
        assert await self.reader.probe(MemoryDevice(patterns[kind])) is None

    @pytest.mark.parametrize("size", [0, 1, 512, 1024, 1100, 1536, 2048, 4096, 65_536])
    async def test_a_cut_volume_is_recognised_or_not_but_never_breaks(
        self, known: Known, size: int
    ) -> None:
        cut = Window(known.device, 0, size)
        identity = await self.reader.probe(cut)
        assert identity is None or identity.kind in self.reader.kinds
        with suppress(RestoreError):
            fs = await self.reader.open(cut)
            await fs.attributes(fs.root)
            await entries_of(fs, fs.root)

    # Folders

    async def test_root_is_a_folder_and_its_own_parent(self, known: Known) -> None:
        fs = known.fs
        attributes = await fs.attributes(fs.root)
        assert stat.S_ISDIR(attributes.mode)
        assert attributes.inode == fs.root
        assert await fs.lookup(fs.root, b"..") == fs.root

    async def test_parent_of_a_folder_is_the_folder_it_is_in(self, known: Known) -> None:
        path = known.nested.split(b"/")
        assert len(path) > 1
        nested = await known.find(known.nested)
        assert await known.fs.lookup(nested, b"..") == await known.find(b"/".join(path[:-1]))

    async def test_readdir_names_everything_once_without_dots(self, known: Known) -> None:
        entries = await entries_of(known.fs, await known.find(known.folder))
        assert sorted(entry.name for entry in entries) == sorted(known.names)

    async def test_readdir_comes_in_parts_that_are_empty_only_at_the_end(
        self, known: Known
    ) -> None:
        for folder in (
            known.fs.root,
            await known.find(known.folder),
            await known.find(known.nested),
        ):
            parts = [part async for part in listings(known.fs, folder)]
            assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]
            assert all(part.entries for part in parts[:-1])
            assert len(parts[0].entries) <= 2048, "the first come soon"
            entries = [entry for part in parts for entry in part.entries]
            if entries:
                behind, complete = await known.fs.readdir(folder, entries[-1].cookie)
                assert (list(behind), complete) == ([], True)

    async def test_readdir_agrees_with_lookup_and_attributes(self, known: Known) -> None:
        folder = await known.find(known.folder)
        for entry in await entries_of(known.fs, folder):
            attributes = await known.fs.attributes(entry.inode)
            assert entry.attributes == attributes
            assert entry.inode == attributes.inode
            assert entry.kind in (0, stat.S_IFMT(attributes.mode))
            assert await known.fs.lookup(folder, entry.name) == entry.inode

    async def test_readdir_and_its_cookies_are_stable(self, known: Known) -> None:
        folder = await known.find(known.folder)
        entries = await entries_of(known.fs, folder)
        cookies = [entry.cookie for entry in entries]
        assert len(set(cookies)) == len(cookies)
        assert all(0 < cookie < 1 << 63 for cookie in cookies)
        assert await entries_of(known.fs, folder) == entries
        again = await self.reader.open(known.device)
        assert await entries_of(again, folder) == entries

    async def test_readdir_goes_on_behind_every_cookie(self, known: Known) -> None:
        folder = await known.find(known.folder)
        entries = await entries_of(known.fs, folder)
        assert len(entries) > 1
        for number, entry in enumerate(entries, start=1):
            found, complete = await known.fs.readdir(folder, entry.cookie)
            assert list(found) == entries[number : number + len(found)]
            assert bool(found) == (number < len(entries))
            if complete:
                assert number + len(found) == len(entries), "complete, but not at the end"
            else:
                assert found, "empty, but not complete"
            if number % 50 == 0:
                assert await entries_of(known.fs, folder, entry.cookie) == entries[number:]

    async def test_readdir_from_a_cookie_nobody_gave(self, known: Known) -> None:
        folder = await known.find(known.folder)
        entries = await entries_of(known.fs, folder)
        for cookie in (1, 12_345, 1 << 31, 1 << 40, (1 << 63) - 1):
            try:
                found = await entries_of(known.fs, folder, cookie)
            except RestoreError:
                continue
            assert set(found) <= set(entries)

    async def test_lookup_of_a_missing_name(self, known: Known) -> None:
        folder = await known.find(known.folder)
        for name in (b"no such name", b"x" * 255, b"x" * 300, b"\xff\xfe", b"a/b", b""):
            with pytest.raises(NotFoundError):
                await known.fs.lookup(folder, name)

    async def test_a_file_is_no_folder(self, known: Known) -> None:
        for path in filter(None, (known.file, known.link)):
            inode = await known.find(path)
            with pytest.raises(NotAFolderError):
                await known.fs.lookup(inode, b"name")
            with pytest.raises(NotAFolderError):
                await known.fs.lookup(inode, b"..")
            with pytest.raises(NotAFolderError):
                await entries_of(known.fs, inode)

    # Inodes

    async def test_an_inode_not_in_use_is_not_found(self, known: Known) -> None:
        with pytest.raises(NotFoundError):
            await known.fs.attributes(known.unused)
        for impossible in (0, 1 << 36, (1 << 63) - 1):
            with pytest.raises((NotFoundError, DamagedError)):
                await known.fs.attributes(impossible)

    async def test_only_links_can_be_followed(self, known: Known) -> None:
        if known.link is not None and known.target is not None:
            link = await known.find(known.link)
            assert await known.fs.readlink(link) == known.target
            assert (await known.fs.attributes(link)).size == len(known.target)
        for path in (known.file, known.folder):
            with pytest.raises(NotALinkError):
                await known.fs.readlink(await known.find(path))

    async def test_xattrs(self, known: Known) -> None:
        assert dict(await known.fs.xattrs(await known.find(known.attributed))) == known.xattrs
        assert known.xattrs

    async def test_having_no_xattrs_costs_no_read(self, known: Known) -> None:
        inode = await known.find(known.file)
        await known.fs.attributes(inode)
        reads = known.device.reads
        assert dict(await known.fs.xattrs(inode)) == {}
        assert known.device.reads == reads

    # Content

    async def test_map_leads_to_the_content(self, known: Known) -> None:
        for path, content in (
            (known.file, known.content),
            (known.sparse, known.sparse_content),
        ):
            inode = await known.find(path)
            assert (await known.fs.attributes(inode)).size == len(content)
            assert await bytes_of(known, inode, 0, len(content)) == content

    async def test_map_of_any_range_covers_it_exactly(self, known: Known) -> None:
        inode = await known.find(known.sparse)
        size = len(known.sparse_content)
        numbers = random.Random(1)
        ranges = [(0, size), (0, 1), (size - 1, 1), (0, size // 2), (size // 2, size - size // 2)]
        for _ in range(300):
            start = numbers.randrange(size)
            ranges.append((start, numbers.randint(1, min(size - start, 20_000))))
        for start, length in ranges:
            extents = await known.fs.map(inode, start, length)
            assert all(extent.length > 0 for extent in extents)
            assert sum(extent.length for extent in extents) == length
            assert not any(map(could_be_merged, extents, extents[1:]))
            found = await bytes_of(known, inode, start, length)
            assert found == known.sparse_content[start : start + length]

    async def test_map_of_the_sparse_file_has_holes_and_data(self, known: Known) -> None:
        extents = await known.fs.map(await known.find(known.sparse), 0, len(known.sparse_content))
        holes = [extent for extent in extents if extent.offset is None and not extent.encoded]
        assert bool(holes) == known.has_holes
        assert any(extent.offset is not None or extent.encoded for extent in extents)

    async def test_holes_are_found_where_the_map_has_them(self, known: Known) -> None:
        """SEEK_DATA and SEEK_HOLE, hence every program that keeps holes."""
        for path, content in ((known.sparse, known.sparse_content), (known.file, known.content)):
            if path == known.sparse and not known.has_holes:
                continue
            inode, size = await known.find(path), len(content)
            extents = await known.fs.map(inode, 0, size)
            is_hole = [each.offset is None and not each.encoded for each in extents]
            ends = list(itertools.accumulate(each.length for each in extents))
            places = {0, size - 1, *(end + step for end in ends for step in (-1, 0, 1))}
            for place in sorted(place for place in places if 0 <= place < size):
                here = bisect.bisect_right(ends, place)
                for find, wanted in ((find_data, False), (find_hole, True)):
                    answers = [
                        number for number in range(here, len(ends)) if is_hole[number] is wanted
                    ]
                    if answers:
                        number = answers[0]
                        expected = place if number == here else ends[number - 1]
                    elif wanted:
                        expected = size
                    else:
                        with pytest.raises(NoDataError):
                            await find(partial(known.fs.map, inode), size, place)
                        continue
                    assert await find(partial(known.fs.map, inode), size, place) == expected
            for find in (find_data, find_hole):
                for place in (size, size + 1, 1 << 62):
                    with pytest.raises(NoDataError):
                        await find(partial(known.fs.map, inode), size, place)

    async def test_map_of_nothing_is_empty(self, known: Known) -> None:
        inode = await known.find(known.file)
        assert list(await known.fs.map(inode, 0, 0)) == []
        assert list(await known.fs.map(inode, len(known.content), 0)) == []

    async def test_a_folder_has_no_content(self, known: Known) -> None:
        with pytest.raises(IsAFolderError):
            await known.fs.map(await known.find(known.folder), 0, 1)
        with pytest.raises(IsAFolderError):
            await known.fs.map(known.fs.root, 0, 0)

    # The whole

    async def test_calls_may_overlap(self, known: Known) -> None:
        fs = await self.reader.open(known.device)
        folder = await known.find(known.folder)
        expected = await entries_of(known.fs, folder)

        async def look_around(start: int) -> None:
            assert await entries_of(fs, folder) == expected
            for entry in expected[start::7]:
                assert await fs.lookup(folder, entry.name) == entry.inode
                assert await fs.attributes(entry.inode) == entry.attributes

        async with trio.open_nursery() as nursery:
            for start in range(7):
                nursery.start_soon(look_around, start)

    async def test_a_failed_read_is_said_and_not_remembered(self, known: Known) -> None:
        device = WatchedDevice(known.device)
        fs = await self.reader.open(device)
        folder, attributed, sparse = [
            await known.find(path) for path in (known.folder, known.attributed, known.sparse)
        ]
        link = await known.find(known.link) if known.link is not None else None

        async def look_around(fs: GuestFilesystem) -> list[object]:
            return [
                await entries_of(fs, folder),
                dict(await fs.xattrs(attributed)),
                await fs.readlink(link) if link is not None else None,
                await fs.map(sparse, 0, len(known.sparse_content)),
            ]

        whole = await look_around(known.fs)
        failures = 0
        for nth in range(10_000):
            failing = device.reads + nth
            device.fail_at = frozenset({failing})
            try:
                found = await look_around(fs)
            except StorageError:
                failures += 1
                continue
            if device.reads <= failing:
                break  # Everything was answered without the read that would have failed.
            # The seam lets readdir() say it of one entry instead. Where a format keeps a copy of
            # what could not be read, nothing is missing.
            assert found == whole or any(
                entry.attributes is None
                for entry in found[0]  # type: ignore[attr-defined]
            )
        assert failures
        assert found == whole
