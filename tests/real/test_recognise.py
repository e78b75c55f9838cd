"""File systems made by their own tools; expected: what blkid says of the same bytes.

And blkid about the volumes built by hand, so that they are what they claim to be.
"""

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from restorefs.block.file import FileDevice
from restorefs.guestfs.base import Identity
from restorefs.guestfs.registry import identify
from restorefs.volumes.registry import read_table
from tests.images.signatures import SAMPLES, Sample
from tests.tools import loop_device, require, run

MIB = 1 << 20

Maker: TypeAlias = Callable[[Path], object]


@dataclass(frozen=True)
class Made:
    """A volume of `mib` MiB that programs make.

    arguments: of the program, the image comes last. untold: what blkid reads from further inside
    of the volume, and recognition leaves to a reader.
    """

    program: str
    arguments: tuple[str, ...] = ()
    mib: int = 64
    name: str = ""
    untold: frozenset[str] = field(default_factory=frozenset)
    answer: str = ""

    @property
    def title(self) -> str:
        return self.name or " ".join((self.program, *self.arguments))


LABEL = frozenset({"LABEL"})
UUID = frozenset({"UUID"})

LUKS = ("luksFormat", "--batch-mode", "--pbkdf-force-iterations=1000", "--key-file=-")

BY_ONE_PROGRAM = (
    Made("mkfs.ntfs", ("--force", "--quick", "--label", "NtLabel"), 8),
    Made("mkfs.fat", ("-F", "12", "-n", "TWELVE"), 2),
    Made("mkfs.fat", ("-F", "16", "-n", "SIXTEEN")),
    Made("mkfs.fat", ("-F", "32", "-n", "THIRTY2")),
    Made("mkfs.fat", ("-F", "32")),
    Made("mkfs.fat", ("-F", "32", "-S", "4096", "-n", "FAT4K"), 320),
    Made("mkfs.fat", ("-F", "16", "-s", "64", "-f", "1"), 256),
    Made("mkfs.exfat", ("-L", "ExLabel"), 16),
    Made("mkfs.xfs", ("-q", "-L", "xfslabel"), 300),
    Made("mkfs.xfs", ("-q", "-b", "size=1024", "-m", "crc=0"), 300),
    Made("mkfs.btrfs", ("-q", "-L", "btrfs label"), 128),
    Made("mkfs.ext2", ("-q", "-L", "ext label"), 8),
    Made("mkfs.ext4", ("-q", "-L", "ext label"), 8),
    Made("cryptsetup", (*LUKS, "--type=luks1"), 8, answer="pw"),
    Made("cryptsetup", (*LUKS, "--type=luks2", "--pbkdf=pbkdf2", "--label=l"), 32, answer="pw"),
    Made("mkswap", ("--label", "swaplabel"), 1),
    Made("mkswap", ("--label", "swaplabel", "--pagesize", "65536"), 2),
    Made("mkfs.f2fs", ("-q", "-l", "f2label")),
    Made("mkudffs", ("-b", "512", "--media-type=hd", "-l", "label"), 8, untold=LABEL | UUID),
    Made("mkudffs", ("-b", "4096", "--media-type=hd", "-l", "label"), untold=LABEL | UUID),
    Made("mkudffs", ("-b", "2048", "-l", "label"), untold=LABEL | UUID),
    Made("make-bcache", ("-B",), 8),
    Made("make-bcache", ("-C",), 128),
    Made("mkfs.reiserfs", ("-q", "-f", "-f", "-l", "reislabel")),
    Made("mkfs.jfs", ("-q", "-L", "jfslabel"), 16),
    Made("mkfs.nilfs2", ("-q", "-L", "nilfslabel"), 160),
    Made("mkapfs", ("-L", "apfslabel"), 600),
)


def told_by_blkid(path: Path) -> dict[str, str]:
    """TYPE, LABEL and UUID, as far as blkid sees them."""
    lines = run("blkid", "--probe", "--output", "export", path).splitlines()
    pairs = (line.split("=", 1) for line in lines)
    return {key: "".join(shlex.split(value)) for key, value in pairs}


async def identity_of(path: Path) -> Identity:
    with FileDevice(path) as device:
        table = await read_table(device)
        assert table.scheme == "none"
        identity = await identify(device)
    assert identity is not None
    return identity


async def compare(path: Path, untold: frozenset[str] = frozenset()) -> Identity:
    told = told_by_blkid(path)
    identity = await identity_of(path)
    ours = {"TYPE": identity.kind, "LABEL": identity.label, "UUID": identity.uuid}
    for key, value in ours.items():
        assert value == ("" if key in untold else told.get(key, "")), key
    return identity


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "volume.img"


@pytest.mark.parametrize("made", BY_ONE_PROGRAM, ids=lambda made: made.title)
async def test_what_one_program_makes(image: Path, made: Made) -> None:
    require(made.program, "blkid")
    image.touch()
    os.truncate(image, made.mib * MIB)
    run(made.program, *made.arguments, image, input=made.answer)
    identity = await compare(image, made.untold)
    assert identity.holds_files == (identity.kind != "swap")
    assert identity.encrypted == (identity.kind == "crypto_LUKS")
    if identity.size is not None:
        assert made.mib * MIB * 9 // 10 < identity.size <= made.mib * MIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.mkdir()
    (path / "file").write_text("content\n")
    return path


