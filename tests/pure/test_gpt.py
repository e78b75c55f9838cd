import struct
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.volumes.base import VolumeTable
from restorefs.volumes.gpt import Gpt
from restorefs.volumes.registry import read_table
from tests.contracts.devices import MemoryDevice
from tests.contracts.volumes import VolumeSchemeContract, check_table
from tests.images import tables
from tests.images.signatures import fat
from tests.images.tables import DISK_ID, MSR, PROTECTIVE, entry, overwrite, record, slot

SLOTS = [entry(40, 49, identity=1), b"", entry(50, 99, identity=3)]


async def table_of(content: bytes) -> VolumeTable:
    device = MemoryDevice(content)
    table = await Gpt.read_table(device)
    assert table is not None
    await check_table(table, device)
    return table


def places(table: VolumeTable) -> list[tuple[int, int | None, int | None]]:
    """Number, first sector and number of sectors of each volume."""
    size = table.sector_size
    return [
        (
            volume.index,
            None if volume.start is None else volume.start // size,
            None if volume.device is None else volume.device.size // size,
        )
        for volume in table.volumes
    ]


PLACES = [(1, 40, 10), (3, 50, 50)]


class TestGptContract(VolumeSchemeContract):
    scheme = Gpt

    @staticmethod
    def disks() -> Sequence[bytes]:
        return [
            tables.Gpt(200, SLOTS).build(),
            tables.Gpt(200, SLOTS, sector_size=4096).build(),
            tables.Gpt(300, SLOTS, entry_size=256, entries=16).build(),
        ]


# --- wrong answers that were seen elsewhere -------------------------------------------------------


async def test_no_partition_is_one_sector_short() -> None:
    """The last LBA of an entry is the last sector of the partition, not the one behind it."""
    content = tables.Gpt(200, [entry(40, 49)]).build()
    content = overwrite(content, 49 * 512, b"last".ljust(512, b"!"))
    (volume,) = (await table_of(content)).volumes
    assert volume.device is not None
    assert volume.device.size == 10 * 512
    assert await volume.device.read(9 * 512, 512) == b"last".ljust(512, b"!")


@pytest.mark.parametrize(
    ("offset", "garbage"),
    [
        (512, bytes(512)),  # gone
        (512, b"X"),  # no signature
        (512 + 16, b"XXXX"),  # wrong checksum of the header
        (512 + 72, bytes(8)),  # wrong place of the entries
        (1024, b"X"),  # wrong checksum of the entries
    ],
)
async def test_the_backup_table_is_used(offset: int, garbage: bytes) -> None:
    content = overwrite(tables.Gpt(200, SLOTS).build(), offset, garbage)
    table = await table_of(content)
    assert places(table) == PLACES
    assert "backup table at LBA 199 is used" in table.notes[0]


# --- which copy -----------------------------------------------------------------------------------


async def test_a_sound_disk() -> None:
    table = await table_of(tables.Gpt(200, SLOTS).build())
    assert places(table) == PLACES
    assert (table.scheme, table.sector_size, table.uuid) == ("gpt", 512, str(DISK_ID))
    assert table.notes == []
    assert [v.name for v in table.volumes] == [b"part1", b"part3"]
    assert [v.uuid for v in table.volumes] == [str(UUID(int=1)), str(UUID(int=3))]


async def test_a_grown_disk_has_its_backup_where_the_primary_says() -> None:
    content = tables.Gpt(400, SLOTS, backup_lba=199).build()
    assert places(await table_of(content)) == PLACES
    table = await table_of(overwrite(content, 1024, b"X"))
    assert places(table) == PLACES
    assert "LBA 199" in table.notes[0]


async def test_both_copies_damaged() -> None:
    content = overwrite(tables.Gpt(200, SLOTS).build(), 512 + 16, b"XXXX")
    content = overwrite(content, 199 * 512 + 16, b"XXXX")
    with pytest.raises(DamagedError, match=r"primary GPT damaged: .*backup GPT at LBA 199 damaged"):
        await Gpt.read_table(MemoryDevice(content))


async def test_a_protective_mbr_without_any_gpt_is_damaged() -> None:
    with pytest.raises(DamagedError, match="primary GPT missing"):
        await Gpt.read_table(MemoryDevice(tables.disk(100, (0, PROTECTIVE))))


async def test_a_disk_that_lost_its_end() -> None:
    content = tables.Gpt(200, SLOTS).build()[: 90 * 512]
    table = await table_of(content)
    assert places(table) == [(1, 40, 10), (3, 50, None)]
    assert "leaves the disk" in str(table.volumes[1].error)


# --- MBRs before it -------------------------------------------------------------------------------


async def test_a_leftover_backup_alone_is_no_table() -> None:
    """Formatting a whole disk wipes its start, and leaves the backup at its end."""
    content = overwrite(tables.Gpt(200, SLOTS).build(), 0, bytes(40 * 512))
    assert (await read_table(MemoryDevice(content))).scheme == "none"


async def test_an_mbr_without_a_protective_partition_wins_over_a_leftover_gpt() -> None:
    content = tables.Gpt(200, SLOTS, mbr=record(slot(0x83, 60, 30))).build()
    table = await read_table(MemoryDevice(content))
    assert (table.scheme, len(table.volumes)) == ("mbr", 1)


async def test_a_file_system_wins_over_a_leftover_gpt() -> None:
    content = tables.Gpt(2000, SLOTS, mbr=fat(16)).build()
    assert (await read_table(MemoryDevice(content))).scheme == "none"


async def test_a_gpt_whose_protective_mbr_is_lost() -> None:
    table = await table_of(tables.Gpt(200, SLOTS, mbr=bytes(512)).build())
    assert places(table) == PLACES
    assert table.notes == ["there is no protective MBR"]


