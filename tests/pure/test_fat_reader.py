"""The FAT reader on volumes built by hand: what no program writes, and what damage does."""

import stat
from datetime import UTC, datetime

import pytest

from restorefs.errors import DamagedError, NotFoundError, StorageError, UnsupportedError
from restorefs.guestfs.base import GuestOptions
from restorefs.guestfs.fat.reader import FatFilesystem
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.listing import entries_of
from tests.pure.fat_bytes import (
    END,
    SECTOR,
    Volume,
    entry,
    folder,
    long_entries,
    named,
)

FILE = b"FILE    TXT"

widths = pytest.mark.parametrize("bits", [12, 16, 32])


async def opened(volume: Volume, **options: str) -> tuple[FatFilesystem, MemoryDevice]:
    device = MemoryDevice(volume.build())
    return await FatFilesystem.open(device, GuestOptions(**options)), device


async def names(volume: Volume, **options: str) -> list[str]:
    fs, _ = await opened(volume, **options)
    return [each.name.decode(errors="replace") for each in await entries_of(fs, fs.root)]


async def content(fs: FatFilesystem, device: MemoryDevice, name: bytes) -> bytes:
    inode = await fs.lookup(fs.root, name)
    size = (await fs.attributes(inode)).size
    found = b""
    for extent in await fs.map(inode, 0, size):
        assert extent.offset is not None
        found += await device.read(extent.offset, extent.length)
    return found


# --- chains -------------------------------------------------------------------------------------


def blocks(*clusters: int) -> dict[int, bytes]:
    """Content by which each cluster is known."""
    return {cluster: b"%511d\n" % cluster for cluster in clusters}


def joined(*clusters: int) -> bytes:
    return b"".join(blocks(*clusters).values())


