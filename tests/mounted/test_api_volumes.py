"""What the API says of a file while a volume that may hold it cannot be read.

A path that names no volume is looked for on all of them: it is never said to be absent, nor is a
smaller volume's file taken for it, while a larger volume is not known to lack it.
"""

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.ext import patch, peek
from tests.mounted.api import Api, api
from tests.mounted.disks import BIOS_BOOT, LINUX, MIB, MSR, SWAP, empty, ext, gpt, qcow2
from tests.tools import run

SOUND, DESTROYED = "backup-parts-1700000000", "backup-parts-1700086400"
STRANGE = "backup-parts-1700172800"
ROOT, BOOT = "part3", "part2"


def disk(folder: Path, name: str) -> Path:
    """A disk with a small /boot and a large root, and volumes that never hold files."""
    boot, root = folder / "boot", folder / "root"
    for source, text in ((boot, "of /boot\n"), (root, "of the root\n")):
        (source / "etc").mkdir(parents=True, exist_ok=True)
        (source / "etc" / "hostname").write_text(text)
    (boot / "grub").mkdir(exist_ok=True)
    (boot / "grub" / "menu").write_text("menu\n")
    small = ext(folder / "small.img", "ext4", boot, 8 * MIB)
    large = ext(folder / "large.img", "ext4", root, 24 * MIB, "-b", "4096", "-O", "^metadata_csum")
    if name == DESTROYED:
        patch(large, 1024, bytes(1024))  # its superblock, and there is no copy of it
    if name == STRANGE:
        (present,) = struct.unpack("<I", peek(large, 1024 + 96, 4))
        patch(large, 1024 + 96, struct.pack("<I", present | 1 << 30))  # s_feature_incompat
    swap = empty(folder / "swap.img", 32 * MIB)
    run("mkswap", "--quiet", swap)
    return gpt(
        folder / name,
        *((BIOS_BOOT, MIB), (LINUX, small), (LINUX, large), (SWAP, swap)),
        *((MSR, 40 * MIB), (LINUX, 48 * MIB)),
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("parts")
    for name in (SOUND, DESTROYED, STRANGE):
        qcow2(disk(folder, name), folder / "repository" / name / "disk0.qcow2")
    with (
        tempfile.TemporaryDirectory() as place,
        api(Path(place), "--images", folder / "repository") as found,
    ):
        found.daemon.expect(f"WARNING {STRANGE}/disk0: {ROOT}: .*0x40000000")
        assert found.raw(found.mount(STRANGE), "files", f"/{ROOT}").status_code == 501
        yield found


def test_what_is_absent_is_said_to_be_so(parts: Api) -> None:
    """Swap, what is reserved and what is empty hold no files."""
    mount = parts.mount(SOUND)
    assert parts.raw(mount, "download", "/etc/hostname").content == b"of the root\n"
    assert parts.raw(mount, "download", "/grub/menu").content == b"menu\n"
    assert parts.problem(parts.raw(mount, "files", "/nothing")) == (404, "ENOENT")


@pytest.mark.parametrize("backup", [DESTROYED, STRANGE])
def test_a_file_that_may_be_on_a_volume_that_cannot_be_read(parts: Api, backup: str) -> None:
    mount = parts.mount(backup)
    for path in ("/nothing", "/etc/hostname", "/grub/menu"):
        response = parts.raw(mount, "download", path)
        assert parts.problem(response) == (501, "EOPNOTSUPP")
        assert ROOT in response.json()["detail"]
    assert f"/{BOOT}/grub/menu" in response.json()["detail"]
    assert parts.raw(mount, "download", f"/{BOOT}/grub/menu").content == b"menu\n"


def test_volumes_that_have_no_folder_say_why(parts: Api) -> None:
    mount = parts.mount(DESTROYED)
    for name, words in {
        ROOT: "nothing that restorefs recognises",
        "part1": "BIOS boot",
        "part4": "swap",
        "part5": "Microsoft reserved",
        "part6": "nothing that restorefs recognises",
    }.items():
        for path in (f"/{name}", f"/{name}/etc/hostname"):
            response = parts.raw(mount, "files", path)
            assert parts.problem(response) == (501, "EOPNOTSUPP")
            assert name in response.json()["detail"]
            assert words.lower() in response.json()["detail"].lower()
    assert parts.problem(parts.raw(mount, "files", "/part7")) == (501, "EOPNOTSUPP"), "as any name"


def test_versions_tell_of_a_volume_that_may_hold_the_file(parts: Api) -> None:
    for path in ("/etc/hostname", "/grub/menu"):
        found = parts.get("/versions", vm="parts", path=path)
        assert [each["backup_id"] for each in found["versions"]] == [SOUND]
        assert [each["backup_id"] for each in found["errors"]] == [STRANGE, DESTROYED]
        assert {each["errno"] for each in found["errors"]} == {"EOPNOTSUPP"}
    found = parts.get("/versions", vm="parts", path="/nothing")
    assert found["versions"] == []
    assert [each["backup_id"] for each in found["errors"]] == [STRANGE, DESTROYED]
