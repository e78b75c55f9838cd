"""A Windows server's disk through the kernel: NTFS, FAT and exFAT as cp, ls and getfattr see them.

What is expected is what was written, by ntfs-3g, mtools and exfat-fuse.
"""
# ruff: noqa: PTH115, PTH208 - system calls

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import exfat, fat, ntfs
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, restorefs, served
from tests.mounted.disks import ESP, MIB, MSR, gpt, qcow2
from tests.mounted.reading import error_of
from tests.tools import require, require_root, run

BACKUP = "backup-files01-1759955071"
BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
LONG = "報告書" * 85  # 255 characters in 765 bytes
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"
STREAM = b"a stream that is too long for an extended attribute\n" * 4000
COMPRESSED = b"2025-10-08 18:24:31 service started\r\n" * 50_000
CREATED, MODIFIED = 133_543_000_001_234_567, 133_543_500_007_654_321  # 100 ns since 1601
EPOCH = 116_444_736_000_000_000  # 1970 in these
NOTES = "Users/anna/Documents/notes.txt"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    require_root()
    require("mkfs.fat", "mkfs.exfat", "mount.exfat-fuse")
    folder = tmp_path_factory.mktemp("windows")
    parts = [folder / name for name in ("efi", "system", "data")]
    _efi(parts[0])
    _system(parts[1])
    _data(parts[2])
    efi, system, data = parts
    table = gpt(
        folder / "disk", (ESP, efi), (MSR, 16 * MIB), (BASIC_DATA, system), (BASIC_DATA, data)
    )
    qcow2(table, folder / "images" / BACKUP / "disk0.qcow2")
    yield folder / "images"
    shutil.rmtree(folder)


def _efi(image: Path) -> None:
    fat.make(image, "-F", "32", "-s", "1", size=48 * MIB)
    fat.mtool("mmd", image, "::/EFI")
    source = image.with_name("bootmgfw.efi")
    source.write_bytes(bytes(range(256)) * 300)
    fat.mtool("mcopy", image, source, "::/EFI/BOOTMGFW.EFI")


def _system(image: Path) -> None:
    ntfs.mkntfs(image, 96 * MIB, label="Windows")
    with ntfs.writable(image, "streams_interface=xattr,compression") as mounted:
        root = Path(os.fsdecode(mounted))
        for name in ("Windows/System32", "Users/anna/Documents", "Logs", "Twice", "Junction"):
            (root / name).mkdir(parents=True)
        notes = root / NOTES
        notes.write_bytes(b"the minutes\r\n")
        notes.with_name(LONG).write_bytes(b"a long name\n")
        (root / "notes again.txt").hardlink_to(notes)
        os.setxattr(notes, "user.Zone.Identifier", ZONE)
        ntfs.set_flags(os.fsencode(notes), 0x22)  # hidden, to be archived
        ntfs.set_flags(os.fsencode(root / "Logs"), 0x810)  # a folder whose new files are compressed
        (root / "Logs/app.log").write_bytes(COMPRESSED)
        for name in ("name", "NAME"):
            (root / "Twice" / name).write_text(name)
        target = ntfs.mount_point("\\??\\C:\\Users", "C:\\Users")
        ntfs.set_reparse(os.fsencode(root / "Junction"), 0xA0000003, target)
    with ntfs.writable(image, "streams_interface=windows") as mounted:
        root = Path(os.fsdecode(mounted))
        (root / f"{NOTES}:large").write_bytes(STREAM)
        ntfs.set_times(os.fsencode(root / NOTES), CREATED, MODIFIED, MODIFIED)


