"""The mount over NFS, by nfs-ganesha as docs/nfs.md says: browse, copy, and handles that last."""

import os
import signal
import sqlite3
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import tree
from tests.images.signatures import SAMPLES
from tests.images.volume_group import volume_group
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, Place, served
from tests.mounted.disks import LINUX, MIB, Sample, empty, ext, gpt, qcow2
from tests.mounted.handles import handle_of, open_handle
from tests.mounted.nfs import PSEUDO, Ganesha, exported, nfs_place
from tests.mounted.nfs4 import Attributes, Client, NfsError
from tests.mounted.reading import error_of
from tests.tools import require, require_root, run, wait_until

BACKUPS = (PSEUDO, "backups")
WEB = f"{Sample.full}/disk0/part3"
DATA = f"{Sample.full}/disk1"
FOLDER, FILE, LINK = 2, 1, 5


@pytest.fixture(scope="module")
def repository(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's images, and five backups more.

    odd: an ext4 without partitions, with hard links, a pipe, names that are not text and a large
    folder. private: one whose root only its owner may enter. group: a volume group with a volume.
    foreign: a file system that is not read. broken: an image that is cut off.
    """
    require_root()
    folder = tmp_path_factory.mktemp("nfs")
    found = folder / "repository"
    run("cp", "--recursive", "--link", sample.repository, found)
    source = folder / "odd"
    (source / "many").mkdir(parents=True)
    for number in range(1500):
        (source / "many" / f"entry-{number}").write_text(str(number))
    base = os.fsencode(source)
    tree.make_names(base)
    (source / "links").mkdir()
    for number in range(3):
        os.link(source / "many" / "entry-7", source / "links" / f"{number}")
    os.mkfifo(source / "pipe")
    (source / "link").symlink_to("many/entry-1")
    qcow2(ext(folder / "a", "ext4", source, 16 * MIB), found / "odd" / "disk0.qcow2")
    private = ext(folder / "b", "ext4", sample.sources.web, 16 * MIB)
    run("debugfs", "-w", "-R", "set_inode_field <2> mode 040700", private)
    qcow2(private, found / "private" / "disk0.qcow2")
    volume = ext(folder / "c", "ext4", sample.sources.old, 8 * MIB)
    part = empty(folder / "pv", 24 * MIB)
    volume_group("vg", [part], {"root": ([(0, 0, 8)], volume)})
    qcow2(gpt(folder / "d", (LINUX, volume), (LINUX, part)), found / "group" / "disk0.qcow2")
    (folder / "e").write_bytes(next(each.content for each in SAMPLES if each.kind == "jfs"))
    qcow2(folder / "e", found / "foreign" / "disk0.qcow2")
    (found / "broken").mkdir()
    whole = (found / "odd" / "disk0.qcow2").read_bytes()
    (found / "broken" / "disk0.qcow2").write_bytes(whole[:70_000])
    return found


@dataclass(frozen=True)
class Shared:
    """What most tests look at: a daemon, its mount exported, and a client that is root."""

    daemon: Daemon
    server: Ganesha
    client: Client

    def handle(self, path: str) -> bytes:
        """Return the handle of a path below "backups"."""
        return self.client.handle(*BACKUPS, *path.split("/"))


@contextmanager
def shared_by(folder: Path, *options: str | Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        place = stack.enter_context(nfs_place())
        daemon = stack.enter_context(served(*options, place=place))
        server = stack.enter_context(exported(place.mountpoint, folder / "ganesha"))
        yield Shared(daemon, server, stack.enter_context(Client(server.port)))


@pytest.fixture(scope="module")
def shared(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    require("ganesha.nfsd")
    with shared_by(tmp_path_factory.mktemp("shared"), "--images", repository) as found:
        yield found


def nfs_error(call: Callable[..., object], *arguments: object) -> str:
    """Return the name of the error that a call gets, "" if it gets none."""
    try:
        call(*arguments)
    except NfsError as error:
        return error.name
    return ""


# --- browse and copy -----------------------------------------------------------------------------


def test_browse_and_copy(shared: Shared, sample: Sample, tmp_path: Path) -> None:
    """With libnfs' programs, as a user would."""
    require("nfs-ls", "nfs-cat", "nfs-cp")
    url = shared.server.url
    listed = run("nfs-ls", "-R", url(f"backups/{WEB}")).splitlines()
    expected = run("find", ".", "-mindepth", "1", "-printf", "%P\n", cwd=sample.sources.web)
    assert sorted(line.split()[-1] for line in listed) == sorted(
        [*expected.splitlines(), "lost+found"]
    )
    (hostname,) = (line for line in listed if line.endswith("etc/hostname"))
    assert hostname.split() == ["-rw-r--r--", "1", "0", "0", "4", "etc/hostname"]
    assert run("nfs-cat", url(f"backups/{WEB}/etc/hostname")) == "web\n"
    run("nfs-cp", url(f"backups/{DATA}/big"), tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == (sample.sources.data / "big").read_bytes()
    links = run("nfs-ls", url("vms/web")).splitlines()
    assert len(links) == 3
    assert all(line.startswith("lrwxrwxrwx") for line in links)


@pytest.mark.parametrize("path", [WEB, DATA, "odd/disk0", "group/disk0/vg-root", f"{Sample.other}"])
def test_all_is_as_on_the_server(path: str, shared: Shared) -> None:
    """Names, attributes, content, and where links lead, of a whole tree."""
    client = shared.client
    pending = [(shared.handle(path), os.fsencode(shared.daemon.backups / path))]
    seen = 0
    while pending:
        handle, local = pending.pop()
        seen += 1
        found, expected = client.attributes(handle), os.lstat(local)
        assert (found.mode, found.fileid) == (stat.S_IMODE(expected.st_mode), expected.st_ino)
        assert (found.size, found.nlink) == (expected.st_size, expected.st_nlink)
        assert found.mtime_ns == expected.st_mtime_ns
        if found.kind == FOLDER:
            names = client.names(handle)
            assert sorted(names) == sorted(os.listdir(local))  # noqa: PTH208 - bytes
            pending += [(client.lookup(handle, name), local + b"/" + name) for name in names]
        elif found.kind == FILE:
            with open(local, "rb") as file:
                assert content(client, handle, found.size) == file.read()
        elif found.kind == LINK:
            assert client.readlink(handle) == os.readlink(local)  # noqa: PTH115 - bytes
    assert seen > 2


def content(client: Client, handle: bytes, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := client.read(handle, len(data), MIB)):
        data += piece
    return data


def test_listing_the_backups_attaches_nothing(repository: Path, tmp_path: Path) -> None:
    require("ganesha.nfsd")
    with shared_by(tmp_path, "--images", repository) as shared:
        folder = shared.client.handle(*BACKUPS)
        for name in shared.client.names(folder):
            shared.client.attributes(shared.client.lookup(folder, name))
        assert shared.daemon.attached() == {}


def test_what_cannot_be_read_is_an_error_and_no_empty_folder(shared: Shared) -> None:
    daemon, client = shared.daemon, shared.client
    daemon.expect("ERROR broken/disk0.*truncated", "WARNING .*LUKS", "WARNING foreign/disk0: ")
    foreign = shared.handle("foreign/disk0")
    broken = shared.handle("broken/disk0")
    encrypted = shared.handle(f"{Sample.full}/disk0/part5")
    for _ in range(2):
        assert nfs_error(client.names, broken) == "IO"
        assert nfs_error(client.lookup, broken, "etc") == "IO"
        assert nfs_error(client.names, encrypted) == "SERVERFAULT"
        assert nfs_error(client.names, foreign) == "NOTSUPP"
        # They are where they belong, and hide nothing that is beside them.
        assert client.names(shared.handle("broken")) == [b"disk0"]
        partitions = client.names(shared.handle(f"{Sample.full}/disk0"))
        assert sorted(partitions) == [b"part2", b"part3", b"part5"]
        assert client.attributes(broken).kind == client.attributes(encrypted).kind == FOLDER


def test_nobody_is_let_in_past_a_disks_root(repository: Path, tmp_path: Path) -> None:
    """Also not by the access that makes known what it allows."""
    require("ganesha.nfsd")
    with ExitStack() as stack:
        shared = stack.enter_context(shared_by(tmp_path, "--images", repository))
        stranger = stack.enter_context(Client(shared.server.port, 1234, 1234))
        private = stranger.handle(*BACKUPS, "private", "disk0")
        for _ in range(2):
            assert nfs_error(stranger.names, private) == "ACCESS"
            assert nfs_error(stranger.lookup, private, "etc") == "ACCESS"
            assert b"etc" in shared.client.names(private)
            assert shared.daemon.cli("detach", "private", "0").code == 0


def test_nothing_but_the_mount_is_reached_by_a_made_up_handle(
    sample: Sample, place: Place, serve: Serve, tmp_path: Path
) -> None:
    """The ramfs of docs/nfs.md: without it, nfs-ganesha 4.3 gives out the file system below."""
    require_root()
    secret = place.folder / "secret"
    secret.write_text("of the server\n")
    secret.chmod(0o600)
    made_up = handle_in_ganesha(secret)
    serve("--images", sample.repository, place=place)
    with (
        exported(place.mountpoint, tmp_path / "ganesha") as server,
        Client(server.port) as client,
    ):
        if nfs_error(client.read, made_up, 0, 99):
            pytest.skip("this nfs-ganesha does not need it")
        assert client.read(made_up, 0, 99) == b"of the server\n"
    (tmp_path / "other").mkdir()
    with shared_by(tmp_path / "other", "--images", sample.repository) as shared:
        assert shared.client.names(shared.handle(Sample.full))
        assert nfs_error(shared.client.read, made_up, 0, 99) == "STALE"
        above = shared.daemon.mountpoint.parent
        assert error_of(handle_of, above) == "EOPNOTSUPP", "nothing to make up a handle of"


def handle_in_ganesha(path: Path) -> bytes:
    """Return what nfs-ganesha would give as the handle of a file of its own machine: version and
    flags, export, length; how the file system is numbered and its number, the kernel's handle."""
    handle = handle_of(path)
    number = os.statvfs(path).f_fsid & 0xFFFF_FFFF
    size, kind = struct.unpack_from("=II", handle)
    inner = b"B" + struct.pack("<Q", number) + bytes([kind]) + handle[8 : 8 + size]
    return b"C\0\0\x01" + bytes([len(inner)]) + inner


# --- handles that last ---------------------------------------------------------------------------

PATHS = (
    Sample.full,
    f"{Sample.full}/disk0",
    WEB,
    f"{WEB}/var/log",
    f"{WEB}/etc/hostname",
    f"{WEB}/link",
    DATA,
    f"{DATA}/big",
    "odd/disk0",
    "odd/disk0/many",
    "odd/disk0/links",
    "odd/disk0/links/1",
    "group/disk0/vg-root",
    "group/disk0/vg-root/note",
)

Seen = tuple[Attributes, object]


def seen_by(client: Client, handle: bytes) -> Seen:
    """Return everything that a handle leads to."""
    found = client.attributes(handle)
    if found.kind == FOLDER:
        return found, sorted(client.names(handle))
    if found.kind == LINK:
        return found, client.readlink(handle)
    return found, content(client, handle, found.size)


def test_handles_outlive_detach_caches_and_restart(repository: Path, tmp_path: Path) -> None:
    require("ganesha.nfsd")
    with ExitStack() as stack:
        place = stack.enter_context(nfs_place())
        first = stack.enter_context(served("--images", repository, place=place))
        first.expect("WARNING .*LUKS")  # the server asks for attributes of all it lists
        server = stack.enter_context(exported(place.mountpoint, tmp_path / "ganesha"))
        with Client(server.port) as client:
            handles = {path: client.handle(*BACKUPS, *path.split("/")) for path in PATHS}
            before = {path: seen_by(client, handle) for path, handle in handles.items()}
            assert before[f"{WEB}/etc/hostname"][1] == b"web\n"
            assert before[DATA][1] == [b"big", b"lost+found", b"small"]

            def same_as_before() -> None:
                for path, handle in handles.items():
                    assert seen_by(client, handle) == before[path], path

            for name in list(first.attached()):
                backup, _, index = name.rpartition("/disk")
                assert first.cli("detach", backup, index).code == 0
            assert first.attached() == {}
            same_as_before()
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
            same_as_before()
            for name in list(first.attached()):
                backup, _, index = name.rpartition("/disk")
                assert first.cli("detach", backup, index).code == 0
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
            same_as_before()

            device = place.mountpoint.stat().st_dev
            first.check()
            second = stack.enter_context(served("--images", repository, place=place))
            second.expect("WARNING .*LUKS")
            assert place.mountpoint.stat().st_dev != device, "the server has the old mount open"
            for path, handle in handles.items():
                # Until the server is started again: nothing is stale, and nothing looks empty.
                if before[path][0].kind == FOLDER:
                    assert nfs_error(client.names, handle) == "SERVERFAULT", path
                else:
                    assert nfs_error(client.attributes, handle) in {"SERVERFAULT", ""}, path
        server.stop()
        server.start()
        with Client(server.port) as client:
            # By their handles, which nobody has looked up in this daemon and this server.
            for path, handle in handles.items():
                assert seen_by(client, handle) == before[path], path
            for path, handle in handles.items():
                assert client.handle(*BACKUPS, *path.split("/")) == handle


def test_a_handle_is_stale_when_the_backup_is_gone(
    sample: Sample, catalog: Path, tmp_path: Path
) -> None:
    require("ganesha.nfsd")
    options = ("--catalog", f"sqlite:///{catalog}", "--repository", sample.repository)
    with shared_by(tmp_path, *options) as shared:
        client = shared.client
        shared.daemon.expect("WARNING .*LUKS")
        paths = (Sample.full, f"{Sample.full}/disk0", WEB, f"{WEB}/etc", DATA, f"{DATA}/big")
        handles = {path: shared.handle(path) for path in paths}
        other = shared.handle(f"{Sample.other}/disk0/part1")
        for handle in handles.values():
            seen_by(client, handle)
        with closing(sqlite3.connect(catalog)) as database, database:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("DELETE FROM backup_jobs WHERE id = ?", [Sample.full])
        shared.daemon.send(signal.SIGHUP)
        shared.daemon.wait_logged(f"detached {DATA}: it left the catalog")
        for path, handle in handles.items():
            wait_until(
                lambda handle=handle: nfs_error(client.attributes, handle) == "STALE",  # type: ignore[misc]
                f"{path} is stale",
            )
            assert nfs_error(client.names, handle) in {"STALE", "NOTDIR"}
        assert nfs_error(shared.handle, Sample.full) == "NOENT"
        assert b"note" in client.names(other)


def test_every_node_has_a_handle_that_lasts(repository: Path, serve: Serve, place: Place) -> None:
    """By the kernel's own calls, without a server in between: of folders above the guests, of
    volumes, of files with several names, and of what is neither file nor folder."""
    require_root()
    top = place.mountpoint
    unreadable = (
        "foreign/disk0",
        f"{Sample.full}/disk0/part5",
        f"{Sample.incremental}/disk0/part5",
        "broken/disk0",
    )
    first = serve("--images", repository, place=place)
    first.expect("ERROR broken/disk0.*truncated", "WARNING .*LUKS", "WARNING foreign/disk0: ")
    handles: dict[bytes, tuple[bytes, os.stat_result]] = {}
    pending = [top]
    while pending:
        path = pending.pop()
        found = path.lstat()
        handles[os.fsencode(path)] = handle_of(path), found
        if stat.S_ISDIR(found.st_mode):
            if str(path.relative_to(top)).removeprefix("backups/") in unreadable:
                assert error_of(os.listdir, path) in {"EIO", "ENOKEY", "EOPNOTSUPP"}
            else:
                pending += path.iterdir()
    assert len(handles) > 1900
    numbers = {found.st_ino: handle for handle, found in handles.values()}
    assert all(numbers[found.st_ino] == handle for handle, found in handles.values())
    first.check()
    second = serve("--images", repository, place=place)
    for name, (handle, found) in handles.items():
        fd = open_handle(handle, top, os.O_PATH)
        try:
            now = os.fstat(fd)
        finally:
            os.close(fd)
        assert now.st_ino == found.st_ino, name
        assert stat.S_IFMT(now.st_mode) == stat.S_IFMT(found.st_mode), name
    assert second.attached()
