"""Damage in NTFS volumes that is known only later, elsewhere, or many times over."""

import gc
import struct
from pathlib import Path

import pytest

from restorefs.block.file import FileDevice
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Identity
from restorefs.guestfs.ntfs.identify import DIRTY
from restorefs.guestfs.ntfs.index import Index
from tests.images.ntfs_bytes import (
    BITMAP,
    INDEX_ALLOCATION,
    SPARSE,
    Attribute,
    File,
    Volume,
    utf16,
)
from tests.listing import entries_of, listings
from tests.real.ntfs_built import built, identity_of, opened

VOLUME_RECORD = 3
DIRTY_FLAG = 1


async def identity(image: Path) -> Identity:
    with FileDevice(image) as device:
        found = await identity_of(device)
    assert isinstance(found, Identity)
    return found


async def test_a_label_of_odd_length(tmp_path: Path) -> None:
    """It is not shown, and hides nothing else."""
    volume = Volume(label="label", flags=DIRTY_FLAG)
    image = volume.write(tmp_path / "built.img")
    assert (await identity(image)).label == "label"
    raw = bytearray(image.read_bytes())
    record = volume.mft_offset(VOLUME_RECORD)
    value = raw.index(utf16("label"), record, record + 510)
    raw[value - 8] -= 1  # the length in the attribute's header
    image.write_bytes(raw)
    damaged = await identity(image)
    assert (damaged.label, damaged.clean) == ("", False)
    assert DIRTY in damaged.notes
    assert any("9 bytes" in note for note in damaged.notes)


# Listings that go on with another index than they began with


def name_too_long(block: bytearray) -> None:
    """Damage the first entry's name alone: the tree is as it was."""
    (first,) = struct.unpack_from("<I", block, 0x18)
    block[0x18 + first + 16 + 0x40] = 0xFF


def crowded(damaged: bool) -> Volume:
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=1)
    for number in range(200):
        volume.resident(f"file {number:03d}", b"", parent=folder)
    if damaged:
        folder.damaged_blocks = {0: name_too_long}
    return volume


@pytest.mark.parametrize("looked_up", [False, True], ids=["listed", "looked up between"])
@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "damaged"])
async def test_a_listing_goes_on_after_a_restart(
    damaged: bool, looked_up: bool, tmp_path: Path
) -> None:
    image = crowded(damaged).write(tmp_path / "built.img")
    async with opened(image) as found:
        folder = await found.find("folder")
        parts = listings(found.fs, folder)
        while (entries := (await anext(parts)).entries)[-1].cookie >> 20 < 50:  # upper nodes
            pass
        await parts.aclose()
    cookie = entries[50].cookie
    async with opened(image) as found:
        if looked_up:  # in all blocks
            with pytest.raises(DamagedError if damaged else NotFoundError):
                await found.find("folder/no such name \ufffd")
        if damaged:
            with pytest.raises(DamagedError, match="damaged"):
                await entries_of(found.fs, folder, cookie)
        else:
            names = {entry.name for entry in await entries_of(found.fs, folder, cookie)}
            assert b"file 198" in names


def last_too_early(block: bytearray) -> None:
    """Call an entry in the middle the last one of its node."""
    (entry,) = struct.unpack_from("<I", block, 0x18)
    entry += 0x18
    for _ in range(2):
        entry += struct.unpack_from("<H", block, entry + 8)[0]
    block[entry + 12] |= 2


async def test_a_node_that_seems_to_end_early(tmp_path: Path) -> None:
    volume = Volume()
    folder = volume.folder("folder")
    for number in range(60):
        volume.resident(f"file {number:03d}", b"", parent=folder)
    folder.damaged_blocks = {0: last_too_early}
    async with built(volume, tmp_path) as found:
        with pytest.raises(DamagedError):
            await entries_of(found.fs, await found.find("folder"))


# Files whose content is lost

DATA_TYPE = 0x80


