import datetime
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.exfat.layout import decode_boot_sector, decode_label, unix_ns
from restorefs.guestfs.exfat.reader import ExfatFilesystem
from restorefs.guestfs.exfat.upcase import MANDATORY, decode_upcase_table
from tests.contracts.devices import MemoryDevice
from tests.images.exfat import checksum32

BOOT = bytearray(512)
BOOT[:11] = b"\xeb\x76\x90EXFAT   "
BOOT[64:100] = struct.pack("<QQIIIII", 0, 8192, 24, 8, 40, 1000, 4)
BOOT[100:112] = struct.pack("<IHHBBBB", 0xABCD1234, 0x100, 0, 9, 3, 1, 0x80)
BOOT[510:] = b"\x55\xaa"


def changed(offset: int, form: str, value: int) -> bytes:
    sector = bytearray(BOOT)
    struct.pack_into(form, sector, offset, value)
    return bytes(sector)


def test_a_boot_sector() -> None:
    boot = decode_boot_sector(bytes(BOOT))
    assert (boot.size, boot.fat_offset, boot.fat_length) == (8192 * 512, 24 * 512, 8 * 512)
    assert (boot.heap_offset, boot.clusters, boot.cluster_size) == (40 * 512, 1000, 4096)
    assert boot.offset_of(2) == 40 * 512
    assert boot.end_cluster == 1002
    second = decode_boot_sector(bytes(BOOT[:106]) + b"\1\0\x09\x03\x02" + bytes(BOOT[111:]))
    assert second.active_fat_offset == 32 * 512


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (0, "<B", 0xE9),
        (3, "<B", 0x20),
        (20, "<B", 1),  # what must be zero, lest FAT take it for its own
        (72, "<Q", 8000),  # sectors: fewer than the clusters take
        (80, "<I", 23),
        (84, "<I", 7),  # not room for all clusters
        (84, "<I", 17),  # more than there is room for
        (88, "<I", 31),
        (88, "<I", 0xFFFFFFFF),
        (92, "<I", 0),
        (92, "<I", 1100),
        (92, "<I", 0xFFFFFFFF),
        (96, "<I", 1),
        (96, "<I", 1002),
        (108, "<B", 8),  # sectors of 256 bytes
        (108, "<B", 13),
        (109, "<B", 17),  # clusters of 64 MiB
        (110, "<B", 0),
        (110, "<B", 2),
        (110, "<B", 3),
        (510, "<H", 0),
    ],
)
def test_a_boot_sector_that_cannot_be(offset: int, form: str, value: int) -> None:
    if (offset, value) == (110, 2):
        return  # a second FAT has room
    with pytest.raises(DamagedError):
        decode_boot_sector(changed(offset, form, value))


@given(st.binary(min_size=512, max_size=512))
def test_any_boot_sector(data: bytes) -> None:
    sector = BOOT[:64] + data[64:510] + BOOT[510:]
    try:
        boot = decode_boot_sector(bytes(sector))
    except DamagedError:
        return
    assert boot.heap_end <= boot.size


async def test_without_a_checksum_it_is_recognised_but_not_read() -> None:
    device = MemoryDevice(bytes(BOOT).ljust(64 << 10, b"\0"))
    identity = await ExfatFilesystem.probe(device)
    assert identity is not None
    assert (identity.kind, len(identity.notes)) == ("exfat", 1)
    with pytest.raises(DamagedError):
        await ExfatFilesystem.open(device)


@pytest.mark.parametrize(("offset", "value"), [(20, 1), (108, 8), (109, 20), (510, 0), (3, 0)])
async def test_what_contradicts_the_signature(offset: int, value: int) -> None:
    content = changed(offset, "<B", value).ljust(64 << 10, b"\0")
    assert await ExfatFilesystem.probe(MemoryDevice(content)) is None


def stamp(time: datetime.datetime) -> int:
    return (
        (time.year - 1980) << 25
        | time.month << 21
        | time.day << 16
        | time.hour << 11
        | time.minute << 5
        | time.second // 2
    )


@given(
    st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2107, 12, 31, 23, 59, 58)),
    st.integers(0, 199),
    st.integers(-64, 63),
)
def test_times(time: datetime.datetime, ten_ms: int, quarters: int) -> None:
    time = time.replace(second=time.second // 2 * 2, microsecond=0)
    utc = time.replace(tzinfo=datetime.UTC)
    local = time.replace(tzinfo=datetime.timezone(datetime.timedelta(minutes=15 * quarters)))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    for zone, meant in ((0x80 | quarters & 0x7F, local), (quarters & 0x7F, utc)):
        seconds = (meant - epoch) // datetime.timedelta(seconds=1)
        assert unix_ns(stamp(time), ten_ms, zone) == seconds * 10**9 + ten_ms * 10**7


@pytest.mark.parametrize(
    ("value", "ten_ms"),
    [
        (0, 0),
        (1 << 21, 0),  # no day
        (1 << 16, 0),  # no month
        (13 << 21 | 1 << 16, 0),
        (2 << 21 | 30 << 16, 0),
        (1 << 21 | 1 << 16 | 30, 0),  # 60 seconds
        (1 << 21 | 1 << 16 | 60 << 5, 0),
        (1 << 21 | 1 << 16 | 24 << 11, 0),
        (1 << 21 | 1 << 16, 200),
        (0xFFFFFFFF, 255),
    ],
)
def test_times_that_cannot_be(value: int, ten_ms: int) -> None:
    assert unix_ns(value, ten_ms, 0x80) is None


def test_labels() -> None:
    text = "größe 語 🙂x".encode("utf-16-le")
    entry = (b"\x83" + bytes((len(text) // 2,)) + text).ljust(32, b"\0")
    assert decode_label(entry) == "größe 語 🙂x"
    assert decode_label(b"\x83\x00" + b"x\0" * 11 + bytes(8)) == ""
    assert decode_label(b"\x83\xff" + b"\0\xd8" * 15) == "\ufffd" * 11


# The up-case table


def table(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


ASCII = (*range(97), *range(65, 91), *range(123, 128))


def test_tables() -> None:
    for data, expected in (
        (table(*ASCII), {}),
        (table(*ASCII, 0xFFFF, 0x100, 7, 8), {0x180: 7, 0x181: 8}),
        (table(0xFFFF, 97, *ASCII[97:]), {}),
        (table(*ASCII, 0xFFFF, 0xFF80), {}),
        (table(*ASCII, *range(128, 0xFFFF), 0xFFFF), {}),
    ):
        assert decode_upcase_table(data, checksum32(data)) == MANDATORY | expected
        with pytest.raises(DamagedError):
            decode_upcase_table(data, checksum32(data) ^ 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        table(*range(128)),
        table(*ASCII)[:-1],
        table(*ASCII, 0xFFFF, 0xFF81),
        table(*ASCII) + bytes(131_072),
        table(66, *ASCII[1:]),
    ],
)
def test_what_is_no_table(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_upcase_table(data, checksum32(data))
