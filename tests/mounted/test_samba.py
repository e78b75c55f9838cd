"""The mount through Samba: smbd as docs/smb.conf has it, asked by smbclient.

What is expected is what was written: by ntfs-3g, mke2fs and this file.
"""
# ruff: noqa: PTH115, PTH208 - system calls

import ctypes
import errno
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import ntfs, tree
from tests.images.ext import block_of, debugfs, inode_offset, patch
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, served
from tests.mounted.disks import LINUX, MIB, ext, gpt, qcow2
from tests.mounted.reading import error_of
from tests.mounted.samba import CONF, NOBODY, ROOT, Samba, Share, smbd
from tests.tools import require, require_root

VM = "files01"
OLDER, NEWER = "backup-files01-1759947871", "backup-files01-1759955071"
TIMES = {OLDER: "2025-10-08T182431Z", NEWER: "2025-10-08T202431Z"}
TOKENS = {OLDER: "@GMT-2025.10.08-18.24.31", NEWER: "@GMT-2025.10.08-20.24.31"}
BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
NOTES = "Users\\anna\\notes.txt"
CONTENT = {OLDER: b"the first minutes\r\n", NEWER: b"the minutes, corrected\r\n"}
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"
LARGEST = bytes(range(256)) * 256  # and then a byte less: what fits into an attribute of Linux
TOO_LARGE = b"a stream that is too long for an extended attribute\n" * 4000
CREATED, MODIFIED = 133_543_000_001_234_567, 133_543_500_001_654_321  # 100 ns since 1601
FORBIDDEN = re.compile(r'[\x01-\x1f"*:<>?|\\]|[. ]$|^(CON|aux)\b')
LINUX_NAMES = {"plain": "ascii", "Größe 日本": "utf-8", "b\udce4h": "latin-1"}
BROKEN = f"ERROR ({OLDER}|{NEWER})/disk0: folder [0-9]+: a directory block"
EVERYONE, ADMINISTRATORS = (1, 0), (5, 32, 544)
READ, ALL = 0x1200A9, 0x1F01FF
_libc = ctypes.CDLL(None, use_errno=True)


def descriptor(*allowed: tuple[tuple[int, ...], int]) -> bytes:
    """Return a descriptor (MS-DTYP 2.4.6) of SYSTEM's and Administrators' that lets in whom it
    names, as (authority and sub-authorities, access), and nobody else."""

    def sid(authority: int, *parts: int) -> bytes:
        return struct.pack(
            f"<BB6s{len(parts)}I", 1, len(parts), bytes([0] * 5 + [authority]), *parts
        )

    access = b"".join(
        struct.pack("<BBHI", 0, 0, 8 + len(sid(*who)), mask) + sid(*who) for who, mask in allowed
    )
    dacl = struct.pack("<BBHHH", 2, 0, 8 + len(access), len(allowed), 0) + access
    owner, group = sid(5, 18), sid(*ADMINISTRATORS)
    at = 20 + len(dacl)  # Windows has the access list first
    head = struct.pack("<BBHIIII", 1, 0, 0x8004, at, at + len(owner), 0, 20)
    return head + dacl + owner + group


