"""What a URI names, how its server is asked, and what of it is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from restorefs.catalog.records import DiskRecord, redacted
from restorefs.errors import StorageError
from restorefs.session.uri import (
    DEFAULT_WEB,
    SCHEMES,
    RawDisk,
    WebImage,
    WebOptions,
    parse,
)


def graph(uri: str) -> Any:
    """Return the block graph of a disk."""
    disk = parse(uri, SCHEMES)
    assert isinstance(disk, RawDisk)
    return json.loads(disk.blockdev().removeprefix("json:"))


def image(uri: str, web: WebOptions = DEFAULT_WEB) -> WebImage:
    found = parse(uri, SCHEMES, web)
    assert isinstance(found, WebImage)
    return found


def refusal(uri: str, allowed: tuple[str, ...] = SCHEMES) -> str:
    with pytest.raises(StorageError) as caught:
        parse(uri, allowed)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_a_web_server_gives_a_qcow2_image_that_refers_to_nothing() -> None:
    web = image("https://h.example:8443/b/disk0.qcow2")
    assert json.loads(web.blockdev(Path("/run/x.sock")).removeprefix("json:")) == {
        "driver": "qcow2",
        "backing": None,
        "file": {"driver": "nbd", "server": {"type": "unix", "path": "/run/x.sock"}},
    }
    assert list(web.arguments) == [
        *("--foreground", "--readonly", "curl"),
        *("url=https://h.example:8443/b/disk0.qcow2", "protocols=https"),
    ]


def test_an_address_is_passed_on_as_it_is_written() -> None:
    assert "url=http://h/a@b%20c?v=1" in image("HTTP://h/a@b%20c?v=1#part").arguments
    assert "url=https://[fe80::1]:1/x" in image("https://[fe80::1]:1/x").arguments


def test_how_a_web_server_is_asked() -> None:
    for seconds, told in ((0.1, 1), (1.5, 2), (60, 60)):
        assert f"timeout={told}" in image("http://h/x", WebOptions(timeout=seconds)).arguments
    assert "sslverify=false" in image("https://h/x", WebOptions(tls_verify=False)).arguments
    ca = WebOptions(tls_ca=Path("/etc/ca.pem"))
    assert "cainfo=/etc/ca.pem" in image("https://h/x", ca).arguments


def test_a_password_is_not_among_the_arguments() -> None:
    web = image("https://us%40er:p%3Aw@h/x?token=t")
    assert web.password == "p:w"
    assert "user=us@er" in web.arguments
    assert "password=-{secret}" in web.arguments
    assert "url=https://h/x?token=t" in web.arguments
    assert not any("p:w" in each or "p%3Aw" in each for each in web.arguments)


def test_an_nbd_server_gives_a_raw_disk() -> None:
    assert graph("nbd://storage:1234/disks/0") == {
        "driver": "raw",
        "file": {
            "driver": "nbd",
            "server": {"type": "inet", "host": "storage", "port": "1234"},
            "export": "disks/0",
        },
    }
    assert graph("nbd://[::1]/")["file"]["server"] == {
        "type": "inet",
        "host": "::1",
        "port": "10809",
    }
    assert graph("nbd+unix:///disk%200?socket=/run/a%20b")["file"] == {
        "driver": "nbd",
        "server": {"type": "unix", "path": "/run/a b"},
        "export": "disk 0",
    }


def test_ceph_gives_a_raw_disk() -> None:
    assert graph("rbd:backups/web-disk0@friday") == {
        "driver": "raw",
        "file": {"driver": "rbd", "pool": "backups", "image": "web-disk0", "snapshot": "friday"},
    }
    assert graph(r"rbd:p/ns/a\@b\:c:id=restore:conf=/etc/ceph/other.conf")["file"] == {
        "driver": "rbd",
        "pool": "p",
        "namespace": "ns",
        "image": "a@b:c",
        "user": "restore",
        "conf": "/etc/ceph/other.conf",
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_permission_the_option_is_named(scheme: str) -> None:
    others = tuple(name for name in SCHEMES if name != scheme)
    assert f"--allow-scheme {scheme}" in refusal(f"{scheme}://secret", others)
    assert f"--allow-scheme {scheme}" in refusal(f"{scheme.upper()}://secret", ())


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ssh://secret/x", "no images are read by ssh"),
        ("file:/etc/secret", "no images are read by file"),
        ('json:{"driver":"secret"}', "no images are read by json"),
        ("https:secret", "well-formed"),
        ("https:///secret", "well-formed"),
        ("https://h:secret/x", "well-formed"),
        ("https://h:99999/secret", "well-formed"),
        ("https://[secret/x", "well-formed"),
        ("https://h/secret image", "percent-encoded"),
        ("https://h/sécret", "percent-encoded"),
        ('https://h/"secret', "percent-encoded"),
        ("https://h/secret\n", "do not print"),
        ("https://h/" + "secret" * 400, "longer than 2048"),
        ("nbd:localhost:10809:exportname=secret", "names no host"),
        ("nbd:unix:/secret", "names no host"),
        ("nbd://u:secret@h/x", "no users"),
        ("nbd+unix:///x", "names no socket"),
        ("nbd+unix:///x?socket=secret", "names no socket"),
        ("nbd+unix://h/x?socket=/secret", "names no socket"),
        ("nbd+unix:///x?socket=/a&socket=/secret", "names no socket"),
        ("rbd:secret", "expected rbd:"),
        ("rbd:p/", "expected rbd:"),
        ("rbd:p/i@a@secret", "expected rbd:"),
        ("rbd:a/b/c/secret", "expected rbd:"),
        ("rbd:p/i:key=secret", "only id and conf"),
        ("rbd:p/i:conf", "only id and conf"),
    ],
)
def test_what_cannot_be_is_refused(uri: str, reason: str) -> None:
    assert reason in refusal(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://h:8443/b@1/disk0.qcow2", "https://h:8443/b@1/disk0.qcow2"),
        ("https://u:secret@h/x?sig=secret", "https://***@h/x?***"),
        ("https://secret@h/x", "https://***@h/x"),
        ("https://u:sec@ret@h/x", "https://***@h/x"),
        ("https://u:sec/ret@h/x", "https://***"),
        ("https://u:sec?ret@h/x", "https://***"),
        ("https:u:secret@h/x", "https:***"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("ftp://u:secret@h/x", "ftp://***@h/x"),
        ("nbd+unix:///x?socket=/run/s", "nbd+unix:///x?socket=/run/s"),
        ("rbd:p/i:id=a:conf=/c", "rbd:p/i:id=a:conf=/c"),
        ("rbd:p/i:id=a:key=secret:x=y", "rbd:p/i:id=a:key=***"),
    ],
)
def test_no_secret_is_shown(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert DiskRecord(1, "b", 0, uri).shown_path == shown


def test_paths_are_no_uris() -> None:
    for path in ("/srv/b:c/disk0.qcow2", "relative/a:b", "/a?b", "", "disk0.qcow2", "./a:b"):
        record = DiskRecord(1, "b", 0, path)
        assert record.scheme is None
        assert record.shown_path == path
    assert DiskRecord(1, "b", 0, "NBD+Unix:///x").scheme == "nbd+unix"


def test_what_servers_say_is_explained() -> None:
    web = image("https://h/x?sig=secret")
    assert "nbdkit-curl-plugin" in web.explain("nbdkit: error: cannot open plugin 'curl': ...")
    assert web.explain("cannot get /x?sig=secret") == "cannot get /x?***"
    disk = parse("rbd:p/i", SCHEMES)
    assert "qemu-block-rbd" in disk.explain("x: Unknown driver 'rbd'")
    assert disk.explain("other") == "other"
