"""Partition tables written by sgdisk, sfdisk, parted and fdisk; expected: sfdisk, partx, sgdisk."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from restorefs.block.file import FileDevice
from restorefs.volumes.base import VolumeTable
from restorefs.volumes.partition_types import GPT_TYPES, MBR_TYPES
from restorefs.volumes.registry import read_table
from tests.contracts.volumes import check_table
from tests.tools import require, require_root, run

SIZE = 64 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, SIZE)
    return path


@contextmanager
def disk_with_sectors(image: Path, sector_size: int) -> Iterator[str]:
    """Attach an image as a disk with sectors of this size, writable; yields what to write to."""
    if sector_size == 512:
        yield str(image)
        return
    require_root()
    require("losetup")
    device = run("losetup", "--find", "--show", "--sector-size", str(sector_size), image).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


async def table_of(image: Path) -> VolumeTable:
    with FileDevice(image) as device:
        table = await read_table(device)
        if table.scheme != "none":
            await check_table(table, device)
        return table


def shown_by_partx(image: Path, sector_size: int) -> list[tuple[int, int, int, str, str, str]]:
    """Number, first byte, size, label, UUID and type of each partition."""
    columns = "NR,START,SECTORS,NAME,UUID,TYPE"
    lines = run(
        *("partx", "--pairs", "--output", columns, "--sector-size", str(sector_size)),
        image,
    ).splitlines()
    found = []
    for line in lines:
        row = dict(pair.split("=", 1) for pair in shlex.split(line))
        name = re.sub(rb"\\x(..)", lambda m: bytes.fromhex(m[1].decode()), row["NAME"].encode())
        number, start, sectors = (int(row[key]) for key in ("NR", "START", "SECTORS"))
        kind = row["TYPE"]
        kind = f"0x{int(kind, 16):02x}" if kind.startswith("0x") else kind.upper()
        found.append((number, start * 512, sectors * 512, name.decode(), row["UUID"], kind))
    return found


def read_by_us(table: VolumeTable) -> list[tuple[int, int, int, str, str, str]]:
    found = []
    for volume in table.volumes:
        assert volume.device is not None
        assert volume.start is not None
        assert volume.name == b"part%d" % volume.index
        found.append(
            (
                volume.index,
                volume.start,
                volume.device.size,
                volume.label,
                volume.uuid,
                volume.type_code,
            )
        )
    return found


async def compare(image: Path, sector_size: int = 512) -> VolumeTable:
    """Read a table; it must be what partx shows, but for the length of an extended partition.

    Linux gives that one two sectors, so that nobody takes it for a disk.
    """
    table = await table_of(image)
    assert table.sector_size == sector_size
    extended = {v.index for v in table.volumes if v.type_code in ("0x05", "0x0f", "0x85")}
    shown = sorted(row for row in shown_by_partx(image, sector_size) if row[0] not in extended)
    ours = sorted(row for row in read_by_us(table) if row[0] not in extended)
    assert ours == shown
    assert len(ours) >= 2
    return table


# --- GPT ------------------------------------------------------------------------------------------


def write_gpt(disk: str, *more: str) -> None:
    """Partitions 1, 3 and 5, the last one up to the last usable sector; 2 and 4 are missing."""
    run(
        "sgdisk",
        *("--new=1:0:+8M", "--typecode=1:ef00", "--change-name=1:EFI system"),
        *("--new=3:0:+4M", "--typecode=3:8200", "--change-name=3:swäp ☃"),
        *("--new=5:0:0", "--typecode=5:8300", *more),
        disk,
    )


@pytest.mark.parametrize("sector_size", [512, 4096])
async def test_gpt_by_sgdisk(image: Path, sector_size: int) -> None:
    require("sgdisk", "sfdisk", "partx")
    with disk_with_sectors(image, sector_size) as disk:
        write_gpt(disk)
        told = json.loads(run("sfdisk", "--json", disk))["partitiontable"]
        last = int(re.search(r"Last sector: (\d+)", run("sgdisk", "--info=5", disk))[1])  # type: ignore[index]
    table = await compare(image, sector_size)
    assert table.scheme == "gpt"
    assert table.notes == []
    assert table.uuid == told["id"].lower()
    assert [volume.reserved for volume in table.volumes] == [False, True, False]
    by_sfdisk = [(p["start"] * sector_size, p["size"] * sector_size) for p in told["partitions"]]
    assert [row[1:3] for row in read_by_us(table)] == by_sfdisk
    _, start, size, *_ = read_by_us(table)[-1]
    assert start + size == (last + 1) * sector_size


@pytest.mark.parametrize("sector_size", [512, 4096])
async def test_the_backup_gpt_when_the_first_is_destroyed(image: Path, sector_size: int) -> None:
    require("sgdisk", "partx")
    with disk_with_sectors(image, sector_size) as disk:
        write_gpt(disk)
    sound = read_by_us(await table_of(image))
    with image.open("r+b") as file:
        file.seek(sector_size)
        file.write(bytes(sector_size))
    table = await table_of(image)
    assert read_by_us(table) == sound == shown_by_partx(image, sector_size)
    assert "backup" in table.notes[0]


async def test_the_backup_gpt_of_a_disk_that_has_grown(image: Path) -> None:
    require("sgdisk", "partx")
    write_gpt(str(image))
    sound = shown_by_partx(image, 512)
    os.truncate(image, 2 * SIZE)
    assert read_by_us(await table_of(image)) == sound
    with image.open("r+b") as file:
        file.seek(1024)  # the entries, so that only the header still says where the backup is
        file.write(b"X")
    table = await table_of(image)
    assert read_by_us(table) == sound
    assert f"LBA {SIZE // 512 - 1}" in table.notes[0]


async def test_gpt_with_more_entries_than_usual(image: Path) -> None:
    require("sgdisk", "partx")
    run("sgdisk", "--resize-table=256", image)
    run("sgdisk", "--new=1:4096:+1M", "--new=200:0:+1M", "--new=256:0:+1M", image)
    table = await compare(image)
    assert [volume.index for volume in table.volumes] == [1, 200, 256]


async def test_hybrid_mbr_by_sgdisk(image: Path) -> None:
    require("sgdisk", "partx")
    write_gpt(str(image))
    run("sgdisk", "--hybrid=1:5", image)
    table = await table_of(image)
    assert (table.scheme, [volume.index for volume in table.volumes]) == ("gpt", [1, 3, 5])
    assert "hybrid" in table.notes[0]


async def test_a_gpt_disk_turned_into_an_mbr_disk_by_sgdisk(image: Path) -> None:
    require("sgdisk", "partx")
    write_gpt(str(image))
    run("sgdisk", "--gpttombr=1:3:5", image)
    assert (await compare(image)).scheme == "mbr"


# --- MBR ------------------------------------------------------------------------------------------

PRIMARY_AND_LOGICAL = """label: dos
unit: sectors
1 : start={mib}, size={mib8}, type=83, bootable
3 : start={mib40}, size={mib8}, type=7
4 : start={mib9}, size={mib30}, type={extended}
5 : start={mib10}, size={mib2}, type=83
6 : start={mib15}, size={mib3}, type=82
7 : start={mib20}, size={mib4}, type=8e
"""


def write_mbr(disk: str, extended: str, sector_size: int = 512) -> None:
    def sectors(mib: int) -> int:
        return (mib << 20) // sector_size

    numbers = {f"mib{n}": sectors(n) for n in (2, 3, 4, 8, 9, 10, 15, 20, 30, 40)}
    script = PRIMARY_AND_LOGICAL.format(mib=sectors(1), extended=extended, **numbers)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, input=script)


@pytest.mark.parametrize("extended", ["5", "f", "85"])
async def test_mbr_by_sfdisk(image: Path, extended: str) -> None:
    require("sfdisk", "partx")
    write_mbr(str(image), extended)
    told = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    table = await compare(image)
    assert (table.scheme, table.notes) == ("mbr", [])
    assert table.uuid == told["id"].removeprefix("0x")
    rows = {row[0]: row for row in read_by_us(table)}
    for partition in told["partitions"]:  # the extended one among them
        number = int(re.search(r"(\d+)$", partition["node"])[1])  # type: ignore[index]
        assert rows[number][1:3] == (partition["start"] * 512, partition["size"] * 512)


async def test_mbr_with_sectors_of_4096(image: Path) -> None:
    require("sfdisk", "partx", "mkfs.ext4")
    with disk_with_sectors(image, 4096) as disk:
        write_mbr(disk, "5", 4096)
    run("mkfs.ext4", "-q", "-E", f"offset={1 << 20}", image, "8M")
    await compare(image, 4096)


async def test_mbr_by_parted(image: Path) -> None:
    require("parted", "partx")
    run(
        *("parted", "--script", image, "mklabel", "msdos"),
        *("mkpart", "primary", "ext4", "1MiB", "8MiB"),
        *("mkpart", "extended", "8MiB", "60MiB"),
        *("mkpart", "logical", "9MiB", "20MiB", "mkpart", "logical", "21MiB", "30MiB"),
        *("mkpart", "logical", "31MiB", "40MiB", "mkpart", "primary", "60MiB", "63MiB"),
        *("rm", "6"),
    )
    table = await compare(image)
    assert [volume.index for volume in table.volumes] == [1, 2, 3, 5, 6]


async def test_an_empty_extended_partition(image: Path) -> None:
    require("parted")
    run("parted", "--script", image, "mklabel", "msdos", "mkpart", "extended", "1MiB", "60MiB")
    table = await table_of(image)
    assert [(volume.index, volume.reserved) for volume in table.volumes] == [(1, True)]


async def test_a_disk_without_a_signature_has_no_uuids(image: Path) -> None:
    require("sfdisk", "partx")
    run("sfdisk", "--quiet", image, input="label: dos\nlabel-id: 0x0\n,8M\n,8M\n")
    table = await compare(image)
    assert {volume.uuid for volume in table.volumes} == {""}


# --- no table -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mkfs",
    [
        ("mkfs.fat", "-F", "12"),
        ("mkfs.fat", "-F", "16"),
        ("mkfs.fat", "-F", "32"),
        ("mkfs.exfat",),
        ("mkfs.ntfs", "-F", "-Q"),
        ("mkfs.ext4", "-q"),
        ("mkfs.btrfs", "-q", "-M"),
        ("mkswap",),
    ],
    ids=lambda mkfs: " ".join(mkfs),
)
@pytest.mark.parametrize("before", ["nothing", "gpt", "mbr"])
async def test_a_file_system_on_the_whole_disk(
    image: Path, mkfs: tuple[str, ...], before: str
) -> None:
    require(mkfs[0], "sgdisk", "sfdisk")
    if before == "gpt":
        write_gpt(str(image))
    elif before == "mbr":
        write_mbr(str(image), "5")
    force = {"mkfs.fat": ["-I"], "mkfs.ext4": ["-F"], "mkfs.btrfs": ["-f"], "mkswap": ["--force"]}
    run(*mkfs, *force.get(mkfs[0], []), image)
    table = await table_of(image)
    (whole,) = table.volumes
    assert (table.scheme, whole.name, whole.index) == ("none", b"", 0)
    assert whole.device is not None
    assert whole.device.size == SIZE


# --- the names of types ---------------------------------------------------------------------------


def test_gpt_types_are_known_elsewhere() -> None:
    require("sfdisk")
    lines = run("sfdisk", "--label", "gpt", "--list-types").splitlines()
    known = {line.split()[0].upper() for line in lines if re.match("[0-9a-fA-F]{8}-", line)}
    assert len(known) > 100
    # In the Discoverable Partitions Specification, but not in this list.
    others = {"7FFEC5C9-2D00-49B7-8941-3EA10A5586B7", "CA7D7CCB-63ED-4C53-861C-1742536059CC"}
    assert set(GPT_TYPES) - known <= others


def test_mbr_types_are_known_elsewhere() -> None:
    require("sfdisk")
    lines = run("sfdisk", "--label", "dos", "--list-types").splitlines()
    known = {int(line.split()[0], 16) for line in lines if re.match(" ?[0-9a-f]{1,2} ", line)}
    assert len(known) > 80
    assert set(MBR_TYPES) <= known | {0x42}  # an old Linux name there, Microsoft's here