def _data(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    with exfat.loop(image, writable=True) as device:
        run("mkfs.exfat", "-L", "Data", device)
        with exfat.fuse_mount(device, "rw") as root:
            (root / "größe.bin").write_bytes(b"x" * 100_000)


@pytest.fixture(scope="module")
def daemon(repository: Path) -> Iterator[Daemon]:
    with served("--images", repository) as daemon:
        yield daemon


@pytest.fixture
def system(daemon: Daemon) -> Path:
    return daemon.backups / BACKUP / "disk0" / "part3"


def test_all_three_open_as_folders(daemon: Daemon, system: Path) -> None:
    disk = daemon.backups / BACKUP / "disk0"
    assert sorted(os.listdir(disk)) == ["part1", "part3", "part4"]
    assert (disk / "part1/EFI/BOOTMGFW.EFI").read_bytes() == bytes(range(256)) * 300
    assert (disk / "part4/größe.bin").read_bytes() == b"x" * 100_000
    found = {"Windows", "Users", "Logs", "Twice", "Junction", "notes again.txt"}
    assert set(os.listdir(system)) == found
    told = daemon.cli("disks", BACKUP)
    for text in ("ntfs", "vfat", "exfat", "Windows", "A LABEL", "Data"):
        assert text in told.out


def test_names_and_links(system: Path) -> None:
    documents = system / "Users/anna/Documents"
    assert sorted(os.listdir(documents)) == ["notes.txt", LONG]
    assert (documents / LONG).read_bytes() == b"a long name\n"
    assert (system / "users/ANNA/documents/NOTES.TXT").read_bytes() == b"the minutes\r\n"
    assert {name: (system / "Twice" / name).read_text() for name in ("name", "NAME")} == {
        "name": "name",
        "NAME": "NAME",
    }
    assert error_of(os.stat, system / "Twice" / "Name") == "ENOENT", "which of the two?"
    one, other = (documents / "notes.txt").stat(), (system / "notes again.txt").stat()
    assert (one.st_nlink, one.st_ino) == (2, other.st_ino)
    assert os.readlink(system / "Junction") == "Users"
    assert (system / "Junction/anna/Documents/notes.txt").read_bytes() == b"the minutes\r\n"
    assert (system / "$MFT").stat().st_size > 0, "not listed, but there"


def test_attributes_and_streams(system: Path) -> None:
    notes = system / NOTES
    seen = notes.stat()
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o644, 0, 0)
    assert seen.st_mtime_ns == (MODIFIED - EPOCH) * 100
    assert os.getxattr(notes, "system.ntfs_attrib_be") == struct.pack(">I", 0x22)
    assert os.getxattr(notes, "system.ntfs_crtime_be") == struct.pack(">Q", CREATED)
    assert set(os.listxattr(notes)) == {"user.DOSATTRIB", "user.Zone.Identifier"}
    assert os.getxattr(notes, "user.Zone.Identifier") == ZONE
    assert Path(f"{notes}:Zone.Identifier").read_bytes() == ZONE
    assert Path(f"{notes}:large").read_bytes() == STREAM
    assert error_of(os.stat, f"{notes}:no such stream") == "ENOENT"
    assert not [name for name in os.listdir(notes.parent) if ":" in name]


def test_compressed_files_are_copied_whole(system: Path, tmp_path: Path) -> None:
    log = system / "Logs/app.log"
    assert log.stat().st_blocks * 512 < len(COMPRESSED) // 2, "ntfs-3g compressed it"
    run("cp", "-a", log, tmp_path)
    run("rsync", "-aHAX", log, tmp_path / "again")
    assert (tmp_path / "app.log").read_bytes() == (tmp_path / "again").read_bytes() == COMPRESSED
    with log.open("rb") as file:
        for offset in (1, 65_535, 65_536, 1_000_000, len(COMPRESSED) - 10):
            file.seek(offset)
            assert file.read(5000) == COMPRESSED[offset : offset + 5000]


def test_system_files_and_owners_by_wish(serve: Serve, repository: Path) -> None:
    options = ("--show-system-files", "--uid", "1234", "--gid", "5678", "--umask", "077")
    daemon = serve("--images", repository, *options)
    system = daemon.backups / BACKUP / "disk0" / "part3"
    assert {"$MFT", "$Bitmap", "$Secure", "$UpCase", "Windows"} <= set(os.listdir(system))
    seen = (system / NOTES).stat()
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o600, 1234, 5678)
    daemon.check()


def test_a_character_set_that_is_none(repository: Path, tmp_path: Path) -> None:
    done = restorefs("mount", "--images", repository, "--oem-codepage", "utf-8", tmp_path)
    assert done.code == 2
    assert "cp437, cp850, cp866" in done.err


@pytest.mark.parametrize("option", ["--uid", "--gid"])
def test_an_owner_that_cannot_be(option: str, repository: Path, tmp_path: Path) -> None:
    for number in ("4294967295", "99999999999", "-1"):
        done = restorefs("mount", "--images", repository, option, number, tmp_path)
        assert done.code == 2
        assert option in done.err
