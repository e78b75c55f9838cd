"""Damaged exFAT images of every kind, always the same ones: the reader answers, or says why not."""

import random

import pytest

from restorefs.errors import RestoreError
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from tests.contracts.devices import MemoryDevice
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.exfat import Image, Images
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.exfat_trees import IGNORED, expected_tree

ROUNDS = 6
MUTANTS = 40


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_a_damaged_image(round_: int, sealed: bool, exfat_images: Images) -> None:
    """sealed: with checksums made right again, so that what they cover is believed."""
    name = "exfat_small"
    image = exfat_images(name).read_bytes()
    start = Image(image).heap
    lines = [at for at in used_lines(image) if at < start + (384 << 10)]
    sound = await assert_survives(ExfatFilesystem, image, f"{name} undamaged")
    assert sound > 80
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        if sealed and len(damaged) == len(image):
            damaged = seal_all(damaged)
        outcomes.add(await assert_survives(ExfatFilesystem, damaged, f"{name}, seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"


def seal_all(data: bytes) -> bytes:
    """Make the checksums of all sets right, and that of the boot region."""
    image = Image(data)
    for at in range(image.heap, len(data), 32):
        if data[at] == 0x85 and data[at + 32 : at + 33] == b"\xc0":
            image.seal(at)
    if image.sector in (512, 1024, 2048, 4096):
        image.seal_boot()
    return bytes(image.data)


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_no_changed_bit_in_a_folder_is_taken_for_true(
    round_: int, exfat_images: Images
) -> None:
    path = exfat_images("exfat_small")
    data = path.read_bytes()
    expected = expected_tree(path)
    lines = [
        at
        for at in range(Image(data).heap, len(data) - LINE, 32)
        if data[at] == 0x85 and data[at + 32] == 0xC0 and data[at + 64] == 0xC1
    ]
    chance = random.Random(round_)
    lost = 0
    for _ in range(MUTANTS):
        damaged = bytearray(data)
        damaged[chance.choice(lines) + chance.randrange(3 * 32)] ^= 1 << chance.randrange(8)
        device = MemoryDevice(bytes(damaged))
        try:
            fs = await ExfatFilesystem.open(device)
        except RestoreError:
            lost += 1
            continue
        found = await manifest_of_guest(fs, device)
        errors = {each for each, entry in found.items() if entry.errors}
        lost += bool(errors)
        # What is missing is in a folder that says that it is not all there.
        shown = {each: entry for each, entry in found.items() if each not in errors}
        missing = [each for each in expected if each not in found]
        assert all(folders_of(each) & errors for each in missing)
        readable = {each: entry for each, entry in expected.items() if each in shown}
        assert_same_tree(readable, shown, ignore=IGNORED)
    assert lost > MUTANTS // 2


def folders_of(path: bytes) -> set[bytes]:
    parts = path.split(b"/")
    return {b"/".join(parts[:count]) for count in range(1, len(parts))} | {b"."}
