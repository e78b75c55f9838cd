"""Changed exFAT images, one change each: what is lost is said, and nothing else is lost."""

import struct
from collections.abc import Callable

import pytest

from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from restorefs.guestfs.registry import identify
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.images.exfat import (
    ACCESSED,
    ACCESSED_ZONE,
    ATTRIBUTES,
    CREATED,
    CREATED_10MS,
    CREATED_ZONE,
    FIRST_CLUSTER,
    LENGTH,
    MODIFIED,
    MODIFIED_10MS,
    MODIFIED_ZONE,
    Image,
    Images,
    checksum32,
)
from tests.listing import entries_of
from tests.manifest import assert_same_tree, manifest_of_guest
from tests.real.exfat_trees import IGNORED, expected_tree, open_changed

SMALL = "exfat_small"


@pytest.fixture
def image(exfat_images: Images) -> Image:
    return Image(exfat_images(SMALL).read_bytes())


async def assert_whole(image: Image, images: Images) -> ExfatFilesystem:
    """Assert that a changed image shows what the unchanged one does."""
    fs, device = await open_changed(image)
    found = await manifest_of_guest(fs, device)
    assert_same_tree(expected_tree(images(SMALL)), found, ignore=IGNORED)
    return fs


async def names_folder(fs: ExfatFilesystem) -> int:
    return await fs.lookup(fs.root, b"names")


async def listed(fs: ExfatFilesystem, folder: int) -> tuple[list[bytes], bool]:
    """Return a folder's names, and whether the listing ended without an error."""
    names: list[bytes] = []
    cookie, complete = 0, False
    while not complete:
        try:
            entries, complete = await fs.readdir(folder, cookie)
        except (DamagedError, UnsupportedError):
            return names, False
        names += [entry.name for entry in entries]
        cookie = entries[-1].cookie if entries else cookie
    return names, True


# The boot region


def lose_signature(image: Image) -> None:
    image.data[510:512] = b"\0\0"


def lose_a_bit(image: Image) -> None:
    image.data[89] ^= 1


def lose_sector(image: Image) -> None:
    image.data[:512] = bytes(512)


def lose_region(image: Image) -> None:
    image.data[11 * 512 : 12 * 512] = bytes(512)


@pytest.mark.parametrize("damage", [lose_signature, lose_a_bit, lose_sector, lose_region])
async def test_the_backup_boot_region(
    damage: Callable[[Image], None], image: Image, exfat_images: Images
) -> None:
    damage(image)
    fs = await assert_whole(image, exfat_images)
    assert fs.identity.clean is None
    assert "backup" in fs.identity.notes[0]
    identity = await identify(MemoryDevice(bytes(image.data)))
    assert identity == fs.identity


async def test_both_boot_regions_damaged(image: Image) -> None:
    lose_a_bit(image)
    image.data[23 * 512] ^= 1
    device = MemoryDevice(bytes(image.data))
    identity = await ExfatFilesystem.probe(device)
    assert identity is not None
    assert identity.readable
    assert "backup" in identity.notes[0]
    with pytest.raises(DamagedError):
        await ExfatFilesystem.open(device)


async def test_a_backup_left_behind_for_somebody_else(image: Image) -> None:
    image.data[: 8 * 512] = bytes(8 * 512)
    assert await ExfatFilesystem.probe(MemoryDevice(bytes(image.data))) is None
    image.data[: 8 * 512] = b"XFSB" * 1024
    assert await ExfatFilesystem.probe(MemoryDevice(bytes(image.data))) is None


@pytest.mark.parametrize(("flags", "word"), [(2, "dirty"), (4, "medium")])
async def test_volume_flags(flags: int, word: str, image: Image, exfat_images: Images) -> None:
    image.data[106] |= flags
    fs = await assert_whole(image, exfat_images)
    assert fs.identity.clean is (flags != 2)
    assert word in fs.identity.notes[0]


