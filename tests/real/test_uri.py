"""Disks that a URI names, with real servers: web servers, NBD servers, and such as say nothing.

What must be read is what was written into the image by qemu-img.
"""

import errno
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from restorefs.catalog.records import DiskRecord
from restorefs.errors import AttachTimeoutError, KeyNeededError, RestoreError, StorageError
from restorefs.session.pool import Pool
from restorefs.session.uri import WebOptions
from tests.real.attached import disk_content, qcow2, running_pool, servers, until
from tests.tools import require, run, wait_until
from tests.web import WebServer, make_certificate, silent_server, web_server

CONTENT = disk_content(3 << 20)


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-nbd", "setpriv", "nbdkit")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2(CONTENT, tmp_path_factory.mktemp("uri") / "disk.qcow2")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web(image: Path) -> Iterator[WebServer]:
    """A web server with the image as `disk.qcow2`."""
    with web_server() as web:
        web.contents["disk.qcow2"] = image.read_bytes
        yield web


@contextmanager
def nbd_server(image: Path, export: str) -> Iterator[Path]:
    """Have another qemu-nbd serve an image on a socket; yields its path."""
    path = image.with_name("nbd.sock")
    pidfile = image.with_name("nbd.pid")
    run(  # not as a child: those are the pool's
        *("qemu-nbd", "--fork", "--pid-file", pidfile, "--read-only", "--persistent"),
        *("-f", "qcow2", "--socket", path, "-x", export, image),
    )
    with ending(pidfile):
        yield path
    path.unlink()


@contextmanager
def ending(pidfile: Path) -> Iterator[None]:
    """End a server that is no child of ours afterwards."""
    wait_until(lambda: pidfile.exists() and pidfile.read_text().endswith("\n"), "it has started")
    server = os.pidfd_open(int(pidfile.read_text()))
    try:
        yield
    finally:
        signal.pidfd_send_signal(server, signal.SIGKILL)
        select.select([server], [], [])
        os.close(server)


def record_of(uri: str, number: int = 1) -> DiskRecord:
    return DiskRecord(number, "b1", number, uri)


async def check(pool: Pool, record: DiskRecord) -> None:
    """Assert that a disk reads right."""
    async with pool.use(record) as disk:
        assert await disk.device.read(0, len(CONTENT)) == CONTENT


async def failure_of(pool: Pool, record: DiskRecord) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        async with pool.use(record):
            pass
    return caught.value


async def failure_at(uri: str, schemes: Sequence[str] = ("http", "https", "nbd")) -> RestoreError:
    async with running_pool(schemes=schemes) as pool:
        return await failure_of(pool, record_of(uri))


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


# --- what may be followed ------------------------------------------------------------------------


async def test_without_permission_no_server_is_asked(web: WebServer) -> None:
    error = await failure_at(web.url("disk.qcow2", "u:secret@"), ("https", "nbd"))
    assert type(error) is StorageError
    assert error.errno == errno.EIO
    assert "--allow-scheme http" in str(error)
    assert f"http://***@localhost:{web.port}/disk.qcow2" in str(error)
    assert web.requests == []


async def test_files_and_uris_side_by_side(web: WebServer, image: Path) -> None:
    with nbd_server(image, "disk 0") as path:
        async with running_pool(schemes=("http", "nbd+unix")) as pool:
            await check(pool, record_of(str(image), 1))
            await check(pool, record_of(web.url("disk.qcow2"), 2))
            await check(pool, record_of(f"nbd+unix:///disk%200?socket={path}", 3))
            assert len(servers()) == 4


async def test_confinement_is_for_files(web: WebServer, image: Path, tmp_path: Path) -> None:
    async with running_pool(repositories=[tmp_path], schemes=("http",)) as pool:
        assert "outside of the repository" in str(await failure_of(pool, record_of(str(image))))
        await check(pool, record_of(web.url("disk.qcow2")))


# --- web servers ---------------------------------------------------------------------------------


async def test_a_certificate_is_checked_unless_told_otherwise(
    image: Path, certificate: Path
) -> None:
    with web_server(certificate) as web:
        web.contents["disk.qcow2"] = image.read_bytes
        record = record_of(web.url("disk.qcow2"))
        async with running_pool(schemes=("https",)) as pool:
            error = await failure_of(pool, record)
            assert "certificate" in str(error)
            assert web.requests == []
        for web_options in (WebOptions(tls_verify=False), WebOptions(tls_ca=certificate)):
            async with running_pool(schemes=("https",), web=web_options) as pool:
                await check(pool, record)


