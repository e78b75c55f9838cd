"""The API when storage fails, when too much is asked at once, and when somebody leaves."""

import itertools
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.mounted.api import Api, api
from tests.mounted.conftest import Serve
from tests.mounted.disks import MIB, Sample, copy_of, image_on_bad_storage
from tests.tools import require, run, wait_until


@pytest.fixture
def found(sample: Sample, tmp_path: Path) -> Iterator[Api]:
    with api(tmp_path, "--images", sample.repository) as started:
        yield started


def test_only_so_many_archives_at_once(found: Api, sample: Sample) -> None:
    mount = found.mount(sample.full, 1)
    url = f"/api/v1/restore/{mount}/archive?path=/&format=tar.zst"
    with ExitStack() as under_way:
        for _ in range(4):
            client = under_way.enter_context(found.as_token(found.token))
            stream = under_way.enter_context(client.stream("GET", url))
            assert stream.status_code == 200
        refused = found.client.get(url)
        assert found.problem(refused) == (429, None)
        assert int(refused.headers["retry-after"]) > 0
        assert found.raw(mount, "download", "/small").content == b"small\n", "of another kind"
    wait_until(lambda: found.client.head(url).status_code == 200, "their places are free")


def test_others_are_answered_while_many_download(found: Api, sample: Sample) -> None:
    mount = found.mount(sample.full, 1)
    content = (sample.sources.data / "big").read_bytes()
    wrong: list[int] = []

    def download() -> None:
        with found.as_token(found.token) as client:
            got = client.get(f"/api/v1/restore/{mount}/download?path=/big").content
            if got != content:
                wrong.append(len(got))

    threads = [threading.Thread(target=download) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert found.get(f"/restore/{mount}/files")["total_count"] == 3
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_more_files_can_be_opened(serve: Serve, sample: Sample) -> None:
    """Who wants to connect waits; the log does not fill."""
    require("prlimit")
    daemon = serve("--images", sample.repository)
    daemon.expect("WARNING the API takes no connection for now: Too many open files")
    (path,) = daemon.place.runtime_dir.glob("*/control.sock")
    prlimit = ("prlimit", "--pid", str(daemon.pid))
    before = run(*prlimit, "--nofile", "--noheadings", "--raw", "--output", "SOFT").strip()
    open_now = {int(fd.name) for fd in Path(f"/proc/{daemon.pid}/fd").iterdir()}
    first_free = next(number for number in itertools.count() if number not in open_now)
    run(*prlimit, f"--nofile={first_free}:")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        daemon.wait_logged("takes no connection")
        # What is mounted goes on.
        assert list(daemon.backups.iterdir())
        run(*prlimit, f"--nofile={before}:")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert len(daemon.logged("takes no connection")) == 1


def test_an_image_that_is_gone(sample: Sample, catalog: Path, tmp_path: Path) -> None:
    """In the catalog, but not in its place."""
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("UPDATE backup_disks SET qcow2_path = qcow2_path || '.gone'")
    with api(tmp_path, "--catalog", f"sqlite:///{catalog}") as found:
        found.daemon.expect("disk1.qcow2.gone")
        body = {"backup_id": sample.full, "disk_index": 1}
        failed = found.client.post("/api/v1/restore/mount", json=body)
        assert found.problem(failed) == (502, "EIO")
        (failure,) = found.get("/status")["failures"]
        assert "disk1.qcow2.gone" in failure["reason"]
        disks = found.get(f"/backups/{sample.full}/disks")
        assert disks["count"] == 2, "what the catalog says is told all the same"


def test_a_backup_that_is_deleted_while_it_is_mounted(sample: Sample, tmp_path: Path) -> None:
    repository = copy_of(sample.repository, tmp_path)
    with api(tmp_path, "--images", repository) as found:
        mount = found.mount(sample.other)
        shutil.rmtree(repository / sample.other)
        changed = found.client.post("/api/v1/reload").json()
        assert changed["removed"] == [sample.other]
        assert found.problem(found.raw(mount, "files")) == (410, "ESTALE")
        again = found.client.post("/api/v1/restore/mount", json={"backup_id": sample.other})
        assert found.problem(again) == (410, "ESTALE"), "and not as one that never was"
        disks = found.client.get(f"/api/v1/backups/{sample.other}/disks")
        assert found.problem(disks) == (410, "ESTALE")
        shutil.copytree(sample.repository / sample.other, repository / sample.other)
        assert found.client.post("/api/v1/reload").json()["added"] == [sample.other]
        assert found.get(f"/backups/{sample.other}/disks")["count"] == 1


def test_storage_that_fails_in_the_middle(sample: Sample, tmp_path: Path) -> None:
    """What cannot be read is never sent as something else, and never ends as if it were whole."""
    trouble = tmp_path / "trouble"
    repository = tmp_path / "repository"
    folder = repository / "backup-bad-1700000000"
    folder.mkdir(parents=True)
    image = sample.repository / sample.full / "disk1.qcow2"
    with image_on_bad_storage(image, folder / "disk0.qcow2", trouble):
        options = ("--images", repository, "--cache-size", "16M")
        with api(tmp_path, *options) as found:
            mount = found.mount("backup-bad-1700000000")
            content = (sample.sources.data / "big").read_bytes()
            path = f"/api/v1/restore/{mount}/download?path=/big"
            with found.client.stream("GET", path) as response:
                pieces = response.iter_raw(MIB)
                got = bytearray(next(pieces))
                trouble.touch()
                with pytest.raises(httpx.RemoteProtocolError):
                    got.extend(itertools.chain.from_iterable(pieces))
            assert 0 < len(got) < len(content)
            assert content.startswith(got)
            last = found.raw(mount, "download", "/big", headers={"Range": "bytes=-4096"})
            assert found.problem(last) == (502, "EIO"), "what fails at once is a problem"
            found.daemon.expect("backup-bad-1700000000", "was broken off")
            trouble.unlink()
            rest = {"Range": f"bytes={len(got)}-", "If-Range": response.headers["etag"]}
            got += found.raw(mount, "download", "/big", headers=rest).content
            assert got == content


def test_two_disks_are_downloaded_with_one_slot(sample: Sample, tmp_path: Path) -> None:
    """Neither is broken off for the other's sake: requests are short, and wait for each other."""
    with api(tmp_path, "--images", sample.repository, "--max-attached", "1") as found:
        big = (sample.sources.data / "big").read_bytes()
        mount, other = found.mount(sample.full, 1), found.mount(sample.other)
        with (
            found.client.stream("GET", f"/api/v1/restore/{mount}/download?path=/big") as response,
            found.as_token(found.token) as client,
        ):
            got = bytearray()
            for piece in response.iter_raw(MIB):
                got += piece
                listed = client.get(f"/api/v1/restore/{other}/files?path=/")
                assert listed.status_code == 200
        assert got == big


def test_versions_of_a_file_with_one_slot(sample: Sample, tmp_path: Path) -> None:
    """The disks are looked at, and compared, one after the other."""
    with api(tmp_path, "--images", sample.repository, "--max-attached", "1") as found:
        told = found.get("/versions", vm="web", path="/part3/var/log/app.8.log")
        assert [each["differs"] for each in told["versions"]] == [True, None]
        assert told["errors"] == []


@pytest.mark.parametrize("how", ["abort", "list"])
def test_storage_that_fails_in_the_middle_of_an_archive(
    sample: Sample, tmp_path: Path, how: str
) -> None:
    """What was read till then is there, and no program takes it for all."""
    trouble = tmp_path / "trouble"
    repository = tmp_path / "repository"
    folder = repository / "backup-bad-1700000000"
    folder.mkdir(parents=True)
    image = sample.repository / sample.full / "disk1.qcow2"
    with image_on_bad_storage(image, folder / "disk0.qcow2", trouble):
        options = ("--images", repository, "--cache-size", "16M")
        with api(tmp_path, *options) as found:
            mount = found.mount("backup-bad-1700000000")
            path = f"/api/v1/restore/{mount}/archive?path=/big&format=tar.zst&errors={how}"
            with found.client.stream("GET", path) as response:
                got = bytearray()
                with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the pieces are kept
                    for piece in response.iter_raw():
                        got += piece
                        trouble.touch()
            found.daemon.expect("was broken off", "backup-bad-1700000000")
    tested = subprocess.run(["zstd", "-dc"], input=got, capture_output=True, check=False)
    assert tested.returncode != 0
    content = (sample.sources.data / "big").read_bytes()
    packed = tested.stdout[512:]  # behind the header
    assert packed.endswith(b"this archive is not complete")
    packed = packed.removesuffix(b"this archive is not complete")
    assert MIB <= len(packed) < len(content)
    assert content.startswith(packed)
    listed = subprocess.run(["tar", "-t"], input=tested.stdout, capture_output=True, check=False)
    assert listed.returncode != 0
    assert listed.stdout == b"big\n"
