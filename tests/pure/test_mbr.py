from collections.abc import Sequence

import pytest

from restorefs.volumes.base import VolumeTable
from restorefs.volumes.mbr import Mbr
from restorefs.volumes.registry import read_table
from tests.contracts.devices import MemoryDevice
from tests.contracts.volumes import VolumeSchemeContract, check_table
from tests.images.signatures import fat, ldm_private_header, ntfs
from tests.images.tables import PROTECTIVE, UNUSED, disk, overwrite, record, slot

SIGNATURE = 0xE027E467


def logical_disk(kind: int = 0x05, sector_size: int = 512) -> bytes:
    """Slots 1 and 3 are primary, 2 is extended with three logical partitions."""
    return disk(
        400,
        (
            0,
            record(
                slot(0x83, 8, 40, 0x80),
                slot(kind, 100, 200),
                slot(0x07, 300, 50),
                signature=SIGNATURE,
            ),
        ),
        (100, record(slot(0x83, 8, 20), slot(0x05, 50, 40))),
        (150, record(slot(0x82, 8, 20), slot(0x05, 90, 60))),
        (190, record(slot(0x8E, 8, 30))),
        sector_size=sector_size,
    )


async def table_of(content: bytes) -> VolumeTable:
    device = MemoryDevice(content)
    table = await Mbr.read_table(device)
    assert table is not None
    await check_table(table, device)
    return table


def places(table: VolumeTable) -> list[tuple[bytes, int, int | None, int | None]]:
    """Name, number, first sector and number of sectors of each volume."""
    size = table.sector_size
    return [
        (
            volume.name,
            volume.index,
            None if volume.start is None else volume.start // size,
            None if volume.device is None else volume.device.size // size,
        )
        for volume in table.volumes
    ]


class TestMbrContract(VolumeSchemeContract):
    scheme = Mbr

    @staticmethod
    def disks() -> Sequence[bytes]:
        plain = disk(64, (0, record(slot(0x83, 8, 16), slot(0x0C, 24, 40))))
        return [plain, logical_disk(), logical_disk(0x0F), logical_disk(0x85)]


async def test_partitions_keep_the_number_of_their_slot() -> None:
    table = await table_of(
        disk(100, (0, record(UNUSED, slot(0x83, 8, 16), UNUSED, slot(0x07, 24, 76))))
    )
    assert places(table) == [(b"part2", 2, 8, 16), (b"part4", 4, 24, 76)]


@pytest.mark.parametrize("kind", [0x05, 0x0F, 0x85])
async def test_logical_partitions_count_from_5(kind: int) -> None:
    table = await table_of(logical_disk(kind))
    assert places(table) == [
        (b"part1", 1, 8, 40),
        (b"part2", 2, 100, 200),
        (b"part3", 3, 300, 50),
        (b"part5", 5, 108, 20),
        (b"part6", 6, 158, 20),
        (b"part7", 7, 198, 30),
    ]
    assert [v.index for v in table.volumes if v.reserved] == [2, 6]
    assert table.notes == []


async def test_uuids_are_the_disk_signature_and_the_number() -> None:
    table = await table_of(logical_disk())
    assert table.uuid == "e027e467"
    assert [volume.uuid for volume in table.volumes][-1] == "e027e467-07"


async def test_a_disk_without_a_signature_has_no_uuids() -> None:
    table = await table_of(disk(64, (0, record(slot(0x83, 8, 16)))))
    assert (table.uuid, table.volumes[0].uuid) == ("", "")


async def test_types_have_names_and_codes() -> None:
    table = await table_of(disk(64, (0, record(slot(0x83, 8, 16), slot(0x5C, 24, 8)))))
    assert [(v.type_name, v.type_code) for v in table.volumes] == [
        ("Linux filesystem", "0x83"),
        ("", "0x5c"),
    ]


