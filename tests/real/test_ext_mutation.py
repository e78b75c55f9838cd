"""Damaged ext images of every kind, always the same ones: the reader answers, or says why not."""

import random
import stat

import pytest

from restorefs.errors import RestoreError
from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.contracts.devices import MemoryDevice
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.ext import Images, data_blocks
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.ext_trees import expected_tree

ROUNDS = 6
MUTANTS = 40


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("name", ["ext2_small", "ext4_small_plain", "ext4_small_checksums"])
async def test_a_damaged_image(name: str, round_: int, ext_images: Images) -> None:
    image = ext_images(name).read_bytes()
    lines = used_lines(image)
    sound = await assert_survives(ExtFilesystem, image, f"{name} undamaged")
    assert sound > 80
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        outcomes.add(await assert_survives(ExtFilesystem, damaged, f"{name}, seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_with_checksums_no_changed_bit_is_taken_for_true(
    round_: int, ext_images: Images
) -> None:
    name = "ext4_small_checksums"
    path = ext_images(name)
    image = path.read_bytes()
    expected = expected_tree(path, name)
    # The format has no checksums for content, links' targets among it.
    unprotected = {
        block
        for each, entry in expected.items()
        if not stat.S_ISDIR(entry.mode)
        for block in data_blocks(path, f"/{each.decode()}")
    }
    lines = [at for at in used_lines(image) if at // 1024 not in unprotected]
    chance = random.Random(round_)
    lost = 0
    for _ in range(MUTANTS):
        damaged = bytearray(image)
        damaged[chance.choice(lines) + chance.randrange(LINE)] ^= 1 << chance.randrange(8)
        device = MemoryDevice(bytes(damaged))
        try:
            fs = await ExtFilesystem.open(device)
        except RestoreError:
            lost += 1
            continue
        found = await manifest_of_guest(fs, device)
        errors = {each for each, entry in found.items() if entry.errors}
        lost += bool(errors)
        shown = {each: entry for each, entry in found.items() if each not in errors}
        readable = {each: entry for each, entry in expected.items() if not is_lost(each, errors)}
        assert_same_tree(readable, shown, ignore=["link_group"])
    assert lost > MUTANTS // 8


def is_lost(path: bytes, errors: set[bytes]) -> bool:
    """Say whether a path or a folder that it is in cannot be read."""
    parts = path.split(b"/")
    above = {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)} | {b"."}
    return bool(above & errors)
