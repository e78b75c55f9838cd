import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.guestfs.base import Identity
from restorefs.guestfs.recognise import OTHERS, TITLES, WRAPPERS, first_match
from restorefs.guestfs.recognise.evidence import Evidence
from restorefs.guestfs.registry import READERS, identify
from tests.contracts.devices import MemoryDevice, MeteredDevice
from tests.images import tables
from tests.images.signatures import (
    KIB,
    SAMPLES,
    Sample,
    bitlocker_to_go,
    fat,
    lvm2,
    md1_superblock,
    md_0_90,
    nilfs2,
    ntfs,
    volume,
)
from tests.images.tables import overwrite, record, slot

ROWS = WRAPPERS + OTHERS

samples = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


async def recognise(content: bytes) -> Identity | None:
    """Ask the rows, and the readers of what they leave to those, as whoever opens a volume does."""
    return await identify(MemoryDevice(content))


async def kind_of(content: bytes) -> str | None:
    identity = await recognise(content)
    return identity.kind if identity else None


@samples
async def test_kind_label_and_uuid(sample: Sample) -> None:
    identity = await recognise(sample.content)
    assert identity is not None
    assert (identity.kind, identity.label, identity.uuid) == (
        sample.kind,
        sample.label,
        sample.uuid,
    )
    assert identity.readable == any(identity.kind in reader.kinds for reader in READERS)
    assert identity.kind in TITLES


@samples
async def test_only_one_row_takes_a_volume_for_its_own(sample: Sample) -> None:
    evidence = await Evidence.gather(MemoryDevice(sample.content))
    names = [row.__name__ for row in ROWS if row(evidence)]
    device = MemoryDevice(sample.content)
    names += [reader.__name__ for reader in READERS if await reader.probe(device)]
    # BitLocker To Go means to look like FAT to what does not know it.
    to_go = sample.name == "bitlocker to go"
    assert names == (["bitlocker", "FatFilesystem"] if to_go else names[:1])
    assert names


@samples
async def test_a_larger_volume_is_the_same(sample: Sample) -> None:
    """But for what lies at the end of a volume."""
    at_the_end = ("md 1.0", "md 0.90 <", "md 0.90 >", "drbd", "ldm at 65024")
    if not sample.name.startswith(at_the_end):
        assert await kind_of(sample.content + bytes(3 << 20)) == sample.kind


async def test_reading_is_bounded() -> None:
    device = MeteredDevice(volume(8 << 20, (0, ntfs())), reads=4, length=4 * 128 * KIB)
    assert await Evidence.gather(device)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4095, 65536, 128 * KIB, 128 * KIB + 1, 200 * KIB])
async def test_an_empty_volume_is_nothing(size: int) -> None:
    assert await recognise(bytes(size)) is None


async def test_what_else_is_nothing() -> None:
    foreign = [b"\xff" * 65536, bytes(range(256)) * 1024]
    foreign += [tables.Gpt(200, []).build(), tables.disk(100, (0, record(slot(0x83, 8, 40))))]
    for content in foreign:
        assert await recognise(content) is None


async def test_a_damaged_superblock_is_left_to_its_reader() -> None:
    superblock_of_ext4 = volume(64 * KIB, (1024 + 56, b"\x53\xef"))
    assert first_match(ROWS, await Evidence.gather(MemoryDevice(superblock_of_ext4))) is None


# --- which kinds hold files -----------------------------------------------------------------------


@samples
async def test_what_holds_files(sample: Sample) -> None:
    identity = await recognise(sample.content)
    assert identity is not None
    assert identity.holds_files == (sample.kind not in ("swap", "swsuspend"))
    assert identity.encrypted == (sample.kind in ("crypto_LUKS", "BitLocker"))


