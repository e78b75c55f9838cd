"""Damaged XFS images of every kind, always the same ones: the reader answers, or says why not."""

import random
import stat

import pytest

from restorefs.errors import RestoreError
from restorefs.guestfs.xfs.reader import XfsFilesystem
from tests.contracts.devices import MemoryDevice
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.xfs import Images, block_offset, blocks_of, field
from tests.manifest import Manifest, assert_same_tree, manifest_of_guest
from tests.real.xfs_trees import expected_tree

ROUNDS = 4
MUTANTS = 20
NAME = "xfs_small"


def lines_of(images: Images) -> list[int]:
    """Return where the image has something, but for its log."""
    image = images(NAME)
    start = block_offset(image, field(image, "sb 0", "logstart"))
    end = start + field(image, "sb 0", "logblocks") * 1024
    return [at for at in used_lines(image.read_bytes()) if not start <= at < end]


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_a_damaged_image(round_: int, xfs_images: Images) -> None:
    image = xfs_images(NAME).read_bytes()
    lines = lines_of(xfs_images)
    sound = await assert_survives(XfsFilesystem, image, "undamaged")
    assert sound > 300
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        outcomes.add(await assert_survives(XfsFilesystem, damaged, f"seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_a_damaged_image_whose_checksums_nobody_looks_at(
    round_: int, xfs_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if whoever did the damage had computed all checksums anew, or as in version 4."""
    for module in ("checksum", "layout", "inode_record", "allocation"):
        monkeypatch.setattr(f"restorefs.guestfs.xfs.{module}.has_checksum", lambda *_: True)
    image = xfs_images(NAME).read_bytes()
    lines = lines_of(xfs_images)
    for seed in range(1000 + round_ * MUTANTS, 1000 + (round_ + 1) * MUTANTS):
        await assert_survives(XfsFilesystem, mutate(image, lines, seed), f"seed {seed}")


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_no_changed_bit_is_taken_for_true(round_: int, xfs_images: Images) -> None:
    path = xfs_images(NAME)
    image = path.read_bytes()
    expected = expected_tree(path, NAME)
    # The format has no checksums for content.
    unprotected = set()
    for each, entry in expected.items():
        if stat.S_ISREG(entry.mode) and entry.link_group == each:
            inode = await inode_of(image, each)
            for _, block, count, _ in blocks_of(path, inode):
                start = block_offset(path, block)
                unprotected |= set(range(start, start + count * 1024, LINE))
    lines = [at for at in lines_of(xfs_images) if at not in unprotected]
    chance = random.Random(round_)
    lost = 0
    for _ in range(MUTANTS):
        damaged = bytearray(image)
        damaged[chance.choice(lines) + chance.randrange(LINE)] ^= 1 << chance.randrange(8)
        lost += await loses_but_never_lies(bytes(damaged), expected)
    assert lost > MUTANTS // 8


async def inode_of(image: bytes, path: bytes) -> int:
    fs = await XfsFilesystem.open(MemoryDevice(image))
    inode = fs.root
    for name in path.split(b"/"):
        inode = await fs.lookup(inode, name)
    return inode


async def loses_but_never_lies(image: bytes, expected: Manifest) -> bool:
    """Say whether something cannot be read. AssertionError where something is wrong."""
    device = MemoryDevice(image)
    try:
        fs = await XfsFilesystem.open(device)
    except RestoreError:
        return True
    found = await manifest_of_guest(fs, device)
    errors = {each for each, entry in found.items() if entry.errors}
    shown = {each: entry for each, entry in found.items() if each not in errors}
    readable = {each: entry for each, entry in expected.items() if not is_lost(each, errors)}
    assert_same_tree(readable, shown, ignore=["link_group"])
    return bool(errors)


def is_lost(path: bytes, errors: set[bytes]) -> bool:
    """Say whether a path or a folder that it is in cannot be read."""
    parts = path.split(b"/")
    above = {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)} | {b"."}
    return bool(above & errors)