@widths
@pytest.mark.parametrize(
    "chain", [[10, 9], [9, 10], [10, 12, 11], [5, 6, 7, 50, 8, 9, 51], [99, 3, 98, 4, 97]]
)
async def test_a_chain_leads_where_it_leads(bits: int, chain: list[int]) -> None:
    size = len(chain) * SECTOR - 5
    volume = Volume(bits, [entry(FILE, cluster=chain[0], size=size)], [chain], blocks(*chain))
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(*chain)[:size]
    inode = await fs.lookup(fs.root, b"FILE.TXT")
    for start in range(0, size, 200):
        (first, *_) = await fs.map(inode, start, 1)
        cluster = chain[start // SECTOR]
        assert first.offset == volume.place(cluster) + start % SECTOR


@widths
@pytest.mark.parametrize(
    ("fat", "sound"),
    [
        ({20: 20}, [20]),  # leads to itself
        ({20: 21, 21: 22, 22: 21}, [20, 21, 22]),
        ({20: 30, 30: 20}, [20, 30]),
        ({20: 30, 30: 31, 31: 32, 32: 31}, [20, 30, 31, 32]),
        # Comes into a run from its middle: 4 5 6 2 3 (4 ...)
        ({20: 21, 21: 22, 22: 18, 18: 19, 19: 20}, [20, 21, 22, 18, 19]),
        ({20: 21, 21: 0}, [20, 21]),  # free
        ({20: 21, 21: 1}, [20, 21]),
        ({20: 21, 21: 101 + 4000 + 2000}, [20, 21]),  # behind the last cluster
        ({20: 21, 21: -1}, [20, 21]),  # the end, too early
    ],
)
async def test_what_lies_before_damage_stays_readable(
    bits: int, fat: dict[int, int], sound: list[int]
) -> None:
    clusters = [18, 19, 20, 21, 22, 30, 31, 32]
    fat = {number: END[bits] if value < 0 else value for number, value in fat.items()}
    if bits == 12 and 6101 in fat.values():
        fat[21] = 102
    volume = Volume(bits, [entry(FILE, cluster=20, size=100 * SECTOR)], [], blocks(*clusters), fat)
    fs, device = await opened(volume)
    inode = await fs.lookup(fs.root, b"FILE.TXT")
    length = len(sound) * SECTOR
    found = b""
    for extent in await fs.map(inode, 0, length):
        assert extent.offset is not None
        found += await device.read(extent.offset, extent.length)
    assert found == joined(*sound)
    for start, count in ((0, length + 1), (length, 1), (length - 1, 2), (99 * SECTOR, SECTOR)):
        with pytest.raises(DamagedError):
            await fs.map(inode, start, count)


@widths
async def test_a_chain_longer_than_the_file_is_fine(bits: int) -> None:
    volume = Volume(
        bits,
        [entry(FILE, cluster=9, size=SECTOR), entry(b"EMPTY      ", cluster=12)],
        [[9, 8, 7, 6], [12, 13]],
        blocks(9),
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(9)
    assert await content(fs, device, b"EMPTY") == b""


@widths
async def test_a_circle_behind_the_files_end_does_no_harm(bits: int) -> None:
    volume = Volume(
        bits,
        [entry(FILE, cluster=9, size=2 * SECTOR)],
        content=blocks(9, 8),
        fat={9: 8, 8: 7, 7: 8},
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(9, 8)


@widths
async def test_cross_linked_files_are_read_as_they_are(bits: int) -> None:
    volume = Volume(
        bits,
        [entry(b"A          ", cluster=9, size=1536), entry(b"B          ", cluster=5, size=1536)],
        [[9, 20, 21], [5, 20, 21]],
        blocks(9, 20, 21, 5),
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"A") == joined(9, 20, 21)
    assert await content(fs, device, b"B") == joined(5, 20, 21)


@widths
@pytest.mark.parametrize("cluster", [0, 1, 60_000])
async def test_a_file_that_begins_nowhere(bits: int, cluster: int) -> None:
    fs, _ = await opened(Volume(bits, [entry(FILE, cluster=cluster, size=5)]))
    with pytest.raises(DamagedError):
        await fs.map(await fs.lookup(fs.root, b"FILE.TXT"), 0, 5)


# --- several FATs -------------------------------------------------------------------------------


@widths
@pytest.mark.parametrize("damage", [0, 1, 5, 6, 60_000])
async def test_the_second_fat_where_the_first_is_damaged(bits: int, damage: int) -> None:
    volume = Volume(
        bits,
        [entry(FILE, cluster=5, size=3 * SECTOR)],
        [[5, 6, 9]],
        blocks(5, 6, 9),
        fat={6: damage % (1 << bits)},
        second_fat={6: 9},
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(5, 6, 9)


@widths
async def test_the_first_fat_where_both_are_sound(bits: int) -> None:
    volume = Volume(
        bits,
        [entry(FILE, cluster=5, size=2 * SECTOR)],
        [[5, 6]],
        blocks(5, 6, 9),
        second_fat={5: 9, 9: END[bits]},
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(5, 6)


class PartlyUnreadable(MemoryDevice):
    """Bytes in memory, some of which cannot be read."""

    def __init__(self, content: bytes, bad: range) -> None:
        super().__init__(content)
        self.bad = bad

    async def _read(self, offset: int, length: int) -> bytes:
        if offset < self.bad.stop and self.bad.start < offset + length:
            raise StorageError("this part cannot be read")
        return await super()._read(offset, length)


async def test_the_second_fat_where_the_first_cannot_be_read() -> None:
    volume = Volume(16, [entry(FILE, cluster=5, size=1024)], [[5, 9]], blocks(5, 9))
    first = range(volume.reserved * SECTOR, (volume.reserved + volume.fat_sectors) * SECTOR)
    data = volume.build()
    device = PartlyUnreadable(data, range(0))
    fs = await FatFilesystem.open(device)
    inode = await fs.lookup(fs.root, b"FILE.TXT")
    device = PartlyUnreadable(data, first)
    fs._files.table._device = device  # The pieces of the reader would cover both.
    fs._files.table._pieces._values.clear()
    offsets = [extent.offset for extent in await fs.map(inode, 0, 1024)]
    assert offsets == [volume.place(5), volume.place(9)]


async def test_only_the_active_fat_counts() -> None:
    volume = Volume(
        32,
        [entry(FILE, cluster=5, size=2 * SECTOR)],
        [[5, 6]],
        blocks(5, 6, 9),
        second_fat={5: 9, 9: END[32]},
        flags=0x81,
    )
    fs, device = await opened(volume)
    assert await content(fs, device, b"FILE.TXT") == joined(5, 9)


async def test_an_active_fat_that_there_is_not() -> None:
    with pytest.raises(DamagedError):
        await opened(Volume(32, flags=0x85))


# --- names --------------------------------------------------------------------------------------


@widths
async def test_long_names(bits: int) -> None:
    long = ["a", "x" * 13, "y" * 14, "größe-日本語-🙂", "Z" * 100]
    root = [named(name, b"LONG~%d     " % number) for number, name in enumerate(long)]
    if bits == 32:
        root, long = root[:2], long[:2]
    assert await names(Volume(bits, root)) == long


async def test_half_a_pair_of_utf16_is_kept() -> None:
    fs, _ = await opened(Volume(16, [named("a\ud83dz", b"LONG~1     ")]))
    (only,) = await entries_of(fs, fs.root)
    assert only.name == b"a\xed\xa0\xbdz"
    assert await fs.lookup(fs.root, only.name) == only.inode


def damaged_sets() -> dict[str, list[bytes]]:
    good = long_entries("a name of three entries, no less", FILE)
    assert len(good) == 3
    other = bytearray(good[1])
    other[13] ^= 1
    kind = bytearray(good[0])
    kind[12] = 1
    slash = long_entries("a/b", FILE)
    inner_end = bytearray(long_entries("abcdefg", FILE)[0])
    inner_end[3:5] = b"\0\0"
    return {
        "the last part is missing": good[1:],
        "the first part is missing": good[:2],
        "the middle is missing": [good[0], good[2]],
        "in another order": [good[0], good[2], good[1]],
        "a wrong checksum": [good[0], bytes(other), good[2]],
        "of another file": long_entries("another", b"OTHER   TXT"),
        "another kind": [bytes(kind), *good[1:]],
        "a slash": slash,
        "a dot": long_entries(".", FILE),
        "characters behind the end": [bytes(inner_end)],
        "a deleted part": [good[0], b"\xe5" + good[1][1:], good[2]],
        "a file between": [*good, entry(b"BETWEEN    ")],
        "a deleted file between": [*good, entry(b"\xe5ETWEEN    ")],
        "two beginnings": [good[0], *good],
        "number zero": [b"\x40" + good[0][1:]],
        "a number too high": [b"\x7f" + good[0][1:]],
    }


@pytest.mark.parametrize("what", damaged_sets())
async def test_a_damaged_long_name_falls_back_to_the_short_one(what: str) -> None:
    found = await names(Volume(16, [*damaged_sets()[what], entry(FILE), entry(b"BEHIND     ")]))
    expected = "FILE.TXT"
    if what == "two beginnings":
        expected = "a name of three entries, no less"
    between = ["BETWEEN"] if what == "a file between" else []
    assert found == [*between, expected, "BEHIND"]


@pytest.mark.parametrize(
    ("stored", "flags", "shown"),
    [
        (b"FILE    TXT", 0x00, "FILE.TXT"),
        (b"FILE    TXT", 0x08, "file.TXT"),
        (b"FILE    TXT", 0x10, "FILE.txt"),
        (b"FILE    TXT", 0x18, "file.txt"),
        (b"FILE       ", 0x18, "file"),
        (b"A B     C D", 0x00, "A B.C D"),
        (b"\x9aBER    TXT", 0x18, "über.txt"),  # cp437
        (b"\x05IGMA      ", 0x00, "\u03c3IGMA"),  # 0xE5 in cp437
        (b"FILE    TXT", 0xE7, "FILE.TXT"),
    ],
)
async def test_short_names(stored: bytes, flags: int, shown: str) -> None:
    assert await names(Volume(12, [entry(stored, flags=flags)])) == [shown]


async def test_another_character_set() -> None:
    volume = Volume(12, [entry(b"\x8e\xa9\x93\xfa    TXT"), entry(b"\x05          ")])
    assert (await names(volume, oem_codepage="cp932"))[0] == "自日.TXT"
    fs, _ = await opened(volume, oem_codepage="cp932")
    assert [each.name for each in await entries_of(fs, fs.root)][1] == b"\xe5"
    assert (await names(volume, oem_codepage="cp850"))[1] == "Õ"


async def test_what_a_listing_never_shows() -> None:
    root = [
        entry(b"LABEL      ", 0x08),
        entry(b"\xe5ELETED    "),
        b"\xe5" + entry(b"OLDPART    ", 0x0F)[1:],
        entry(b"SHOWN      "),
        bytes(32),
        entry(b"BEHIND     "),
    ]
    volume = Volume(16, root)
    fs, _ = await opened(volume)
    assert [each.name for each in await entries_of(fs, fs.root)] == [b"SHOWN"]
    for cookie in range(1, 64):
        found = await entries_of(fs, fs.root, cookie)
        assert [each.name for each in found] == ([b"SHOWN"] if cookie < 4 else [])
    for name in (b"LABEL", b"BEHIND", b"\xe5ELETED"):
        with pytest.raises(NotFoundError):
            await fs.lookup(fs.root, name)
    for slot in (0, 1, 2):
        with pytest.raises(NotFoundError):
            await fs.attributes(volume.root_start // 32 + slot)


async def test_lookup_takes_the_exact_name_first_and_no_ambiguous_one() -> None:
    root = [
        named("Readme.txt", b"README~1TXT"),
        named("README.TXT", b"README~2TXT"),
        named("größe", b"GR\x99\xe1E      "),
    ]
    fs, _ = await opened(Volume(16, root))
    first, second, third = [each.inode for each in await entries_of(fs, fs.root)]
    for name, inode in {
        "Readme.txt": first,
        "README.TXT": second,
        "readme~1.txt": first,
        "README~2.TXT": second,
        "GRÖßE": third,
        "größe": third,
    }.items():
        assert await fs.lookup(fs.root, name.encode()) == inode, name
    with pytest.raises(NotFoundError):
        await fs.lookup(fs.root, b"readme.txt")


@pytest.mark.parametrize(
    ("stored", "flags", "shown"),
    [
        (b"A/B        ", 0x00, "A\ufffdB"),
        (b"A\0B\0    T/T", 0x18, "a\ufffdb\ufffd.t\ufffdt"),
        (b"        TXT", 0x00, "\ufffd.TXT"),
        (b"           ", 0x00, "\ufffd"),
        (b"\x9a/      TXT", 0x00, "Ü\ufffd.TXT"),  # cp437
    ],
)
@pytest.mark.parametrize("attributes", [0x20, 0x10])
async def test_an_impossible_name_costs_only_its_own_file(
    stored: bytes, flags: int, shown: str, attributes: int
) -> None:
    root = [entry(FILE), entry(stored, attributes, 9, flags=flags), entry(b"C          ")]
    fs, _ = await opened(Volume(16, root, [[9]], {9: folder(9, 0)}))
    first, impossible, last = await entries_of(fs, fs.root)
    assert [first.name, last.name] == [b"FILE.TXT", b"C"]
    assert impossible.name == shown.encode()
    assert impossible.kind == (stat.S_IFDIR if attributes == 0x10 else stat.S_IFREG)
    assert impossible.attributes is None
    assert await entries_of(fs, fs.root, first.cookie) == [impossible, last]
    assert await entries_of(fs, fs.root, impossible.cookie) == [last]
    assert await fs.lookup(fs.root, b"c") == last.inode
    for asked in (
        fs.attributes(impossible.inode),
        fs.readdir(impossible.inode),
        fs.xattrs(impossible.inode),
        fs.map(impossible.inode, 0, 1),
        fs.lookup(fs.root, impossible.name),
        fs.lookup(fs.root, b"D"),
    ):
        with pytest.raises(DamagedError):
            await asked


async def test_an_impossible_short_name_behind_a_long_one() -> None:
    fs, _ = await opened(Volume(16, [named("long name", b"A/B        ", 0x20)]))
    (only,) = await entries_of(fs, fs.root)
    assert only.name == b"long name"
    assert only.attributes == await fs.attributes(await fs.lookup(fs.root, only.name))


# --- folders ------------------------------------------------------------------------------------


def with_folder(bits: int, chain: list[int], data: bytes, **more: dict[int, int]) -> Volume:
    root = [entry(b"FOLDER     ", 0x10, chain[0])]
    parts = {cluster: data[i * SECTOR : (i + 1) * SECTOR] for i, cluster in enumerate(chain)}
    return Volume(bits, root, [chain], parts, **more)


@widths
async def test_a_name_goes_on_in_the_next_cluster(bits: int) -> None:
    files = [named(f"{number:03d}" + "n" * 60, b"N%07d   " % number) for number in range(20)]
    data = folder(40, 0, *files)
    chain = [40, 39, 50, 51, 30, 60, 61, 62]
    assert len(data) == 122 * 32
    fs, _ = await opened(with_folder(bits, chain, data))
    inode = await fs.lookup(fs.root, b"folder")
    found = await entries_of(fs, inode)
    assert [each.name[:3] for each in found] == [b"%03d" % number for number in range(20)]
    for cookie in range(1, 140):
        again = await entries_of(fs, inode, cookie)
        assert again == [each for each in found if each.cookie > cookie]
    attributes = await fs.attributes(inode)
    assert (attributes.size, attributes.blocks) == (8 * SECTOR, 8)
    assert stat.S_IMODE(attributes.mode) == 0o755


@widths
@pytest.mark.parametrize("value", [40, 39, 0, 1, 60_000])
async def test_a_folder_whose_chain_is_damaged_says_so_at_its_end(bits: int, value: int) -> None:
    files = [entry(b"F%07d   " % number) for number in range(60)]
    volume = with_folder(
        bits, [40, 39, 50, 51], folder(40, 0, *files), fat={39: value % (1 << bits)}
    )
    volume.fats = 1
    fs, _ = await opened(volume)
    inode = await fs.lookup(fs.root, b"FOLDER")
    first = await fs.readdir(inode)
    assert len(first.entries) == 30
    assert not first.complete
    with pytest.raises(DamagedError):
        await fs.readdir(inode, first.entries[-1].cookie)
    assert await fs.lookup(inode, b"f0000029") == first.entries[-1].inode
    with pytest.raises(DamagedError):
        await fs.lookup(inode, b"F0000050")
    assert (await fs.attributes(inode)).size == 2 * SECTOR


@widths
async def test_a_folder_that_holds_something_else_is_not_listed(bits: int) -> None:
    for data in (bytes(SECTOR), blocks(40)[40], entry(FILE)):
        fs, _ = await opened(with_folder(bits, [40], data))
        inode = await fs.lookup(fs.root, b"FOLDER")
        with pytest.raises(DamagedError):
            await fs.readdir(inode)
        with pytest.raises(DamagedError):
            await fs.lookup(inode, b"x")


async def test_a_folder_without_clusters_is_not_empty() -> None:
    fs, _ = await opened(Volume(16, [entry(b"FOLDER     ", 0x10, 0)]))
    inode = await fs.lookup(fs.root, b"FOLDER")
    with pytest.raises(DamagedError):
        await fs.readdir(inode)


@widths
async def test_parents_are_found_from_below(bits: int) -> None:
    volume = Volume(
        bits,
        [entry(b"A          ", 0x10, 10)],
        [[10], [11], [12]],
        {
            10: folder(10, 0, entry(b"B          ", 0x10, 11)),
            11: folder(11, 10, entry(b"C          ", 0x10, 12)),
            12: folder(12, 11, entry(FILE)),
        },
    )
    top, middle, low = (
        volume.root_start // 32,
        volume.place(10) // 32 + 2,
        volume.place(11) // 32 + 2,
    )
    for inode, parent in ((low, middle), (middle, top), (top, 1), (1, 1)):
        fs, _ = await opened(volume)
        assert await fs.lookup(inode, b"..") == parent
        assert await fs.lookup(inode, b".") == inode


# --- what an entry says -------------------------------------------------------------------------


async def test_times_and_modes() -> None:
    day = (2021 - 1980) << 9 | 3 << 5 | 4
    clock = 5 << 11 | 6 << 5 | 7 // 2
    times = (189, clock, day, day + 1, clock + 1, day + 2)
    root = [entry(FILE, 0x21, times=times), entry(b"NEVER      ", 0x00)]
    fs, _ = await opened(Volume(16, root))
    file, never = [each.attributes for each in await entries_of(fs, fs.root)]
    assert file is not None
    assert never is not None
    assert file.mode == stat.S_IFREG | 0o444
    assert never.mode == stat.S_IFREG | 0o644

    def ns(*parts: int) -> int:
        return int(datetime(*parts, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc, arg-type]

    assert file.created_ns == ns(2021, 3, 4, 5, 6, 7) + 890_000_000
    assert file.atime_ns == ns(2021, 3, 5)
    assert file.mtime_ns == file.ctime_ns == ns(2021, 3, 6, 5, 6, 8)
    assert never.created_ns is None
    assert never.mtime_ns == never.atime_ns == ns(1980, 1, 1)
    assert (await fs.attributes(fs.root)).mtime_ns == 0


@pytest.mark.parametrize("value", [0, 0x1FF, 0xFFFF, 13 << 5 | 1, 2 << 5 | 31])
async def test_no_date_is_impossible(value: int) -> None:
    times = (255, 0xFFFF, value, value, 0xFFFF, value)
    fs, _ = await opened(Volume(16, [entry(FILE, times=times)]))
    (only,) = await entries_of(fs, fs.root)
    assert only.attributes is not None


# --- what a volume says of itself ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "state", "boot_state", "clean", "notes"),
    [
        (12, None, 0, True, 0),
        (12, None, 1, False, 1),
        (16, 0xFFFF, 0, True, 0),
        (16, 0x7FFF, 0, False, 1),
        (16, 0xBFFF, 0, True, 1),
        (16, 0xFFFF, 1, False, 1),
        (32, 0x0FFFFFFF, 0, True, 0),
        (32, 0x07FFFFFF, 0, False, 1),
        (32, 0x0BFFFFFF, 0, True, 1),
        (32, 0x03FFFFFF, 1, False, 2),
    ],
)
async def test_whether_it_was_unmounted(
    bits: int, state: int | None, boot_state: int, clean: bool, notes: int
) -> None:
    fs, device = await opened(Volume(bits, state=state, boot_state=boot_state))
    assert fs.identity.clean is clean
    assert len(fs.identity.notes) == 1 + notes
    assert fs.identity == await FatFilesystem.probe(device)


@widths
async def test_labels(bits: int) -> None:
    boot, root = b"BOOT       ", b"\x05 ROOT     "
    for volume, label in (
        (Volume(bits), ""),
        (Volume(bits, label=boot), "BOOT"),
        (Volume(bits, [entry(FILE), entry(root, 0x28)], label=boot), "\u03c3 ROOT"),
        (Volume(bits, [entry(b"NO NAME    ", 0x08)]), ""),
        (Volume(bits, [entry(b"\xe5OOT       ", 0x08)]), ""),
        (Volume(bits, [bytes(32), entry(root, 0x08)]), ""),
        (Volume(bits, [entry(root, 0x0F)]), ""),
    ):
        identity = await FatFilesystem.probe(MemoryDevice(volume.build()))
        assert identity is not None
        assert (identity.label, identity.uuid) == (label, "1234-ABCD")


async def test_another_version_of_fat32_is_not_read() -> None:
    data = bytearray(Volume(32).build())
    data[42:44] = b"\1\2"
    with pytest.raises(UnsupportedError, match=r"FAT32 version 2\.1"):
        await FatFilesystem.open(MemoryDevice(bytes(data)))


async def test_listing_files_reads_no_more_than_the_folder() -> None:
    files = [entry(b"F%07d   " % number, cluster=50, size=5) for number in range(60)]
    watched = WatchedDevice(MemoryDevice(Volume(16, files).build()))
    fs = await FatFilesystem.open(watched)
    await entries_of(fs, fs.root)
    assert watched.reads <= 3