async def test_a_hybrid_mbr() -> None:
    mbr = record(slot(0xEE, 1, 39), slot(0x83, 40, 10, 0x80))
    table = await read_table(MemoryDevice(tables.Gpt(200, SLOTS, mbr=mbr).build()))
    assert table.scheme == "gpt"
    assert places(table) == PLACES
    assert "hybrid" in table.notes[0]


async def test_a_protective_mbr_that_kept_the_header_of_a_fat() -> None:
    mbr = record(slot(0xEE, 1, 0xFFFFFFFF), code=fat(16))
    table = await table_of(tables.Gpt(200, SLOTS, mbr=mbr).build())
    assert places(table) == PLACES
    assert table.notes == []


# --- headers and entries --------------------------------------------------------------------------


async def test_sectors_of_4096_bytes() -> None:
    content = tables.Gpt(200, SLOTS, sector_size=4096).build()
    table = await table_of(content)
    assert table.sector_size == 4096
    assert places(table) == PLACES
    backup = await table_of(overwrite(content, 4096, bytes(4096)))
    assert (backup.sector_size, places(backup)) == (4096, PLACES)


@pytest.mark.parametrize(("entry_size", "entries"), [(256, 16), (512, 8), (128, 4), (136, 5)])
async def test_entries_of_other_sizes_and_numbers(entry_size: int, entries: int) -> None:
    content = tables.Gpt(200, SLOTS, entry_size=entry_size, entries=entries).build()
    assert places(await table_of(content)) == PLACES


@pytest.mark.parametrize(
    "claims",
    [
        {"claimed_entries": 0xFFFFFFFF},
        {"claimed_entries": 0xFFFFFFFF, "claimed_entry_size": 0x80000000},
        {"claimed_entry_size": 64},
        {"claimed_entry_size": 129},
        {"claimed_header_size": 91},
        {"claimed_header_size": 513},
    ],
)
async def test_what_a_header_may_not_claim(claims: dict[str, int]) -> None:
    content = tables.Gpt(200, SLOTS, **claims).build()  # type: ignore[arg-type]
    with pytest.raises(DamagedError, match="claims"):
        await Gpt.read_table(MemoryDevice(content))


async def test_a_header_larger_than_usual_is_covered_by_its_checksum() -> None:
    content = tables.Gpt(200, SLOTS, claimed_header_size=512).build()
    assert (await table_of(content)).notes == []
    assert "backup" in (await table_of(overwrite(content, 512 + 500, b"X"))).notes[0]


async def test_a_header_that_belongs_elsewhere() -> None:
    sound = tables.Gpt(200, SLOTS)
    content = overwrite(sound.build(), 512, sound.header(199, 1, 2))
    assert "belongs to LBA 199" in (await table_of(content)).notes[0]


async def test_types_labels_and_reserved_partitions() -> None:
    unknown = UUID("12345678-1234-5678-9abc-def012345678")
    slots = [
        entry(40, 49, MSR, "reservé".encode("utf-16-le")),
        entry(50, 59, unknown, ("x" * 36).encode("utf-16-le")),
        entry(60, 69, name=b"\x00\xd8" + "after".encode("utf-16-le")),
    ]
    volumes = (await table_of(tables.Gpt(200, slots).build())).volumes
    assert [(v.type_name, v.type_code, v.label, v.reserved) for v in volumes] == [
        ("Microsoft reserved", str(MSR).upper(), "reservé", True),
        ("", str(unknown).upper(), "x" * 36, False),
        ("Linux filesystem", str(tables.LINUX).upper(), "�after", False),
    ]


@pytest.mark.parametrize(
    ("first", "last"), [(60, 59), (60, 0), (60, 200), (200, 300), (0, 2**64 - 1), (2**64 - 1, 0)]
)
async def test_a_partition_that_cannot_be_does_not_hide_the_others(first: int, last: int) -> None:
    content = tables.Gpt(200, [entry(first, last), entry(50, 99)]).build()
    table = await table_of(content)
    assert [volume.error is None for volume in table.volumes] == [False, True]


async def test_a_partition_up_to_the_last_sector() -> None:
    content = tables.Gpt(200, [entry(50, 199)]).build()
    assert places(await table_of(content)) == [(1, 50, 150)]


async def test_overlapping_partitions_are_noted_but_briefly() -> None:
    two = await table_of(tables.Gpt(200, [entry(50, 99), entry(40, 50)]).build())
    assert two.notes == ["partitions overlap: part2 and part1"]
    assert len(two.volumes) == 2
    many = await table_of(tables.Gpt(200, [entry(50, 99)] * 100).build())
    assert "and 91 more" in many.notes[0]


async def test_the_signature_alone_does_not_decide_the_sector_size() -> None:
    """An old header at the other size's place is no second table."""
    content = tables.Gpt(200, SLOTS, sector_size=4096).build()
    stale = struct.pack("<8sII", b"EFI PART", 0x00010000, 92)
    table = await table_of(overwrite(content, 512, stale))
    assert (table.sector_size, places(table)) == (4096, PLACES)


LBAS = st.integers(0, 2**64 - 1) | st.integers(0, 200)


@given(entries=st.lists(st.tuples(LBAS, LBAS, st.binary(max_size=72)), max_size=8))
@settings(max_examples=100)
async def test_whatever_entries_with_right_checksums_say(
    entries: list[tuple[int, int, bytes]],
) -> None:
    slots = [entry(first, last, name=name) for first, last, name in entries]
    table = await table_of(tables.Gpt(200, slots).build())
    assert len(table.volumes) == len(entries)