async def test_an_empty_record_in_the_chain_takes_no_number() -> None:
    table = await table_of(
        disk(
            400,
            (0, record(slot(0x05, 100, 200))),
            (100, record(UNUSED, slot(0x05, 50, 40))),
            (150, record(slot(0x83, 8, 20))),
        )
    )
    assert places(table) == [(b"part1", 1, 100, 200), (b"part5", 5, 158, 20)]


async def test_garbage_in_the_last_slots_of_a_chained_record_is_ignored() -> None:
    garbage = b"\xf4" * 16
    table = await table_of(
        disk(
            400,
            (0, record(slot(0x05, 100, 200))),
            (100, record(slot(0x83, 8, 20), UNUSED, garbage, garbage)),
        )
    )
    assert places(table)[1:] == [(b"part5", 5, 108, 20)]


async def test_a_second_extended_partition_counts_on() -> None:
    table = await table_of(
        disk(
            400,
            (0, record(slot(0x05, 100, 100), slot(0x05, 200, 100))),
            (100, record(slot(0x83, 8, 20))),
            (200, record(slot(0x83, 8, 20))),
        )
    )
    assert places(table)[2:] == [(b"part5", 5, 108, 20), (b"part6", 6, 208, 20)]


@pytest.mark.parametrize("target", [0, 50])
async def test_a_circle_of_logical_partitions_ends(target: int) -> None:
    link = slot(0x05, target, 40) if target else slot(0x05, 400, 40)
    table = await table_of(
        disk(
            600,
            (0, record(slot(0x05, 100, 500))),
            (100, record(slot(0x83, 8, 20), slot(0x05, 50, 40))),
            (150, record(slot(0x83, 8, 20), link)),
            (500, record(UNUSED, slot(0x05, 50, 40))),
        )
    )
    assert [volume.index for volume in table.volumes] == [1, 5, 6]
    assert "circle" in table.notes[0]


async def test_a_chain_without_end_is_cut() -> None:
    links = [(100 + n, record(slot(0x83, 1, 1), slot(0x05, n + 1, 2))) for n in range(1000)]
    table = await table_of(disk(1200, (0, record(slot(0x05, 100, 1100))), *links))
    assert len(table.volumes) == 1 + 256
    assert "over 256" in table.notes[0]


@pytest.mark.parametrize("first", [50, 1_000_000])
async def test_a_chain_that_ends_in_nothing_is_noted(first: int) -> None:
    table = await table_of(
        disk(
            400,
            (0, record(slot(0x05, 100, 200))),
            (100, record(slot(0x83, 8, 20), slot(0x05, first, 40))),
        )
    )
    assert [volume.index for volume in table.volumes] == [1, 5]
    assert f"sector {100 + first}" in table.notes[0]


async def test_a_partition_that_leaves_the_disk_does_not_hide_the_others() -> None:
    table = await table_of(
        disk(100, (0, record(slot(0x83, 8, 1000), slot(0x83, 50, 50), slot(0x83, 99, 2))))
    )
    assert [volume.device is None for volume in table.volumes] == [True, False, True]
    assert "leaves the disk" in str(table.volumes[0].error)


async def test_the_whole_of_a_truncated_disk_is_still_a_table() -> None:
    table = await table_of(disk(4, (0, record(slot(0x83, 2048, 1000)))))
    assert [volume.error is not None for volume in table.volumes] == [True]


async def test_overlapping_partitions_are_noted() -> None:
    table = await table_of(disk(100, (0, record(slot(0x83, 8, 20), slot(0x83, 27, 20)))))
    assert table.notes == ["partitions overlap: part1 and part2"]


# --- sector sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "magic"),
    [
        (1080, b"\x53\xef"),
        (510, b"\x55\xaa"),
        (0, b"XFSB"),
        (65600, b"_BHRfS_M"),
        (4086, b"SWAPSPACE2"),
    ],
)
async def test_sectors_of_4096_are_told_by_what_starts_there(offset: int, magic: bytes) -> None:
    content = disk(100, (0, record(slot(0x83, 8, 40), slot(0x83, 48, 8))), sector_size=4096)
    table = await table_of(overwrite(content, 8 * 4096 + offset, magic))
    assert table.sector_size == 4096
    assert places(table) == [(b"part1", 1, 8, 40), (b"part2", 2, 48, 8)]