@pytest.mark.parametrize("active", [0, 1])
async def test_two_fats(active: int, image: Image, exfat_images: Images) -> None:
    _, length = struct.unpack_from("<II", image.data, 80)
    size = length * image.sector
    assert image.fat + 2 * size <= image.heap
    fat = image.data[image.fat : image.fat + size]
    stale = bytes(8) + b"\x05\0\0\0" * (size // 4 - 2)
    start = image.fat + size * active
    image.data[image.fat : image.fat + 2 * size] = stale * 2
    image.data[start : start + size] = fat
    image.data[106], image.data[110] = active, 2
    image.data[12 * 512 + 110] = 2
    image.seal_boot()
    image.seal_boot(12 * 512)
    await assert_whole(image, exfat_images)
    image.data[510] = 0  # which one is in use is not known then
    with pytest.raises(DamagedError):
        await open_changed(image)


@pytest.mark.parametrize("revision", [0x0000, 0x0200, 0x6363])
async def test_another_revision(revision: int, image: Image) -> None:
    struct.pack_into("<H", image.data, 104, revision)
    image.seal_boot()
    with pytest.raises(UnsupportedError, match="revision"):
        await open_changed(image)
    identity = await ExfatFilesystem.probe(MemoryDevice(bytes(image.data)))
    assert identity is not None
    assert "revision" in identity.notes[0]


# Single entries of the root


def root_entries(image: Image) -> dict[int, int]:
    """Return where the first entries of each type are in the root."""
    start = image.offset_of(image.root)
    return {image.data[at]: at for at in range(start, start + 6 * 32, 32)}


@pytest.mark.parametrize("damage", ["table", "checksum", "length", "none"])
async def test_a_damaged_upcase_table(damage: str, image: Image) -> None:
    at = root_entries(image)[0x82]
    if damage == "table":
        first = struct.unpack_from("<I", image.data, at + 20)[0]
        image.data[image.offset_of(first) + 200] ^= 1
    elif damage == "none":
        image.data[at] = 2
    else:
        image.data[at + (4 if damage == "checksum" else 30)] ^= 1
    fs, _ = await open_changed(image)
    assert "table" in fs.identity.notes[0]
    names = await names_folder(fs)
    inode = await fs.lookup(names, b"with space")
    assert await fs.lookup(names, b"WITH Space") == inode
    assert await fs.lookup(names, "ΑΒΓαβγ".encode())
    with pytest.raises(NotFoundError):
        await fs.lookup(names, "αβγΑΒΓ".encode())


async def test_an_upcase_table_without_compression(image: Image) -> None:
    """A table of 128 KiB that maps one more letter."""
    at = root_entries(image)[0x82]
    numbers = list(range(0x10000))
    for lower in range(ord("a"), ord("z") + 1):
        numbers[lower] = lower - 32
    numbers[ord("語")] = ord("本")
    table = struct.pack("<65536H", *numbers)
    first = 3000
    for cluster in range(first, first + 256):
        image.set_fat_entry(cluster, cluster + 1 if cluster < first + 255 else 0xFFFFFFFF)
    start = image.offset_of(first)
    image.data[start : start + len(table)] = table
    struct.pack_into("<IIQ", image.data, at + 4, checksum32(table), 0, 0)
    struct.pack_into("<IQ", image.data, at + 20, first, len(table))
    fs, _ = await open_changed(image)
    assert not fs.identity.notes
    names = await names_folder(fs)
    assert await fs.lookup(names, "日本本".encode()) == await fs.lookup(names, "日本語".encode())


@pytest.mark.parametrize("kind", [0x84, 0x86, 0x9F])
async def test_an_unknown_critical_entry_of_the_root(kind: int, image: Image) -> None:
    at = image.offset_of(image.root)
    shown = root_entries(image)
    image.data[shown[0x83]] = kind
    assert at in shown.values()
    with pytest.raises(UnsupportedError, match=f"0x{kind:02X}"):
        await open_changed(image)
    identity = await ExfatFilesystem.probe(MemoryDevice(bytes(image.data)))
    assert identity is not None
    assert f"0x{kind:02X}" in identity.notes[0]


async def test_a_volume_guid_and_unknown_benign_entries(image: Image, exfat_images: Images) -> None:
    at = root_entries(image)[0x83]
    guid = bytes(range(16))
    image.data[at : at + 32] = b"\xa0\0\0\0\0\0" + guid + bytes(10)
    fs = await assert_whole(image, exfat_images)
    assert fs.identity.notes == ("volume GUID 03020100-0504-0706-0809-0a0b0c0d0e0f",)
    image.data[at] = 0xBF
    fs = await assert_whole(image, exfat_images)
    assert fs.identity.notes == ()


# Sets of entries


@pytest.mark.parametrize("at", range(0, 96, 5))
async def test_a_damaged_set_costs_its_own_name(at: int, image: Image) -> None:
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    whole, complete = await listed(fs, folder)
    assert complete
    image.data[image.set_of("ЁЖёж") + at] ^= 0x10
    fs, _ = await open_changed(image)
    found, complete = await listed(fs, folder)
    assert found == [name for name in whole if name != "ЁЖёж".encode()]
    assert not complete
    for name in found:
        assert await fs.lookup(folder, name)
    for name in ("ЁЖёж", "nothing"):
        with pytest.raises(DamagedError):
            await fs.lookup(folder, name.encode())
    # A listing that somebody goes on with in a new process says it too.
    again, _ = await open_changed(image)
    last = (await fs.readdir(folder)).entries[-1].cookie
    with pytest.raises(DamagedError):
        await again.readdir(folder, last)


async def test_two_listings_of_a_damaged_folder_in_turn(exfat_images: Images) -> None:
    image = Image(exfat_images("exfat_512").read_bytes())
    fs, _ = await open_changed(image)
    folder = await fs.lookup(await fs.lookup(fs.root, b"folders"), b"many")
    whole, _ = await listed(fs, folder)
    image.data[(await fs.readdir(folder)).entries[0].inode * 32 + 5] ^= 1
    device = WatchedDevice(MemoryDevice(bytes(image.data)))
    fs = await ExfatFilesystem.open(device)
    cookies, ended, found = [0, 0], [False, False], [0, 0]
    while not all(ended):
        for number in (0, 1, 1):
            try:
                entries, complete = await fs.readdir(folder, cookies[number])
            except DamagedError:
                ended[number] = True
                continue
            assert not complete
            cookies[number] = entries[-1].cookie
            found[number] += len(entries)
    assert found == [len(whole) - 1] * 2


async def test_the_parent_of_a_folder_whose_content_is_lost(exfat_images: Images) -> None:
    image = Image(exfat_images("exfat_512").read_bytes())
    image.put("deep-5", FIRST_CLUSTER, "<I", 0)
    fs, _ = await open_changed(image)
    folder = fs.root
    for number in range(6):
        folder, parent = await fs.lookup(folder, b"deep-%d" % number), folder
    assert await fs.lookup(folder, b"..") == parent
    with pytest.raises(DamagedError):
        await fs.readdir(folder)


async def test_names_behind_the_end_of_a_folder(image: Image) -> None:
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    whole, _ = await listed(fs, folder)
    start = image.set_of("日本語")
    image.data[start : start + 96] = bytes(96)
    fs, _ = await open_changed(image)
    assert await listed(fs, folder) == (whole[: whole.index("日本語".encode())], False)


@pytest.mark.parametrize("name", ["a/b", "a\0b", ".", ".."])
async def test_an_impossible_name(name: str, image: Image) -> None:
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    whole, _ = await listed(fs, folder)
    rename(image, "-dash", name)
    fs, _ = await open_changed(image)
    assert await listed(fs, folder) == ([each for each in whole if each != b"-dash"], False)


def rename(image: Image, name: str, other: str) -> None:
    """Give a set with a name of up to 15 characters another such name."""
    start = image.set_of(name)
    raw = other.encode("utf-16-le", "surrogatepass")
    image.data[start + 35] = len(raw) // 2
    image.data[start + 66 : start + 96] = raw.ljust(30, b"\0")
    image.seal(start)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\ud800", b"\xed\xa0\x80"),
        ("a\udfffb", b"a\xed\xbf\xbfb"),
        ("\udc00\ud800", b"\xed\xb0\x80\xed\xa0\x80"),
        ("\U0001f642\ud83d", "🙂".encode() + b"\xed\xa0\xbd"),
    ],
)
async def test_lone_surrogates(name: str, shown: bytes, image: Image) -> None:
    rename(image, "-dash", name)
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    names, complete = await listed(fs, folder)
    assert shown in names
    assert complete
    assert await fs.lookup(folder, shown) * 32 == image.set_of(name)
    # The same code units, written as no listing writes them.
    with pytest.raises(NotFoundError):
        await fs.lookup(folder, b"\xed\xa0\xbd\xed\xb9\x82")