async def test_sizes() -> None:
    identities = [await recognise(sample.content) for sample in SAMPLES]
    sizes = {identity.kind: identity.size for identity in identities if identity}
    assert sizes["ntfs"] == 20479 * 512
    assert sizes["xfs"] == 16384 * 4096
    assert sizes["btrfs"] == 1 << 30
    assert sizes["ReFS"] == 128 * 512
    assert sizes["apfs"] == 64 * 4096
    assert sizes["f2fs"] == 16384 * 4096
    assert sizes["erofs"] == 16 * 4096
    assert sizes["iso9660"] == 32 * 2048
    assert sizes["jfs"] == 128 * 512
    assert sizes["reiserfs"] == 64 * 4096
    assert sizes["nilfs2"] == 1024 * KIB
    assert sizes["squashfs"] == 221


async def test_a_file_system_on_several_devices_says_so() -> None:
    (btrfs,) = (sample.content for sample in SAMPLES if sample.name == "btrfs")
    identity = await recognise(overwrite(btrfs, 65536 + 136, b"\x03"))
    assert identity is not None
    assert (identity.size, identity.notes) == (None, ("one of 3 devices",))


# --- what wraps others ----------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["xfs", "ntfs", "fat32", "btrfs", "swap 4096"])
async def test_an_md_member_is_not_what_its_start_shows(inside: str) -> None:
    (content,) = (sample.content for sample in SAMPLES if sample.name == inside)
    size = 512 * KIB
    offset = (size // 512 - 16) // 8 * 4096
    whole = volume(size, (0, content), (offset, md1_superblock(offset)))
    assert await kind_of(whole) == "linux_raid_member"
    assert await kind_of(volume(size, (0, content), md_0_90(size))) == "linux_raid_member"


async def test_an_md_superblock_of_another_place_is_a_leftover() -> None:
    content = volume(512 * KIB, (0, ntfs()), (4096, md1_superblock(0)))
    assert await kind_of(content) == "ntfs"


async def test_drbd_does_not_hide_what_is_in_front_of_it() -> None:
    (drbd,) = (sample.content for sample in SAMPLES if sample.name == "drbd 8374026d")
    assert await kind_of(overwrite(drbd, 0, ntfs())) == "ntfs"


async def test_bitlocker_to_go_is_not_the_fat_it_shows() -> None:
    assert await kind_of(bitlocker_to_go()) == "BitLocker"
    assert await kind_of(overwrite(bitlocker_to_go(), 424, bytes(16))) == "vfat"


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (lvm2(1), 512 + 40),
        (md1_superblock(0), 100),
        (nilfs2(64 * KIB), 1024 + 200),
        (volume(256 * KIB, md_0_90(256 * KIB)), 192 * KIB + 3000),
    ],
    ids=["lvm2", "md 1", "nilfs2", "md 0.90"],
)
async def test_a_wrong_checksum_is_nothing(content: bytes, offset: int) -> None:
    content = content.ljust(64 * KIB, b"\0")
    assert await recognise(content) is not None
    assert await recognise(overwrite(content, offset, b"\x5a")) is None


async def test_an_lvm_label_of_another_sector_is_a_leftover() -> None:
    assert await recognise(volume(64 * KIB, (512, lvm2(0)[:512]))) is None


@pytest.mark.parametrize(
    ("name", "offset", "data"),
    [
        ("ntfs", 14, b"\x01"),  # reserved sectors, as FAT has them
        ("ntfs", 11, b"\x00\x03"),  # sectors of 768 bytes
        ("ntfs", 510, b"\0\0"),
        ("xfs", 4, b"\0\0\x10\x01"),  # blocks of 4097 bytes
        ("xfs", 120, b"\x0d"),  # whose logarithm is another
        ("btrfs", 65536 + 48, b"\x01"),  # a superblock of another place
        ("apfs", 24, b"\x02"),  # another object
        ("f2fs", 1024 + 16, b"\x40"),
        ("erofs", 1024 + 12, b"\x40"),
        ("squashfs", 22, b"\x10"),
        ("hfs+", 1026, b"\0\x05"),
        ("hfs", 1046, b"\x01"),  # not in sectors of 512 bytes
        ("jfs", 32768 + 20, b"\x0b"),
        ("reiserfs ReIsEr2Fs at 65536", 65536 + 44, b"\x01"),
        ("ufs2 at 65536", 65536 + 1000, b"\x01"),  # a superblock of another place
        ("ufs1", 8192 + 48, b"\x01"),
        ("ReFS", 16, b"X"),
        ("zfs", 128 * KIB - 40, b"X"),
        ("zfs", 16 * KIB, b"\0"),  # not XDR
        ("ldm at 3072", 3072 + 60, b"X"),
        ("drbd 8374026d", (2 << 20) - 4096 + 80, b"X"),
        ("udf with sectors of 2048", 32768, b"\0BEA02"),
        ("iso9660", 32768, b"\0CD002"),
    ],
)
async def test_what_contradicts_the_signature(name: str, offset: int, data: bytes) -> None:
    (content,) = (sample.content for sample in SAMPLES if sample.name == name)
    assert await recognise(overwrite(content, offset, data)) is None


