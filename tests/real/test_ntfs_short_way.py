"""Every file record and index block that ntfs-3g and mkntfs wrote, sound and damaged: both ways to
a file's attributes, and to a folder's names, lead to the same, and what is plain goes the short
one."""

import random

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.ntfs.index import decode_node
from restorefs.guestfs.ntfs.layout import apply_fixups, decode_boot
from tests.images.ntfs import RECIPES, Images
from tests.ntfs_ways import long_names, long_way, short_names, short_way

RECORDS, MUTANTS = 200, 20
DAMAGED = 600
"""What is damaged lies before; behind the first stride there is little."""
USUAL = (0, 1, 2, 8, 0x10, 0x18, 0x30, 0x40, 0x48, 0x80, 0xA0, 0xC0, 0xFF)


def compared(image: bytes, places: list[int], size: int) -> tuple[int, int]:
    """Compare both ways for the records at some places; returns how many of plain files there are,
    and how many of these went the short way."""
    plain = short_ones = 0
    for at in places:
        number = int.from_bytes(image[at + 0x2C : at + 0x30], "little")
        short, long = short_way(image, at, size, number), long_way(image, at, size, number)
        assert short in (None, long), f"record {number}"
        plain += long is not None
        short_ones += short is not None
    return plain, short_ones


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_records_of_an_image(name: str, ntfs_images: Images) -> None:
    image = ntfs_images(name).read_bytes()
    size = decode_boot(image[:512]).record_size
    places = [at for at in range(0, len(image), size) if image[at : at + 4] == b"FILE"]
    plain, short_ones = compared(image, places, size)
    assert plain > 10
    assert short_ones > plain // 2
    chance = random.Random(name)
    for at in chance.sample(places, min(len(places), RECORDS)):
        for _ in range(MUTANTS):
            damaged = bytearray(image[at : at + size])
            for _ in range(chance.choice((1, 1, 2, 4))):
                damaged[chance.randrange(DAMAGED)] = chance.choice((*USUAL, chance.randrange(256)))
            compared(bytes(damaged), [0], size)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_index_blocks_of_an_image(name: str, ntfs_images: Images) -> None:
    image = ntfs_images(name).read_bytes()
    boot = decode_boot(image[:512])
    for at in range(0, len(image), boot.cluster_size):
        if image[at : at + 4] != b"INDX":
            continue
        try:
            block = apply_fixups(image, at, boot.block_size)
        except DamagedError:
            continue
        node = decode_node(block, 24)
        short = short_names(node)
        assert short is None or short == long_names(node), at
