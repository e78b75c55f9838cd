"""Damaged NTFS images of every kind, always the same ones: the reader answers, or says why not."""

import pytest

from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.ntfs import Images

ROUNDS = 6
MUTANTS = 60
RECORD = 1024
STRUCTURES = (b"FILE", b"INDX")


def structure_lines(image: bytes) -> list[int]:
    """Return the used lines in which structures lie, and some of the others.

    Most of a small volume is an empty log, the table of upper-case letters and content, where
    damage shows nothing. mkntfs starts with the boot sector.
    """
    structures = {0}
    for at in range(0, len(image), RECORD):
        if image[at : at + 4] in STRUCTURES:
            length = 4096 if image[at : at + 4] == b"INDX" else RECORD
            structures.update(range(at, at + length, RECORD))
    emptied = b"\xff" * LINE
    lines = [at for at in used_lines(image) if image[at : at + LINE] != emptied]
    inside = [at for at in lines if at // RECORD * RECORD in structures]
    outside = [at for at in lines if at // RECORD * RECORD not in structures]
    assert len(inside) > 500
    return inside + outside[:: max(1, len(outside) * 4 // len(inside))]


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_a_damaged_image(round_: int, ntfs_images: Images) -> None:
    image = ntfs_images("ntfs_small").read_bytes()
    lines = structure_lines(image)
    sound = await assert_survives(NtfsFilesystem, image, "undamaged")
    assert sound > 80
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        outcomes.add(await assert_survives(NtfsFilesystem, damaged, f"seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"