@pytest.mark.parametrize(
    ("stored", "place"),
    [(False, 0), (False, 9), (True, 0), (True, 2), (True, 9), (True, 16), (True, 52)],
)
async def test_a_damaged_header_never_makes_a_file_empty(
    stored: bool, place: int, tmp_path: Path
) -> None:
    """place: the byte of the content's header that is changed: its type, its name's length, its
    lowest cluster, its size."""
    volume = Volume()
    content = b"restore me " * 700
    if stored:
        clusters = -(-len(content) // volume.cluster)
        data = Attribute(0x80, runs=[(1000, clusters)], size=len(content))
        file = volume.file("lost", data)
    else:
        file = volume.resident("lost", content[:50])
    volume.resident("sound", b"sound")
    image = volume.write(tmp_path / "built.img")
    raw = bytearray(image.read_bytes())
    record = volume.mft_offset(file.number)
    (position,) = struct.unpack_from("<H", raw, record + 20)
    while struct.unpack_from("<I", raw, record + position)[0] != DATA_TYPE:
        position += struct.unpack_from("<I", raw, record + position + 4)[0]
    raw[record + position + place] ^= 0x41
    image.write_bytes(raw)
    async with opened(image) as found:
        listed = {entry.name: entry for entry in await entries_of(found.fs, found.fs.root)}
        assert listed[b"lost"].attributes is None
        assert listed[b"sound"].attributes is not None
        with pytest.raises(DamagedError):
            await found.fs.attributes(listed[b"lost"].inode)
        with pytest.raises(DamagedError):
            await found.fs.map(listed[b"lost"].inode, 0, 1)


# Indexes that take memory


def folder_with_blocks(volume: Volume, name: str, size: int) -> File:
    """Add a folder with a root and an allocation of so many bytes, a hole."""
    clusters = size // volume.cluster
    hole = Attribute(INDEX_ALLOCATION, "$I30", runs=[(None, clusters)], size=size, flags=SPARSE)
    bits = Attribute(BITMAP, "$I30", runs=[(None, 1)], size=4096, flags=SPARSE)
    return volume.file(name, hole, bits, entries=[], dos_attributes=0)


async def test_an_index_larger_than_any(tmp_path: Path) -> None:
    volume = Volume()
    folder_with_blocks(volume, "large", 1 << 30)
    folder_with_blocks(volume, "too large", (1 << 30) + 4096)
    async with built(volume, tmp_path) as found:
        assert await found.names("large") == set()
        with pytest.raises(DamagedError, match="claims an index"):
            await found.names("too large")
        assert await found.names() == {b"large", b"too large"}


async def test_few_large_indexes_are_kept(tmp_path: Path) -> None:
    volume = Volume()
    for number in range(20):
        folder_with_blocks(volume, f"large {number}", 2000 * 4096)
        folder_with_blocks(volume, f"small {number}", 4096)
    async with built(volume, tmp_path) as found:
        before = kept_indexes()
        for number in range(20):
            assert await found.names(f"large {number}") == set()
        large = kept_indexes() - before
        for number in range(20):
            assert await found.names(f"small {number}") == set()
        assert large <= 9, "eight, and the root's"
        assert kept_indexes() - before >= 20


def kept_indexes() -> int:
    gc.collect()
    return sum(isinstance(thing, Index) for thing in gc.get_objects())


# An MFT with much damage


async def test_a_volume_says_only_so_much_of_its_damage(tmp_path: Path) -> None:
    extensions = list(range(24, 54))
    volume = Volume(cluster=1024, mft_runs=[64, 2], mft_parts=[1] * 30, mft_extensions=extensions)
    volume.mft_list_outside = True
    for number in range(120):
        volume.resident(f"file {number}", b"")
    image = volume.write(tmp_path / "built.img")
    assert len(volume.mft_map) > 30
    with image.open("r+b") as file:
        for number in extensions:
            file.seek(volume.mft_offset(number))
            file.write(b"BAAD")
    notes = (await identity(image)).notes
    assert 5 < len(notes) < 15
    assert sum("some of the MFT is lost" in note for note in notes) == 8
    assert any(note.startswith("and 2") and "more" in note for note in notes)
