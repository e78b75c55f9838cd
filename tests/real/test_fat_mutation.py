"""Damaged FAT images of every kind, always the same ones: the reader answers, or says why not."""

import pytest

from restorefs.guestfs.fat.reader import FatFilesystem
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.fat import Images

ROUNDS = 6
MUTANTS = 40


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("name", ["fat12_small", "fat16_small", "fat32_small"])
async def test_a_damaged_image(name: str, round_: int, fat_images: Images) -> None:
    image = fat_images(name).read_bytes()
    # The files' content has no zeros, and damage there is none to a reader.
    lines = [at for at in used_lines(image) if 0 in image[at : at + LINE]]
    sound = await assert_survives(FatFilesystem, image, f"{name} undamaged")
    assert sound > 100
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        outcomes.add(await assert_survives(FatFilesystem, damaged, f"{name}, seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"