def _windows(image: Path, backup: str) -> Path:
    ntfs.mkntfs(image, 64 * MIB, label="Windows")
    with ntfs.writable(image) as mounted:
        root = Path(os.fsdecode(mounted))
        anna = root / "Users" / "anna"
        anna.mkdir(parents=True)
        (anna / "notes.txt").write_bytes(CONTENT[backup])
        (anna / f"in {backup}").write_bytes(b"here")
        os.setxattr(anna / "notes.txt", "user.Zone.Identifier", ZONE)
        os.setxattr(anna / "notes.txt", "user.größte", LARGEST[:-1])
        os.setxattr(anna / "notes.txt", "user.nothing", b"")
        ntfs.set_flags(os.fsencode(anna / "notes.txt"), 0x23)  # read-only, hidden, to be archived
        names = tree.folder(mounted, b"names")
        for number, name in enumerate(ntfs.SCRIPTS):
            tree.write(names + b"/" + name.encode(), (0, b"%d" % number))
        long = tree.folder(mounted, b"long")
        for letter in "nж語":
            tree.write(long + b"/" + (letter * 255).encode(), (0, letter.encode()))
        tree.write(long + b"/a short name.text", (0, b"8.3"))
        os.setxattr(long + b"/a short name.text", "system.ntfs_dos_name", b"ASHORT~1.TEX")
        tree.write(names + b"/alone-\xed\xa0\x80", (0, b"a surrogate"))
        many = tree.folder(mounted, b"many")
        for number in range(1500):
            tree.write(b"%s/entry-%d" % (many, number), (0, b"%d" % number))
        streams = root / "streams"
        streams.mkdir()
        (streams / "too-many").touch()
        for number in range(320):
            os.setxattr(streams / "too-many", f"user.{number:0200}", b"")
        acls = root / "acls"
        acls.mkdir()
        for name, lets_in in (("all", (EVERYONE, READ)), ("few", (ADMINISTRATORS, ALL))):
            (acls / name).write_text(name)
            os.setxattr(acls / name, "system.ntfs_acl", descriptor(lets_in))
    with ntfs.writable(image, "streams_interface=windows") as mounted:
        notes = mounted + b"/Users/anna/notes.txt"
        Path(os.fsdecode(notes + b":large")).write_bytes(TOO_LARGE)
        ntfs.set_times(notes, CREATED, MODIFIED, MODIFIED)
    return image