async def test_logical_partitions_with_sectors_of_4096() -> None:
    table = await table_of(logical_disk(sector_size=4096))
    assert table.sector_size == 4096
    assert [volume.index for volume in table.volumes] == [1, 2, 3, 5, 6, 7]


async def test_sectors_are_512_bytes_where_nothing_tells() -> None:
    content = disk(100, (0, record(slot(0x83, 8, 40))), sector_size=4096)
    assert (await table_of(content)).sector_size == 512


async def test_sectors_are_512_bytes_where_that_start_is_known_too() -> None:
    content = disk(100, (0, record(slot(0x83, 8, 40))), sector_size=4096)
    content = overwrite(content, 8 * 4096 + 1080, b"\x53\xef")
    content = overwrite(content, 8 * 512 + 1080, b"\x53\xef")
    assert (await table_of(content)).sector_size == 512


# --- what only looks like a table -----------------------------------------------------------------


@pytest.mark.parametrize("sector", [fat(12), fat(16), fat(32), ntfs()])
async def test_a_file_system_on_the_whole_disk_is_no_table(sector: bytes) -> None:
    device = MemoryDevice(disk(2000, (0, sector)))
    table = await read_table(device)
    assert table.scheme == "none"
    (whole,) = table.volumes
    assert (whole.name, whole.index, whole.start, whole.device) == (b"", 0, 0, device)


async def test_text_in_the_place_of_the_slots_is_no_table() -> None:
    text = b"NTLDR is missing\xff\r\nPress Ctrl+Alt+Del to restart\r\n".ljust(64, b"\0")
    content = overwrite(disk(2000, (0, ntfs())), 446, text)
    assert await Mbr.read_table(MemoryDevice(content)) is None


async def test_boot_code_without_any_header_is_no_table() -> None:
    """Such as a boot loader of an ext4 on the whole disk: nothing but the slots tells."""
    code = bytearray(disk(2000, (0, bytes(range(1, 256)) * 2 + b"\x55\xaa"))[:512])
    code[510:512] = b"\x55\xaa"
    for number in range(4):
        almost = bytearray(code)
        for other in range(4):
            almost[446 + 16 * other] = 0x7F if other == number else 0x80
        content = disk(2000, (0, bytes(almost)))
        assert await Mbr.read_table(MemoryDevice(content)) is None


async def test_boot_code_that_could_be_slots_is_no_table_behind_a_fat_header() -> None:
    content = disk(2000, (0, overwrite(fat(16), 446, slot(0x4D, 0x20656854, 0x6B736964))))
    assert await Mbr.read_table(MemoryDevice(content)) is None


async def test_a_disk_that_was_a_fat_once_and_is_partitioned_now_has_a_table() -> None:
    content = disk(2000, (0, record(slot(0x83, 8, 40), slot(0x83, 48, 8), code=fat(16))))
    assert places(await table_of(content)) == [(b"part1", 1, 8, 40), (b"part2", 2, 48, 8)]


async def test_a_boot_record_without_partitions_is_no_table() -> None:
    assert await Mbr.read_table(MemoryDevice(disk(100, (0, record())))) is None


async def test_a_gpt_disk_is_no_mbr_disk() -> None:
    assert await Mbr.read_table(MemoryDevice(disk(100, (0, PROTECTIVE)))) is None


async def test_a_dynamic_disk_is_no_mbr_disk() -> None:
    record_of_one = record(slot(0x42, 63, 100))
    dynamic = disk(200, (0, record_of_one), (6, ldm_private_header()))
    assert await Mbr.read_table(MemoryDevice(dynamic)) is None
    assert places(await table_of(disk(200, (0, record_of_one)))) == [(b"part1", 1, 63, 100)]
