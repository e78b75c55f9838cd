"""The wrong answers that other readers gave for legal exFAT images, each a case of its own.

DESIGN section 8 lists them under "FAT/exFAT". exfat-fuse gives the right answers.
"""

import random
from pathlib import Path

import pytest

from restorefs.errors import DamagedError
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.images.exfat import FIRST_CLUSTER, FLAGS, LENGTH, VALID_LENGTH, Image, Images
from tests.listing import entries_of
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.exfat_trees import IGNORED, expected_tree, open_changed

NO_FAT_CHAIN = 2


def changed(images: Images, name: str = "exfat_512") -> Image:
    return Image(images(name).read_bytes())


def contiguous_sets(image: Image, folder: bool) -> list[int]:
    """Return where the sets of files or folders of several clusters without a chain begin."""
    return [
        at
        for at in range(image.heap, len(image.data) - 96, 32)
        if image.data[at] == 0x85
        and image.data[at + 32] == 0xC0
        and image.data[at + 64] == 0xC1
        and bool(image.data[at + 4] & 0x10) == folder
        and image.data[at + FLAGS] & NO_FAT_CHAIN
        and number(image, at + LENGTH, 8) > image.cluster
    ]


def number(image: Image, at: int, size: int) -> int:
    return int.from_bytes(image.data[at : at + size], "little")


async def assert_unchanged(image: Image, original: Path, folder: Path) -> None:
    """Assert that the reader, and exfat-fuse, see no difference to the original image."""
    expected = expected_tree(original)
    copy = folder / "changed.img"
    copy.write_bytes(image.data)
    assert_same_tree(expected, expected_tree(copy))
    fs, device = await open_changed(image)
    assert_same_tree(expected, await manifest_of_guest(fs, device), ignore=IGNORED)