def _linux(image: Path, source: Path) -> Path:
    home = source / "home"
    home.mkdir(parents=True)
    for name, text in LINUX_NAMES.items():
        (home / name).write_text(text)
    (home / "large").write_bytes(tree.content("large", 5 * MIB))
    (home / "secret").write_text("for root alone")
    (home / "secret").chmod(0o600)
    for name in ("case", "CASE"):
        (home / name).write_text(name)
    (source / "link").symlink_to("home")
    (source / "etc").symlink_to("/etc")
    (source / "broken").mkdir()
    (source / "broken" / "x").touch()
    (source / "some").mkdir()
    for name in ("damaged", "folder", "sound"):
        (source / "some" / name).mkdir() if name == "folder" else (source / "some" / name).touch()
    (source / "special").mkdir()
    os.mkfifo(source / "special" / "pipe")
    os.mknod(source / "special" / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (source / "half").mkdir()
    for number in range(9000):
        (source / "half" / f"a file whose number is {number}").touch()
    return ext(image, "ext4", source, 32 * MIB, "-b", "1024", "-N", "12000")


class Repository:
    """Two backups of a VM with an NTFS and an ext4; `source` is what the ext4 holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.source = folder / "source"
        linux = _linux(folder / "linux", self.source)
        with linux.open("r+b") as image:
            last = int(debugfs(linux, "stat /half").partition("Size: ")[2].split()[0]) // 1024 - 1
            for path, number in (("/broken", 0), ("/half", last)):
                image.seek(block_of(linux, path, number) * 1024)
                image.write(b"\xff" * 1024)
        for name in ("damaged", "folder"):
            patch(linux, inode_offset(linux, f"/some/{name}") + 100, b"\xff" * 4)
        for backup in (OLDER, NEWER):
            windows = _windows(folder / "windows", backup)
            disk = gpt(folder / "disk", (BASIC_DATA, windows), (LINUX, linux))
            qcow2(disk, self.folder / backup / "disk0.qcow2")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    require_root()
    require("mkntfs", "ntfs-3g", "debugfs", "smbd")
    folder = tmp_path_factory.mktemp("samba")
    yield Repository(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def daemon(repository: Repository) -> Iterator[Daemon]:
    with served("--profile", "samba", "--images", repository.folder) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def samba(daemon: Daemon) -> Iterator[Samba]:
    with smbd(daemon.mountpoint, VM) as samba:
        yield samba


@pytest.fixture
def share(samba: Samba) -> Share:
    """Everything, as who restores for others sees it."""
    return samba.share("restore-all")


def inside(backup: str, *path: str) -> str:
    return "\\".join(("backups", backup, "disk0", *path))


def detach_all(daemon: Daemon) -> None:
    for backup in (OLDER, NEWER):
        assert daemon.cli("detach", backup, "0").code == 0
    assert daemon.attached() == {}


# Folders and files


@pytest.mark.parametrize("name", ["restore", "restore-all"])
def test_what_is_above_the_guests_attaches_nothing(daemon: Daemon, samba: Samba, name: str) -> None:
    share = samba.share(name)
    detach_all(daemon)
    assert set(share.listing("")) == {"backups", "vms"}
    assert set(share.listing("backups")) == {OLDER, NEWER}
    assert set(share.listing("vms")) == {VM}
    assert set(share.listing(f"vms\\{VM}")) == {*TIMES.values(), "latest"}
    for backup in (f"backups\\{NEWER}", f"vms\\{VM}\\latest", f"vms\\{VM}\\{TIMES[OLDER]}"):
        assert share.listing(backup) == {"disk0": ("D", 0)}
        for probe in ("desktop.ini", "Thumbs.db", ".DS_Store", "autorun.inf", "folder.jpg"):
            for folder in ("", "backups\\", "vms\\", f"vms\\{VM}\\", f"{backup}\\"):
                assert "NT_STATUS_OBJECT_NAME_NOT_FOUND" in share.do(f"get {folder}{probe} -").out
        assert "attributes: D (10)" in share.do(f"allinfo {backup}").out
    assert daemon.attached() == {}


def test_everything_has_a_link_that_counts(daemon: Daemon) -> None:
    daemon.expect(BROKEN)
    for folder, folders, files in os.walk(daemon.mountpoint, followlinks=False):
        for name in (".", *folders, *files):
            assert Path(folder, name).lstat().st_nlink >= 1


def test_a_windows_folder_is_copied_whole(share: Share, tmp_path: Path) -> None:
    share.copy(inside(NEWER, "part1", "many"), tmp_path / "many")
    assert {path.name: path.read_text() for path in (tmp_path / "many").rglob("entry-*")} == {
        f"entry-{number}": str(number) for number in range(1500)
    }
    share.copy(inside(NEWER, "part1", "Users"), tmp_path / "users")
    (notes,) = (tmp_path / "users").rglob("notes.txt")
    assert notes.read_bytes() == CONTENT[NEWER]
    assert notes.stat().st_mtime_ns // 10**9 == MODIFIED // 10**7 - 11_644_473_600


def test_a_linux_folder_is_copied_whole(
    repository: Repository, share: Share, tmp_path: Path
) -> None:
    share.copy(inside(NEWER, "part2", "home"), tmp_path / "home")
    copied = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    home = repository.source / "home"
    written = {path.name: path.read_bytes() for path in home.iterdir()}
    written["b\uefe4h"] = written.pop("b\udce4h")  # what is not UTF-8 is shown as if it were
    assert copied == written


def test_folders_in_folders_are_fetched_one_by_one(share: Share, tmp_path: Path) -> None:
    folder = inside(NEWER, "part1", "Users")
    done = share.do("recurse", "prompt", f'cd "{folder}"', f'lcd "{tmp_path}"', "mget *")
    assert done.code == 0, done.out
    found = {path.name: path.read_bytes() for path in (tmp_path / "anna").iterdir()}
    assert found == {"notes.txt": CONTENT[NEWER], f"in {NEWER}": b"here"}


def test_names_of_every_script(share: Share, tmp_path: Path) -> None:
    """What Windows does not allow in a name is listed under a short one, by Samba."""
    share.copy(inside(NEWER, "part1", "names"), tmp_path / "names")
    copied = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    written = {name: str(number) for number, name in enumerate(ntfs.SCRIPTS)}
    written["alone-\uefed\uefa0\uef80"] = "a surrogate"
    forbidden = {name for name in written if FORBIDDEN.search(name)}
    assert len(forbidden) > 8
    for name in set(written) - forbidden:
        assert copied.pop(name) == written[name]
    assert sorted(copied.values()) == sorted(written[name] for name in forbidden)
    for name, text in copied.items():
        assert re.fullmatch(r"[^~]{1,6}~\w(\.\w{1,3})?", name)
        assert share.read(inside(NEWER, "part1", "names", name)).decode() == text


def test_names_as_long_as_windows_allows(share: Share) -> None:
    folder = inside(NEWER, "part1", "long")
    assert set(share.listing(folder)) == {*(letter * 255 for letter in "nж語"), "a short name.text"}
    for letter in "nж語":
        assert share.read(f"{folder}\\{letter * 255}") == letter.encode()
    assert share.read(f"{folder}\\ASHORT~1.TEX") == b"8.3", "the guest's short name, when typed"


def test_names_that_differ_by_case_alone(share: Share) -> None:
    for name in ("case", "CASE"):
        assert share.read(inside(NEWER, "part2", "home", name)) == name.encode()
    assert share.read(inside(NEWER, "part1", "USERS", "ANNA", "Notes.TXT")) == CONTENT[NEWER]


def test_links_stay_in_the_share(share: Share) -> None:
    """Those that lead out of it are not there for Samba."""
    assert "large" in share.listing(inside(NEWER, "part2", "link"))
    assert set(share.listing(inside(NEWER, "part2"))) == {
        *("lost+found", "home", "link", "broken", "half", "some", "special")
    }
    assert "NT_STATUS_OBJECT" in share.do(f"get {inside(NEWER, 'part2', 'etc', 'passwd')} -").out


def test_what_is_neither_file_nor_folder(share: Share) -> None:
    folder = inside(NEWER, "part2", "special")
    assert set(share.listing(folder)) == {"device", "pipe"}
    assert "NT_STATUS_ACCESS_DENIED" in share.do(f"get {folder}\\device -").out


def test_nothing_can_be_written(share: Share, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    notes = inside(NEWER, "part1", *NOTES.split("\\"))
    for command in (f"put {tmp_path / 'new'} {notes}", f"del {notes}", "mkdir backups\\new"):
        assert "NT_STATUS_" in share.do(command).out
    assert share.read(notes) == CONTENT[NEWER]


# What goes wrong


def test_a_folder_that_cannot_be_read_is_an_error_and_not_empty(
    daemon: Daemon, share: Share
) -> None:
    daemon.expect(BROKEN)
    for _ in range(2):
        done = share.do(f'ls "{inside(NEWER, "part2", "broken")}\\*"')
        assert done.code != 0
        assert "NT_STATUS_" in done.out
        assert "blocks available" not in done.out
    assert "plain" in share.listing(inside(NEWER, "part2", "home"))


def test_a_folder_that_cannot_be_read_to_its_end_is_not_cut(daemon: Daemon, share: Share) -> None:
    """smbd takes any error behind the first names for the end."""
    daemon.expect(BROKEN)
    done = share.do(f'ls "{inside(NEWER, "part2", "half")}\\*"')
    assert done.code != 0
    assert "NT_STATUS_" in done.out
    assert "number" not in done.out


def test_what_cannot_be_read_is_listed_and_an_error_to_copy(
    daemon: Daemon, samba: Samba, tmp_path: Path
) -> None:
    daemon.expect("ERROR .*inode [0-9]+")
    for name in ("restore", "restore-all"):
        share = samba.share(name)
        folder = inside(NEWER, "part2", "some")
        assert set(share.listing(folder)) == {"damaged", "folder", "sound"}
        for command in (f"get {folder}\\damaged {tmp_path / 'copy'}", f"ls {folder}\\folder\\*"):
            done = share.do(command)
            assert done.code != 0
            assert "NT_STATUS_" in done.out
        assert share.read(f"{folder}\\sound") == b""


def test_a_missing_image_is_an_error(serve: Serve, repository: Repository, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(repository.folder, images, copy_function=os.link)
    daemon = serve("--profile", "samba", "--images", images)
    (images / OLDER / "disk0.qcow2").unlink()
    daemon.expect(f"ERROR {OLDER}/disk0: ")
    with smbd(daemon.mountpoint, VM) as samba:
        share = samba.share("restore-all")
        done = share.do(f'ls "{inside(OLDER)}\\*"')
        assert done.code != 0
        assert "NT_STATUS_" in done.out
        assert "part1" not in done.out
        assert set(share.listing(inside(NEWER))) == {"part1", "part2"}
        # The version that cannot be read is no reason to hide the one that can.
        shown = share.do(f"allinfo {inside(NEWER, 'part1', *NOTES.split(chr(92)))}").out
        assert TOKENS[NEWER] in shown
    daemon.check()


def test_a_disk_that_hangs_disturbs_nobody_else(daemon: Daemon, samba: Samba, share: Share) -> None:
    detach_all(daemon)
    assert set(share.listing(inside(OLDER))) == {"part1", "part2"}
    server = daemon.server(f"{OLDER}/disk0")
    try:
        with server.stopped():
            large = inside(OLDER, "part2", "home", "large")
            with share.start(f"get {large} /dev/null") as client:
                try:
                    daemon.wait_under_way(f"{OLDER}/disk0")
                    for name in ("restore", "restore-all"):
                        other = samba.share(name)
                        notes = inside(NEWER, "part1", *NOTES.split("\\"))
                        if name == "restore-all":
                            assert other.read(notes) == CONTENT[NEWER]
                        assert set(other.listing("vms")) == {VM}
                    assert client.poll() is None
                    server.send(signal.SIGCONT)
                    out, _ = client.communicate(timeout=60)
                    assert client.returncode == 0, out
                finally:
                    client.kill()
    finally:
        server.close()


# What Windows knows of a file


def test_attributes_times_and_streams(share: Share) -> None:
    shown = share.do(f"allinfo {inside(NEWER, 'part1')}\\{NOTES}").out
    assert "attributes: RHA (23)" in shown
    assert re.search("create_time: +Thu Mar  7 15:46:40 2024", shown)
    assert re.search("write_time: +Fri Mar  8 05:40:00 2024", shown)
    assert set(re.findall(r"stream: \[:(.*)\], (\d+) bytes", shown)) == {
        (":$DATA", str(len(CONTENT[NEWER]))),
        ("Zone.Identifier:$DATA", str(len(ZONE))),
        ("größte:$DATA", "65535"),
        ("nothing:$DATA", "0"),
    }
    assert share.listing(inside(NEWER, "part1", "Users", "anna"))["notes.txt"] == (
        "AHR",
        len(CONTENT[NEWER]),
    )
    for name, content in (("Zone.Identifier", ZONE), ("größte", LARGEST[:-1]), ("nothing", b"")):
        assert share.read(f"{inside(NEWER, 'part1')}\\{NOTES}:{name}") == content


def test_a_stream_too_large_for_samba_is_left_out_and_never_cut(
    daemon: Daemon, share: Share
) -> None:
    notes = daemon.backups / NEWER / "disk0" / "part1" / NOTES.replace("\\", "/")
    assert Path(f"{notes}:large").read_bytes() == TOO_LARGE
    assert "user.DosStream.large:$DATA" not in os.listxattr(notes)
    done = share.do(f"get {inside(NEWER, 'part1')}\\{NOTES}:large -")
    assert "NT_STATUS_OBJECT_NAME_NOT_FOUND" in done.out


def test_more_streams_than_linux_can_list_are_an_error(daemon: Daemon, share: Share) -> None:
    path = daemon.backups / NEWER / "disk0" / "part1" / "streams" / "too-many"
    assert error_of(os.listxattr, path) == "E2BIG"
    assert os.getxattr(path, f"user.DosStream.{7:0200}:$DATA") == b"\0"
    done = share.do(f"allinfo {inside(NEWER, 'part1', 'streams', 'too-many')}")
    assert re.search("NT_STATUS_.* getting streams", done.out)


def test_a_value_larger_than_asked_for(daemon: Daemon) -> None:
    notes = os.fsencode(daemon.backups / NEWER / "disk0" / "part1" / NOTES.replace("\\", "/"))
    name = "user.DosStream.größte:$DATA".encode()
    size = ctypes.create_string_buffer(65_536)
    for room, expected in ((0, 65_536), (65_536, 65_536), (65_535, -errno.ERANGE)):
        found = _libc.getxattr(notes, name, size, room)
        assert (found if found >= 0 else -ctypes.get_errno()) == expected
    assert size.raw == LARGEST[:-1] + b"\0"


def test_the_permissions_that_windows_stored_decide(samba: Samba) -> None:
    root, nobody = samba.share("restore"), samba.share("restore", NOBODY)
    everyone, few = (inside(NEWER, "part1", "acls", name) for name in ("all", "few"))
    assert root.read(few) == b"few"
    assert nobody.read(everyone) == b"all"
    assert "NT_STATUS_ACCESS_DENIED" in nobody.do(f"get {few} -").out
    shown = root.do("showacls", f"ls {everyone}").out
    assert re.findall(r"SID: (\S+)", shown) == ["S-1-1-0"]
    assert re.findall(r"Permissions: (\w+)", shown) == [f"0x{READ:x}"]
    assert re.findall(r"(Owner|Group) SID:\s+(\S+)", shown) == [
        ("Owner", "S-1-5-18"),
        ("Group", "S-1-5-32-544"),
    ]
    for other in (
        few.replace(NEWER, OLDER),
        few.replace("acls\\", f"acls\\{TOKENS[OLDER]}\\"),
        few.replace("acls\\", f"acls\\{TOKENS[NEWER]}\\"),
    ):
        assert "NT_STATUS_ACCESS_DENIED" in nobody.do(f"get {other} -").out
        assert root.read(other) == b"few"


def test_owner_and_mode_decide_for_linux_guests(samba: Samba) -> None:
    secret = inside(NEWER, "part2", "home", "secret")
    nobody = samba.share("restore", NOBODY)
    assert "NT_STATUS_ACCESS_DENIED" in nobody.do(f"get {secret} -").out
    assert nobody.read(inside(NEWER, "part2", "home", "plain")) == b"ascii"
    assert samba.share("restore-all").read(secret) == b"for root alone"
    assert "NT_STATUS_ACCESS_DENIED" in samba.share("restore-all", NOBODY).do("ls").out


def test_permissions_of_a_disk_without_partitions(serve: Serve, tmp_path: Path) -> None:
    """Nobody gets in by looking first, when they are not known yet: smbd opens, and asks then."""
    image = tmp_path / "windows"
    ntfs.mkntfs(image, 16 * MIB)
    with ntfs.writable(image) as root:
        tree.write(root + b"/name", (0, b"content"))
        os.setxattr(root, "system.ntfs_acl", descriptor((ADMINISTRATORS, ALL)))
    qcow2(image, tmp_path / "images" / NEWER / "disk0.qcow2")
    daemon = serve("--profile", "samba", "--images", tmp_path / "images")
    with smbd(daemon.mountpoint, VM) as samba:
        for _ in range(2):
            for user, seen in ((NOBODY, False), (ROOT, True)):
                done = samba.share("restore", user).do(f'ls "{inside(NEWER)}\\*"')
                assert ("name" in done.out, "NT_STATUS_ACCESS_DENIED" in done.out) == (
                    seen,
                    not seen,
                )
                assert daemon.cli("detach", NEWER, "0").code == 0
    daemon.check()


# Previous versions


@pytest.mark.parametrize("name", ["restore", "restore-all"])
@pytest.mark.parametrize("way", [f"backups\\{NEWER}", f"backups\\{OLDER}", f"vms\\{VM}\\latest"])
def test_previous_versions_of_a_file(samba: Samba, name: str, way: str) -> None:
    share = samba.share(name)
    folder = f"{way}\\disk0\\part1\\Users\\anna"
    shown = share.do(f"allinfo {folder}\\notes.txt").out
    assert re.findall(r"^@GMT-.*", shown, re.MULTILINE) == [TOKENS[NEWER], TOKENS[OLDER]]
    sizes = [int(size) for size in re.findall(r"^size: (\d+)", shown, re.MULTILINE)]
    assert sizes == [len(CONTENT[NEWER]), len(CONTENT[OLDER])]
    for backup, token in TOKENS.items():
        assert share.read(f"{folder}\\{token}\\notes.txt") == CONTENT[backup]
        assert set(share.listing(f"{folder}\\{token}")) == {"notes.txt", f"in {backup}"}


def test_previous_versions_where_a_vm_is_a_share(daemon: Daemon, samba: Samba) -> None:
    detach_all(daemon)
    share = samba.share(VM)
    assert set(share.listing("disk0")) == {"part1", "part2"}
    assert set(daemon.attached()) == {f"{NEWER}/disk0"}, "others when somebody looks into them"
    path = "disk0\\part1\\Users\\anna"
    shown = share.do(f"allinfo {path}\\notes.txt").out
    assert re.findall(r"^@GMT-.*", shown, re.MULTILINE) == [TOKENS[NEWER], TOKENS[OLDER]]
    for backup, token in TOKENS.items():
        assert share.read(f"{path}\\{token}\\notes.txt") == CONTENT[backup]
        assert f"in {backup}" in share.listing(f"{path}\\{token}")


def test_the_way_to_them_is_not_listed(daemon: Daemon, share: Share, tmp_path: Path) -> None:
    """Or whoever copies a backup's folder would not come to an end."""
    assert set(share.listing(f"backups\\{NEWER}")) == {"disk0"}
    assert os.readlink(daemon.backups / NEWER / ".previous-versions") == f"../../vms/{VM}"
    assert os.listdir(daemon.backups / NEWER) == ["disk0"]


# Profiles, and the file that all of this runs on


def test_a_posix_mount_shows_what_it_always_did(serve: Serve, repository: Repository) -> None:
    daemon = serve("--images", repository.folder)
    part = daemon.backups / NEWER / "disk0" / "part1"
    notes = part / NOTES.replace("\\", "/")
    shown = {"user.DOSATTRIB", "user.Zone.Identifier", "user.größte", "user.nothing"}
    assert set(os.listxattr(notes)) == shown
    assert error_of(os.getxattr, notes, "security.NTACL") == "ENODATA"
    assert b"alone-\xed\xa0\x80" in os.listdir(os.fsencode(part / "names"))
    daemon.check()


def test_a_plain_mount_belongs_to_one(serve: Serve, repository: Repository) -> None:
    daemon = serve("--profile", "plain", "--uid", "1234", "--images", repository.folder)
    for part in ("part1", "part2"):
        for folder, folders, files in os.walk(daemon.backups / NEWER / "disk0" / part):
            if folder.endswith("/part2"):
                folders[:] = set(folders) - {"broken", "half", "some", "special"}
            for name in (".", *folders, *files):
                seen = Path(folder, name).lstat()
                assert (seen.st_uid, seen.st_gid) == (1234, os.getegid())
                kind = stat.S_IFMT(seen.st_mode)
                expected = {stat.S_IFDIR: 0o755, stat.S_IFREG: 0o644, stat.S_IFLNK: 0o777}
                assert stat.S_IMODE(seen.st_mode) == expected[kind]
    daemon.check()


def test_samba_knows_every_line_of_the_file() -> None:
    require("testparm")
    done = subprocess.run(
        ["testparm", "--suppress-prompt", str(CONF)], capture_output=True, text=True, check=True
    )
    for section in ("restore", "restore-all", "files01"):
        assert f"[{section}]" in done.stdout
    # Whatever is wrong with a line of the file is said among these, which are of the machine.
    usual = re.compile(r"Load(ed)? .*|Server role: .*|Weak crypto .*|rlimit_max: .*|")
    assert [line for line in done.stderr.splitlines() if not usual.fullmatch(line)] == []
