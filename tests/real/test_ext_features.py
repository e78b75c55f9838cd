"""What the reader says of features: refused by name, or served although unusual."""

import stat
import struct
from pathlib import Path

import pytest

from restorefs.block.file import FileDevice
from restorefs.errors import RestoreError, UnsupportedError
from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.images.ext import SUPERBLOCK, Images, mke2fs, patch, peek
from tests.listing import entries_of
from tests.manifest import assert_same_tree
from tests.real.ext_trees import copy_of, expected_tree, found_tree, opened
from tests.tools import require

S_STATE, S_REV_LEVEL, S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT = 58, 76, 96, 100


def add_bits(image: Path, field: int, bits: int) -> None:
    """Set bits in a 32-bit field of the superblock of an image without checksums."""
    (present,) = struct.unpack("<I", peek(image, SUPERBLOCK + field, 4))
    patch(image, SUPERBLOCK + field, struct.pack("<I", present | bits))


async def refusal_of(image: Path) -> str:
    """Return what the reader says when it refuses an image, which probing must survive."""
    with FileDevice(image) as device:
        identity = await ExtFilesystem.probe(device)
        assert identity is not None
        with pytest.raises(UnsupportedError) as refused:
            await ExtFilesystem.open(device)
    return str(refused.value)


@pytest.mark.parametrize("bit", [1 << number for number in range(18, 32)], ids=hex)
async def test_an_unknown_incompatible_feature_is_refused(
    bit: int, ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    add_bits(image, S_FEATURE_INCOMPAT, bit)
    assert f"{bit:#x}" in await refusal_of(image)


async def test_every_unknown_feature_is_named(ext_images: Images, tmp_path: Path) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    add_bits(image, S_FEATURE_INCOMPAT, 1 << 20 | 1 << 31 | 0x1)
    refusal = await refusal_of(image)
    for name in ("0x100000", "0x80000000", "compression"):
        assert name in refusal


@pytest.mark.parametrize(("bit", "name"), [(0x1, "compression"), (0x1000, "dirdata")])
async def test_a_known_feature_that_is_not_read_is_refused_by_name(
    bit: int, name: str, ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    add_bits(image, S_FEATURE_INCOMPAT, bit)
    assert name in await refusal_of(image)


async def test_a_later_revision_is_refused(ext_images: Images, tmp_path: Path) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    patch(image, SUPERBLOCK + S_REV_LEVEL, struct.pack("<I", 2))
    assert "revision" in await refusal_of(image)


async def test_an_external_journal_is_no_file_system(tmp_path: Path) -> None:
    require("mke2fs")
    image = tmp_path / "journal.img"
    mke2fs(image, "ext4", 8 << 20, "-O", "journal_dev")
    with FileDevice(image) as device:
        identity = await ExtFilesystem.probe(device)
        assert identity is not None
        assert identity.kind == "jbd"
        assert not identity.holds_files
        with pytest.raises(RestoreError):
            await ExtFilesystem.open(device)


@pytest.mark.parametrize("bit", [0x80, 0x800, 1 << 20, 1 << 31], ids=hex)
async def test_an_unknown_feature_that_concerns_writers_only(
    bit: int, ext_images: Images, tmp_path: Path
) -> None:
    name = "ext4_small_plain"
    image = copy_of(ext_images(name), tmp_path)
    add_bits(image, S_FEATURE_RO_COMPAT, bit)
    assert_same_tree(expected_tree(image, name), await found_tree(image))


@pytest.mark.parametrize(("state", "clean"), [(0, False), (1, True), (2, False), (3, False)])
async def test_the_state_is_reported(
    state: int, clean: bool, ext_images: Images, tmp_path: Path
) -> None:
    image = copy_of(ext_images("ext4_small_plain"), tmp_path)
    patch(image, SUPERBLOCK + S_STATE, struct.pack("<H", state))
    async with opened(image) as (fs, _):
        assert fs.identity.clean is clean
        assert bool(fs.identity.notes) is not clean


@pytest.mark.parametrize("name", ["ext3_journal_needs_recovery", "ext4_journal_needs_recovery"])
async def test_a_journal_that_needs_recovery_is_reported(name: str, ext_images: Images) -> None:
    async with opened(ext_images(name)) as (fs, _):
        assert fs.identity.clean is False
        assert "journal needs recovery" in fs.identity.notes


@pytest.mark.parametrize("version", [1, 2])
async def test_encrypted_content_is_refused_by_name(version: int, ext_images: Images) -> None:
    async with opened(ext_images("ext4_encrypted")) as (fs, _):
        folder = await fs.lookup(fs.root, b"policy-%d" % version)
        refused = 0
        for entry in await entries_of(fs, folder):
            attributes = await fs.attributes(entry.inode)
            if stat.S_ISREG(attributes.mode) and attributes.size:
                with pytest.raises(UnsupportedError, match="encrypt"):
                    await fs.map(entry.inode, 0, attributes.size)
                refused += 1
        assert refused > 5


async def test_names_that_differ_only_in_case_are_the_same_in_such_a_folder(
    ext_images: Images,
) -> None:
    async with opened(ext_images("ext4_casefold")) as (fs, _):
        small = await fs.lookup(fs.root, b"small")
        for stored, asked in (
            ("File", "fILE"),
            ("gr\u00f6\u00dfe", "GR\u00d6SSE"),
            ("gr\u00f6\u00dfe", "gro\u0308sse"),
            ("GR\u00d6SSE-2", "gr\u00f6\u00dfe-2"),
        ):
            assert await fs.lookup(small, asked.encode()) == await fs.lookup(small, stored.encode())
        indexed = await fs.lookup(fs.root, b"indexed")
        assert await fs.lookup(indexed, b"ENTRY-7-" + b"xX" * 30)
        with pytest.raises(RestoreError):
            await fs.lookup(fs.root, b"SMALL")


async def test_a_casefold_folder_below_any_name(ext_images: Images) -> None:
    async with opened(ext_images("ext4_casefold")) as (fs, _):
        small = await fs.lookup(fs.root, b"small")
        inner = await fs.lookup(small, b"INNER")
        assert await fs.lookup(inner, b"..") == small