async def test_a_password_goes_to_the_server_and_nowhere_else(
    web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    web.login = 'anna:s3cret,"%:ä'
    login = "anna:s3cret,%22%25%3A%C3%A4@"
    async with running_pool(schemes=("http",)) as pool:
        record = record_of(web.url("disk.qcow2?token=t0ken", login))
        async with pool.use(record):
            assert len(servers()) == 2
            assert not any("s3cret" in arguments(pid) for pid in servers())
        await check(pool, record)
        assert ("GET", "disk.qcow2?token=t0ken") in web.requests
        wrong = record_of(web.url("disk.qcow2?token=t0ken", "anna:s3cret2@"), 2)
        error = await failure_of(pool, wrong)
        assert "401" in str(error)
        assert f"http://***@localhost:{web.port}/disk.qcow2?***" in str(error)
        said = f"{error} {pool.failures} {caplog.text}"
    assert "s3cret" not in said
    assert "t0ken" not in said


async def test_what_a_web_server_does_not_have(web: WebServer) -> None:
    error = await failure_at(web.url("other.qcow2"))
    assert "404" in str(error)
    assert web.url("other.qcow2") in str(error)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure_at(f"http://localhost:{unused.getsockname()[1]}/x")
    assert "onnect" in str(error)


def with_backing(folder: Path) -> Path:
    target = folder / "target.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", target, "1M")
    image = folder / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", target, image)
    return image


def with_data_file(folder: Path) -> Path:
    image = folder / "image.qcow2"
    data = folder / "target.raw"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, "1M")
    return image


def encrypted(folder: Path) -> Path:
    image = folder / "image.qcow2"
    run(
        *("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=secret"),
        *("-o", "encrypt.format=aes,encrypt.key-secret=s", image, "1M"),
    )
    return image


def cut(folder: Path) -> Path:
    image = qcow2(CONTENT, folder / "image.qcow2")
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - (64 << 10))
    return image


def no_qcow2(folder: Path) -> Path:
    image = folder / "image.qcow2"
    image.write_bytes(CONTENT)
    return image


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (with_backing, StorageError, "it has a backing file, .*/target.qcow2"),
        (with_data_file, StorageError, "external data file"),
        (encrypted, KeyNeededError, "encrypted"),
        (cut, StorageError, "truncated"),
        (no_qcow2, StorageError, "not a qcow2 image"),
    ],
)
async def test_an_image_that_is_not_whole_in_itself(
    make: Callable[[Path], Path], kind: type[RestoreError], reason: str, tmp_path: Path
) -> None:
    image = make(tmp_path)
    with web_server() as web:
        web.contents["x.qcow2"] = image.read_bytes
        async with running_pool(schemes=("http",)) as pool:
            with pytest.raises(kind, match=reason) as caught:
                async with pool.use(record_of(web.url("x.qcow2"))):
                    pass
            assert web.url("x.qcow2") in str(caught.value)
            assert servers() == []


async def test_a_server_that_shows_qemu_another_header(tmp_path: Path) -> None:
    """A plain image while we look, then one whose data is said to lie in a file of this machine."""
    hostile = with_data_file(tmp_path).read_bytes()
    (tmp_path / "target.raw").write_bytes(b"not for everybody".ljust(1 << 20))
    plain = qcow2(bytes(1 << 20), tmp_path / "plain.qcow2").read_bytes()
    hostile = hostile.ljust(len(plain), b"\0")

    def content() -> bytes:
        return plain if sum(method == "HEAD" for method, _ in web.requests) < 2 else hostile

    with web_server() as web:
        web.contents["x.qcow2"] = content
        async with running_pool(schemes=("http",)) as pool:
            error = await failure_of(pool, record_of(web.url("x.qcow2")))
        looks = sum(method == "HEAD" for method, _ in web.requests)
    assert looks == 2
    assert f"it made qemu open {tmp_path / 'target.raw'}" in str(error)


async def test_a_server_that_shows_qemu_another_backing_file(tmp_path: Path) -> None:
    """It is not followed: what the image does not have itself is zeros, as for any damaged one."""
    hostile = with_backing(tmp_path).read_bytes()
    plain = qcow2(bytes(1 << 20), tmp_path / "plain.qcow2").read_bytes()
    hostile = hostile.ljust(len(plain), b"\0")
    with web_server() as web:
        web.contents["x.qcow2"] = lambda: (
            plain if sum(method == "HEAD" for method, _ in web.requests) < 2 else hostile
        )
        record = record_of(web.url("x.qcow2"))
        async with running_pool(schemes=("http",)) as pool, pool.use(record) as disk:
            opened = disk.server.opened_files()
            assert await disk.device.read(0, 1 << 20) == bytes(1 << 20)
    assert opened == []


# --- NBD servers ---------------------------------------------------------------------------------