async def test_lookup_without_regard_to_case(image: Image) -> None:
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    for name, other in (("ЁЖёж", "ёжЁЖ"), ("größe", "GRÖßE"), ("...", "..."), ("🙂🙃", "🙂🙃")):
        assert await fs.lookup(folder, other.encode()) * 32 == image.set_of(name)
    rename(image, "-dash", "WITH SPACE")
    fs, _ = await open_changed(image)
    assert await fs.lookup(folder, b"with space") * 32 == image.set_of("with space")
    assert await fs.lookup(folder, b"WITH SPACE") * 32 == image.set_of("WITH SPACE")
    with pytest.raises(NotFoundError):
        await fs.lookup(folder, b"With Space")


@pytest.mark.parametrize("kind", [0xE0, 0xE1, 0xFF])
async def test_benign_secondary_entries(kind: int, image: Image, exfat_images: Images) -> None:
    add_secondary(image, kind)
    fs, device = await open_changed(image)
    expected = expected_tree(exfat_images(SMALL))
    del expected[b"names/..."]
    assert_same_tree(expected, await manifest_of_guest(fs, device), ignore=IGNORED)


@pytest.mark.parametrize("kind", [0xC2, 0xC0, 0xDF])
async def test_unknown_critical_secondary_entries(kind: int, image: Image) -> None:
    add_secondary(image, kind)
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    inode = await fs.lookup(folder, "ЁЖёж".encode())
    names, complete = await listed(fs, folder)
    assert complete
    assert "ЁЖёж".encode() in names
    size = (await fs.attributes(inode)).size
    with pytest.raises(UnsupportedError, match=f"0x{kind:02X}"):
        await fs.map(inode, 0, size)


