"""A catalog with paths and URIs, through the mount and the command line."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.mounted.conftest import Serve
from tests.mounted.daemon import restorefs
from tests.mounted.disks import Sample
from tests.mounted.reading import error_of
from tests.tools import require
from tests.web import WebServer, make_certificate, silent_server, web_server

WEB1, OTHER = f"{Sample.full}/disk1", f"{Sample.other}/disk0"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


@pytest.fixture
def web(certificate: Path, sample: Sample) -> Iterator[WebServer]:
    require("nbdkit")
    with web_server(certificate) as web:
        web.contents["data.qcow2"] = (sample.repository / f"{WEB1}.qcow2").read_bytes
        yield web


def name(catalog: Path, disk: str, uri: str) -> None:
    """Have the catalog name an image by a URI."""
    backup, index = disk.split("/disk")
    with closing(sqlite3.connect(catalog)) as database, database:
        changed = database.execute(
            "UPDATE backup_disks SET qcow2_path = ? WHERE backup_job_id = ? AND disk_index = ?",
            (uri, backup, index),
        )
        assert changed.rowcount == 1


def test_paths_and_uris_side_by_side(
    serve: Serve, catalog: Path, sample: Sample, web: WebServer, certificate: Path
) -> None:
    web.login = "anna:s3cret"
    name(catalog, WEB1, web.url("data.qcow2?t0ken", "anna:s3cret@"))
    daemon = serve(
        *("--catalog", f"sqlite:///{catalog}", "--repository", sample.repository),
        *("--allow-scheme", "https", "--allow-scheme", "rbd", "--tls-ca", certificate),
    )
    big = daemon.backups / WEB1 / "big"
    assert big.read_bytes() == (sample.sources.data / "big").read_bytes()
    assert (daemon.backups / OTHER / "part1/note").exists()
    shown = f"https://***@localhost:{web.port}/data.qcow2?***"
    said = daemon.cli("disks", sample.full)
    assert shown in said.out
    assert shown in daemon.log
    for text in (said.out, said.err, daemon.log, str(daemon.status())):
        assert "s3cret" not in text
        assert "t0ken" not in text


def test_what_is_not_allowed_says_which_option(serve: Serve, catalog: Path, web: WebServer) -> None:
    name(catalog, WEB1, web.url("data.qcow2"))
    daemon = serve("--catalog", f"sqlite:///{catalog}", "--allow-scheme", "http")
    daemon.expect(r"https is not allowed; .*--allow-scheme https")
    assert error_of((daemon.backups / WEB1 / "big").read_bytes) == "EIO"
    assert (daemon.backups / OTHER / "part1/note").exists()
    assert web.requests == []


def test_a_certificate_that_is_not_known(serve: Serve, catalog: Path, web: WebServer) -> None:
    name(catalog, WEB1, web.url("data.qcow2"))
    how = ("--catalog", f"sqlite:///{catalog}", "--allow-scheme", "https")
    daemon = serve(*how)
    daemon.expect("certificate")
    assert error_of((daemon.backups / WEB1 / "small").read_bytes) == "EIO"
    daemon.check()
    daemon = serve(*how, "--no-tls-verify")
    assert (daemon.backups / WEB1 / "small").read_text() == "small\n"


def test_a_silent_server_disturbs_no_other_disk(serve: Serve, catalog: Path) -> None:
    with silent_server() as port:
        name(catalog, WEB1, f"nbd://localhost:{port}/x")
        daemon = serve(
            *("--catalog", f"sqlite:///{catalog}", "--allow-scheme", "nbd"),
            *("--attach-timeout", "1s"),
        )
        daemon.expect(f"attaching nbd://localhost:{port}/x took more than 1 s")
        assert error_of((daemon.backups / WEB1 / "small").read_bytes) == "ETIMEDOUT"
        assert (daemon.backups / OTHER / "part1/note").exists()


def test_check_understands_uris_and_asks_no_server(catalog: Path, web: WebServer) -> None:
    name(catalog, WEB1, web.url("data.qcow2", "anna:s3cret@"))
    done = restorefs("check", "--catalog", f"sqlite:///{catalog}", "--json")
    found = {finding["subject"]: finding for finding in done.json}
    assert found[WEB1]["ok"]
    assert "--allow-scheme https" in found[WEB1]["detail"]
    assert found[OTHER]["ok"]
    name(catalog, WEB1, "ssh://anna:s3cret@host/x")
    done = restorefs("check", "--catalog", f"sqlite:///{catalog}", "--json")
    found = {finding["subject"]: finding for finding in done.json}
    assert not found[WEB1]["ok"]
    assert "ssh" in found[WEB1]["detail"]
    assert "s3cret" not in done.out + done.err
    assert web.requests == []
    assert restorefs("mount", "--allow-scheme", "ssh", "/mnt").code == 2