async def test_a_disk_by_nbd_is_raw_whatever_it_begins_with(image: Path, tmp_path: Path) -> None:
    """A guest may write a qcow2 header to its disk: it stays a disk's content."""
    disk = qcow2(image, tmp_path / "outer.qcow2")
    with nbd_server(disk, "x") as path:
        record = record_of(f"nbd+unix:///x?socket={path}")
        async with running_pool(schemes=("nbd+unix",)) as pool, pool.use(record) as attached:
            inside = image.read_bytes()
            assert await attached.device.read(0, len(inside)) == inside


async def test_nbd_by_tcp(image: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    raw, pidfile = image.with_suffix(".raw"), image.with_name("nbdkit.pid")
    run("nbdkit", "-r", "-i", "127.0.0.1", "-p", str(port), "-P", pidfile, "file", raw)
    with ending(pidfile):
        async with running_pool(schemes=("nbd",)) as pool:
            await check(pool, record_of(f"nbd://127.0.0.1:{port}/"))


async def test_an_export_or_a_socket_that_is_not_there(image: Path, tmp_path: Path) -> None:
    with nbd_server(image, "x") as path:
        error = await failure_at(f"nbd+unix:///y?socket={path}", ["nbd+unix"])
    assert f"nbd+unix:///y?socket={path}" in str(error)
    assert "export" in str(error)
    error = await failure_at(f"nbd+unix:///?socket={tmp_path}/none", ["nbd+unix"])
    assert "No such file" in str(error)


async def test_an_nbd_server_that_ends_fails_the_reads_and_comes_back(image: Path) -> None:
    async with running_pool(schemes=("nbd+unix",)) as pool:
        with nbd_server(image, "x") as path:
            record = record_of(f"nbd+unix:///x?socket={path}")
            await check(pool, record)
        async with pool.use(record) as disk:
            with pytest.raises(StorageError):
                disk.device.cache.unpin(await disk.device.cache.pin(disk.device, 1 << 20, 4096))
        await pool.detach(1, "for the test")
        with nbd_server(image, "x"):
            await check(pool, record)


# --- servers that say nothing --------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["https://localhost:%d/x", "http://localhost:%d/", "nbd://localhost:%d"]
)
async def test_a_silent_server_is_given_up_and_disturbs_nobody(
    uri: str, image: Path, mock_clock: MockClock
) -> None:
    with silent_server() as port:
        async with running_pool(schemes=("http", "https", "nbd")) as pool:
            errors: list[RestoreError] = []
            record = record_of(uri % port)

            async def fail() -> None:
                errors.append(await failure_of(pool, record))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                await until(lambda: len(servers()) == 1)
                await check(pool, record_of(str(image), 2))
                mock_clock.jump(21)
            assert type(errors[0]) is AttachTimeoutError
            assert record.qcow2_path in str(errors[0])
            assert len(servers()) == 1


async def test_a_server_that_stops_answering_while_it_is_looked_at(
    web: WebServer, image: Path, mock_clock: MockClock
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def content() -> bytes:
        if web.requests[-1][0] == "GET":
            asked.set()
            assert answers.wait(60)
        return image.read_bytes()

    web.contents["disk.qcow2"] = content
    record = record_of(web.url("disk.qcow2"))
    async with running_pool(schemes=("http",)) as pool:
        errors: list[RestoreError] = []

        async def fail() -> None:
            errors.append(await failure_of(pool, record))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await until(asked.is_set)
            mock_clock.jump(21)
        assert type(errors[0]) is AttachTimeoutError
        assert servers() == []
        answers.set()
        await check(pool, record)


async def test_a_read_that_is_not_answered(web: WebServer, mock_clock: MockClock) -> None:
    async with running_pool(schemes=("http",)) as pool:
        async with pool.use(record_of(web.url("disk.qcow2"))) as disk:
            web.answers.clear()
            known = len(web.requests)
            errors: list[RestoreError] = []

            async def read() -> None:
                try:
                    await disk.device.read(0, len(CONTENT))
                except RestoreError as error:
                    errors.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await until(lambda: len(web.requests) > known)
                mock_clock.jump(61)
            assert type(errors[0]) is AttachTimeoutError
        web.answers.set()
        await check(pool, record_of(web.url("disk.qcow2")))


# --- Ceph ----------------------------------------------------------------------------------------


async def test_qemu_understands_the_graph_of_a_ceph_image(tmp_path: Path) -> None:
    """As far as it goes without a cluster: every option is known to the driver."""
    conf = tmp_path / "none.conf"
    uri = f"rbd:pool/space/image@snapshot:id=restore:conf={conf}"
    error = await failure_at(uri, ["rbd"])
    if "has no driver" in str(error):
        pytest.skip(str(error))
    assert f"error reading conf file {conf}" in str(error)
    assert uri in str(error)