def add_secondary(image: Image, kind: int) -> None:
    """Put an entry behind the name of ЁЖёж, in place of the set behind it."""
    start, behind = image.set_of("ЁЖёж"), image.set_of("...")
    assert behind == start + 96
    image.data[behind : behind + 32] = bytes((kind,)) + bytes(31)
    for at in (behind + 32, behind + 64):
        image.data[at] &= 0x7F
    image.data[start + 1] = 3
    image.seal(start)


# Files


async def test_a_size_that_cannot_be(image: Image) -> None:
    image.put("-dash", LENGTH, "<Q", 1 << 40)
    fs, _ = await open_changed(image)
    folder = await names_folder(fs)
    (entry,) = [entry for entry in await entries_of(fs, folder) if entry.name == b"-dash"]
    assert entry.attributes is None
    with pytest.raises(DamagedError):
        await fs.attributes(await fs.lookup(folder, b"-dash"))


@pytest.mark.parametrize("cluster", [0, 1, 0x7FFFFFFF])
async def test_a_first_cluster_that_cannot_be(cluster: int, image: Image) -> None:
    image.put("-dash", FIRST_CLUSTER, "<I", cluster)
    fs, _ = await open_changed(image)
    inode = await fs.lookup(await names_folder(fs), b"-dash")
    assert (await fs.attributes(inode)).size == 5
    with pytest.raises(DamagedError):
        await fs.map(inode, 0, 5)


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFF7, 0xFFFFFFFF, 0x7FFFFFFF])
async def test_a_chain_that_ends_early(value: int, image: Image) -> None:
    fs, _ = await open_changed(image)
    inode = await fs.lookup(await fs.lookup(fs.root, b"pieces"), b"other")
    size = (await fs.attributes(inode)).size
    extents = await fs.map(inode, 0, size)
    assert len(extents) > 10
    offset = extents[7].offset
    assert offset is not None
    image.set_fat_entry(2 + (offset - image.heap) // image.cluster, value)
    fs, _ = await open_changed(image)
    assert await fs.map(inode, 0, 8 * image.cluster) == extents[:8]
    with pytest.raises(DamagedError):
        await fs.map(inode, 8 * image.cluster, 1)


async def test_attributes_and_times(image: Image) -> None:
    """Local times with their offsets from UTC, and parts of seconds."""
    stamp = (2024 - 1980) << 25 | 2 << 21 | 29 << 16 | 12 << 11 | 34 << 5 | 28
    utc = 1_709_210_096 * 10**9  # date --utc --date='2024-02-29 12:34:56' +%s
    image.put("-dash", ATTRIBUTES, "<H", 0x27)
    image.put("-dash", CREATED, "<I", stamp)
    image.put("-dash", MODIFIED, "<I", stamp)
    image.put("-dash", ACCESSED, "<I", stamp)
    image.put("-dash", CREATED_10MS, "<B", 199)
    image.put("-dash", MODIFIED_10MS, "<B", 1)
    image.put("-dash", CREATED_ZONE, "<B", 0x80 | 22)  # UTC + 05:30
    image.put("-dash", MODIFIED_ZONE, "<B", 0xFF)  # UTC - 00:15
    image.put("-dash", ACCESSED_ZONE, "<B", 0x7F)  # not known
    fs, _ = await open_changed(image)
    inode = await fs.lookup(await names_folder(fs), b"-dash")
    attributes = await fs.attributes(inode)
    assert attributes.mode == 0o100444
    assert attributes.created_ns == utc + 1_990_000_000 - 19_800 * 10**9
    assert attributes.mtime_ns == utc + 10_000_000 + 900 * 10**9
    assert attributes.atime_ns == utc
    assert (await fs.xattrs(inode))[b"user.DOSATTRIB"].startswith(b"0x27\0")


async def test_a_time_that_cannot_be_costs_nothing_else(image: Image) -> None:
    for field in (CREATED, MODIFIED, ACCESSED):
        image.put("-dash", field, "<I", 0xFFFFFFFF)
    fs, _ = await open_changed(image)
    inode = await fs.lookup(await names_folder(fs), b"-dash")
    attributes = await fs.attributes(inode)
    assert (attributes.mtime_ns, attributes.atime_ns, attributes.created_ns) == (0, 0, None)
    assert attributes.size == 5