async def test_a_later_luks_is_encrypted_too() -> None:
    (luks,) = (sample.content for sample in SAMPLES if sample.name == "luks2")
    identity = await recognise(overwrite(luks, 6, b"\0\3"))
    assert identity is not None
    assert (identity.kind, identity.encrypted) == ("crypto_LUKS", True)
    assert (identity.label, identity.uuid) == ("", "")


# --- FAT is strict --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, b"\x33\xc0\x8e"),  # no jump
        (0, b"\xeb\x63\x8e"),  # a short jump, without the NOP
        (11, b"\x00\x00"),  # bytes per sector
        (11, b"\x00\x03"),
        (13, b"\x00"),  # sectors per cluster
        (13, b"\x03"),
        (14, b"\x00\x00"),  # reserved sectors
        (16, b"\x00"),  # FATs
        (21, b"\xf7"),  # media
        (32, b"\x01\x00\x00\x00"),  # sectors
        (32, b"\xff\xff\xff\x7f"),  # more of them than the FATs have room for
        (510, b"\x00\x00"),
    ],
)
async def test_a_boot_sector_that_no_fat_has(bits: int, offset: int, data: bytes) -> None:
    content = volume(64 * KIB, (0, fat(bits)))
    assert await kind_of(content) == "vfat"
    assert await recognise(overwrite(content, offset, data)) is None


async def test_root_entries_belong_to_fat_12_and_16_only() -> None:
    for bits, entries in ((16, b"\0\0"), (32, b"\0\x02")):
        content = overwrite(volume(64 * KIB, (0, fat(bits))), 17, entries)
        assert await recognise(content) is None


async def test_fat_with_sectors_of_4096_bytes() -> None:
    assert await kind_of(volume(64 * KIB, (0, fat(32, sector_size=4096)))) == "vfat"


async def test_an_mbr_is_no_fat() -> None:
    grub = b"\xeb\x63\x90".ljust(64, b"\0") + b"\x80\x00\x00\x80 GRUB "
    windows = b"\x33\xc0\x8e\xd0\xbc\x00\x7c\x8e\xc0\x8e\xd8\xbe\x00\x7c\xbf\x00\x06\xb9\x00\x02"
    for code in (grub, windows):
        content = tables.disk(200, (0, record(slot(0x0C, 8, 40), code=code)))
        assert await recognise(content) is None


# --- whatever the bytes say -----------------------------------------------------------------------


@given(data=st.data())
@settings(max_examples=150)
async def test_damaged_signatures_never_raise(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from([s for s in SAMPLES if len(s.content) <= 256 * KIB]))
    content = bytearray(sample.content)
    starts = [at for at in range(0, len(content), 64) if any(content[at : at + 64])]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 63))
        value = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(value)] = value
    if data.draw(st.integers(0, 9)) == 0:
        del content[data.draw(st.integers(0, len(content))) :]
    evidence = await Evidence.gather(MemoryDevice(bytes(content)))
    for row in ROWS:
        identity = row(evidence)
        if identity is not None:
            assert identity.kind in TITLES
            assert "\0" not in identity.label + identity.uuid


@given(head=st.binary(min_size=512, max_size=4096))
@settings(max_examples=80)
async def test_random_bytes_are_nothing(head: bytes) -> None:
    assert await recognise(head) is None