@pytest.mark.parametrize("folder", [True, False], ids=["folders", "files"])
@pytest.mark.parametrize("garbage", ["free", "end", "bad", "random", "itself"])
async def test_contiguous_folders_and_files(
    folder: bool, garbage: str, exfat_images: Images, tmp_path: Path
) -> None:
    """What the FAT says of their clusters means nothing."""
    name = "exfat_contiguous"
    image = changed(exfat_images, name)
    sets = contiguous_sets(image, folder)
    assert len(sets) >= 2
    chance = random.Random(1)
    for at in sets:
        first = number(image, at + FIRST_CLUSTER, 4)
        for cluster in range(first, first + -(-number(image, at + LENGTH, 8) // image.cluster)):
            values = {"free": 0, "end": 0xFFFFFFFF, "bad": 0xFFFFFFF7, "itself": cluster}
            random_value = chance.randrange(2, image.clusters)
            image.set_fat_entry(cluster, values.get(garbage, random_value))
    await assert_unchanged(image, exfat_images(name), tmp_path)


def chain_of(image: Image, first: int) -> list[int]:
    clusters = [first]
    while image.fat_entry(clusters[-1]) != 0xFFFFFFFF:
        clusters.append(image.fat_entry(clusters[-1]))
    return clusters


def linked_file(image: Image) -> tuple[int, list[int]]:
    """Return where the set of pieces/one begins, and its clusters."""
    (at,) = [
        at
        for at in range(image.heap, len(image.data) - 96, 32)
        if image.data[at] == 0x85
        and not image.data[at + 4] & 0x10
        and image.data[at + 66 : at + 72] == "one".encode("utf-16-le")
        and image.data[at + 35] == 3
    ]
    assert not image.data[at + FLAGS] & NO_FAT_CHAIN
    clusters = chain_of(image, number(image, at + FIRST_CLUSTER, 4))
    assert len(clusters) > 20
    return at, clusters


async def pieces_one(fs: ExfatFilesystem) -> int:
    return await fs.lookup(await fs.lookup(fs.root, b"pieces"), b"one")


async def test_chains_that_go_backwards(exfat_images: Images, tmp_path: Path) -> None:
    """10 -> 9 is not 10, 11."""
    image = changed(exfat_images)
    at, clusters = linked_file(image)
    content = [bytes(image.data[image.offset_of(c) :][: image.cluster]) for c in clusters]
    backwards = sorted(clusters, reverse=True)
    for cluster, following, data in zip(
        backwards, [*backwards[1:], 0xFFFFFFFF], content, strict=True
    ):
        image.set_fat_entry(cluster, following)
        start = image.offset_of(cluster)
        image.data[start : start + image.cluster] = data
    image.data[at + FIRST_CLUSTER : at + FIRST_CLUSTER + 4] = backwards[0].to_bytes(4, "little")
    image.seal(at)
    await assert_unchanged(image, exfat_images("exfat_512"), tmp_path)


@pytest.mark.parametrize("back_to", [0, 1, 9, 10])
async def test_a_cyclic_chain_of_a_file(back_to: int, exfat_images: Images) -> None:
    image = changed(exfat_images)
    _, clusters = linked_file(image)
    image.set_fat_entry(clusters[10], clusters[back_to])
    device = WatchedDevice(MemoryDevice(bytes(image.data)))
    fs = await ExfatFilesystem.open(device)
    inode = await pieces_one(fs)
    size = (await fs.attributes(inode)).size
    reads = device.reads
    sound = 11 * image.cluster
    for start, length in ((0, size), (sound, 1), (sound - 1, 2), (size - 1, 1)):
        with pytest.raises(DamagedError):
            await fs.map(inode, start, length)
    assert device.reads < reads + 20
    extents = await fs.map(inode, 0, sound)
    assert [extent.offset for extent in extents] == list(map(image.offset_of, clusters[:11]))


@pytest.mark.parametrize("back_to", [0, 1, 2])
async def test_a_cyclic_chain_of_a_folder(back_to: int, exfat_images: Images) -> None:
    image = changed(exfat_images)
    fs, _ = await open_changed(image)
    folder = await fs.lookup(await fs.lookup(fs.root, b"folders"), b"one")
    whole = await entries_of(fs, folder)
    at = folder * 32
    assert not image.data[at + FLAGS] & NO_FAT_CHAIN
    clusters = chain_of(image, number(image, at + FIRST_CLUSTER, 4))
    image.set_fat_entry(clusters[2], clusters[back_to])
    fs, _ = await open_changed(image)
    found, complete = await fs.readdir(folder)
    assert 0 < len(found) <= 3 * image.cluster // 96
    assert list(found) == whole[: len(found)]
    assert not complete
    with pytest.raises(DamagedError):
        await fs.readdir(folder, found[-1].cookie)
    assert await fs.lookup(folder, found[0].name) == found[0].inode
    with pytest.raises(DamagedError):
        await fs.lookup(folder, whole[-1].name)


async def test_a_cyclic_chain_of_the_root(exfat_images: Images) -> None:
    image = changed(exfat_images)
    clusters = chain_of(image, image.root)
    image.set_fat_entry(clusters[-1], clusters[0])
    fs, device = await open_changed(image)
    found = await manifest_of_guest(fs, device)
    expected = expected_tree(exfat_images("exfat_512"))
    if found[b"."].errors:  # else the root's entries end before its clusters do
        assert found.pop(b".").errors.keys() == {"names"}
        del expected[b"."]
    assert_same_tree(expected, found, ignore=IGNORED)


async def test_bytes_behind_the_valid_length_are_zeros(exfat_images: Images) -> None:
    """Not what the clusters held before."""
    image = changed(exfat_images)
    at, _ = linked_file(image)
    size = number(image, at + LENGTH, 8)
    assert number(image, at + VALID_LENGTH, 8) == size
    whole, device = await open_changed(image)
    inode = await pieces_one(whole)
    content = b"".join(
        [await device.read(e.offset or 0, e.length) for e in await whole.map(inode, 0, size)]
    )
    for valid in (0, 1, 511, 512, 513, 5000, size - 1):
        image.data[at + VALID_LENGTH : at + VALID_LENGTH + 8] = valid.to_bytes(8, "little")
        image.seal(at)
        fs, device = await open_changed(image)
        found = b""
        for extent in await fs.map(inode, 0, size):
            if extent.offset is None:
                found += bytes(extent.length)
            else:
                found += await device.read(extent.offset, extent.length)
        assert found == content[:valid] + bytes(size - valid)
        assert (await fs.attributes(inode)).size == size