@pytest.mark.parametrize(
    ("command", "untold"),
    [
        (("genisoimage", "-quiet", "-V", "ISOLABEL", "-o", "IMAGE", "FOLDER"), UUID),
        (("genisoimage", "-quiet", "-udf", "-V", "B", "-o", "IMAGE", "FOLDER"), LABEL | UUID),
        (("mksquashfs", "FOLDER", "IMAGE", "-quiet", "-no-progress"), frozenset()),
        (("mkfs.erofs", "--quiet", "IMAGE", "FOLDER"), frozenset()),
        (("makefs", "-t", "ffs", "-s", "4m", "-o", "version=1", "IMAGE", "FOLDER"), frozenset()),
        (("makefs", "-t", "ffs", "-s", "4m", "-o", "version=2", "IMAGE", "FOLDER"), frozenset()),
        (
            ("makefs", "-t", "ffs", "-B", "big", "-s", "4m", "-o", "version=2", "IMAGE", "FOLDER"),
            frozenset(),
        ),
    ],
    ids=lambda command: " ".join(command) if isinstance(command, tuple) else "",
)
async def test_what_a_program_makes_of_a_folder(
    image: Path, folder: Path, command: tuple[str, ...], untold: frozenset[str]
) -> None:
    require(command[0], "blkid")
    names = {"IMAGE": image, "FOLDER": folder}
    run(*(names.get(word, word) for word in command))
    await compare(image, untold)


async def test_an_lvm_physical_volume(image: Path) -> None:
    require("pvcreate", "blkid")
    image.touch()
    os.truncate(image, 16 * MIB)
    with loop_device(image, writable=True) as device:
        run("pvcreate", "--quiet", "--config", "devices{use_devicesfile=0}", device)
    assert (await compare(image)).kind == "LVM2_member"


@pytest.mark.parametrize("version", ["v08", "v09"])
async def test_a_drbd_device(image: Path, version: str) -> None:
    require("drbdmeta", "blkid")
    image.touch()
    os.truncate(image, 16 * MIB)
    peers = ("1",) if version == "v09" else ()
    with loop_device(image, writable=True) as device:
        run("drbdmeta", "--force", "-", version, device, "internal", "create-md", *peers)
    assert (await compare(image)).kind == "drbd"


async def test_the_partitions_of_a_disk(image: Path) -> None:
    require("sgdisk", "mkfs.fat", "mkfs.ext4", "mkfs.xfs", "blkid")
    image.touch()
    os.truncate(image, 512 * MIB)
    run("sgdisk", "--new=1:1M:+64M", "--new=2:0:+32M", "--new=4:0:+320M", "--new=5:0:0", image)
    run("mkfs.fat", "-F", "32", "-n", "EFI", "--offset", "2048", image, str(64 * 1024))
    run("mkfs.ext4", "-q", "-L", "boot", "-E", f"offset={65 * MIB}", image, "32M")
    with loop_device(image, writable=True, offset=97 * MIB, size=320 * MIB) as device:
        run("mkfs.xfs", "-q", "-L", "data", device)
    found = {}
    with FileDevice(image) as disk:
        for volume in (await read_table(disk)).volumes:
            assert volume.device is not None
            identity = await identify(volume.device)
            if identity is None:
                found[volume.name] = ""
                continue
            found[volume.name] = identity.kind
            window = ("--offset", str(volume.start), "--size", str(volume.device.size))
            told = run("blkid", "--probe", *window, "--output", "export", image)
            for key, value in (
                ("TYPE", identity.kind),
                ("LABEL", identity.label),
                ("UUID", identity.uuid),
            ):
                assert f"{key}={value}\n" in told
    assert found == {b"part1": "vfat", b"part2": "ext4", b"part4": "xfs", b"part5": ""}


FORMATTERS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "jfs": ("mkfs.jfs", "-q"),
    "exfat": ("mkfs.exfat",),
    "vfat": ("mkfs.vfat",),
    "swap": ("mkswap", "-f"),
}


@pytest.mark.parametrize("before", ["ext4", "xfs", "exfat", "vfat", "btrfs"])
async def test_what_was_there_before_is_not_what_is_there_now(before: str, tmp_path: Path) -> None:
    """A format leaves copies of the other's superblocks where it writes nothing itself."""
    require("blkid", *(command[0] for command in FORMATTERS.values()))
    for now, command in FORMATTERS.items():
        if now != before:
            volume = tmp_path / "volume"
            volume.unlink(missing_ok=True)
            with volume.open("wb") as file:
                file.truncate(400 * MIB)
            run(*FORMATTERS[before], volume)
            run(*command, volume)
            identity = await identity_of(volume)
            assert identity.kind == told_by_blkid(volume)["TYPE"] == now


# --- volumes built by hand ------------------------------------------------------------------------


def written(image: Path, sample: Sample) -> Path:
    """Write a sample; to at least 2 MiB, below which blkid takes nothing for a RAID member."""
    image.write_bytes(sample.content)
    os.truncate(image, max(len(sample.content), 2 * MIB))
    return image


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.blkid], ids=lambda sample: sample.name)
def test_blkid_says_the_same_of_what_was_built_by_hand(image: Path, sample: Sample) -> None:
    require("blkid")
    told = told_by_blkid(written(image, sample))
    found = (told["TYPE"], told.get("LABEL", ""), told.get("UUID", ""))
    assert found == (sample.kind, sample.label, sample.uuid)


@pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if s.kind == "linux_raid_member" and ">" not in s.name],
    ids=lambda sample: sample.name,
)
def test_mdadm_takes_what_was_built_by_hand_for_its_own(image: Path, sample: Sample) -> None:
    require("mdadm")
    shown = run("mdadm", "--examine", written(image, sample))
    assert re.search(r"Checksum : \w+ - correct", shown)
    assert f"Version : {sample.name.split()[1]}" in shown
    assert sample.uuid.replace("-", "") in shown.replace(":", "")
