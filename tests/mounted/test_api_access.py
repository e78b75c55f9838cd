"""Who may use the API: tokens, sessions, Host and Origin, TLS, and what a limited token sees."""

import json
import os
import shutil
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from os import POSIX_FADV_DONTNEED, posix_fadvise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mounted.api import Api, api, make_token
from tests.mounted.daemon import Place, restorefs, served
from tests.mounted.disks import Sample
from tests.tools import require, require_root, run


def test_without_a_token(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        with found.as_token(None) as nobody, found.as_token("rfs_wrong") as wrong:
            for client in (nobody, wrong):
                for path in ("/api/v1/status", "/api/v1/backups", "/metrics", "/api/v1/nope"):
                    refused = client.get(path)
                    assert found.problem(refused)[0] == 401
                    assert refused.headers["www-authenticate"] == "Bearer"
                assert found.problem(client.get("/api/v1/session"))[0] == 401
            assert nobody.get("/healthz").json() == {"status": "ok"}
            assert nobody.get("/api/v1/openapi.json").json()["openapi"] == "3.1.0"
        assert found.get("/session") == {"name": "gui", "kind": "token", "vms": None}


def test_tokens_come_and_go(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    with api(tmp_path, "--images", sample.repository) as found:
        assert file.stat().st_mode & 0o777 == 0o600
        second = make_token(file, "second", "we*")
        assert second not in file.read_text(), "only its hash is kept"
        with found.as_token(second) as client:
            assert client.get("/api/v1/status").status_code == 200
            listed = restorefs("token", "list", "--file", file, "--json").json
            assert [(each["name"], each["vms"]) for each in listed] == [
                ("gui", None),
                ("second", ["we*"]),
            ]
            assert restorefs("token", "add", "second", "--file", file).code == 2
            assert restorefs("token", "remove", "second", "--file", file).code == 0
            assert client.get("/api/v1/status").status_code == 401
            assert restorefs("token", "remove", "second", "--file", file).code == 2
        assert found.client.get("/api/v1/status").status_code == 200
        assert restorefs("token", "add", "none", "--file", file, "--vm", "").code == 2
        good = file.read_text()
        found.daemon.expect("ERROR no token is known any more: .*tokens.json", "can be read again")
        file.write_text("{")
        assert found.client.get("/api/v1/status").status_code == 401, "nobody, rather than anybody"
        found.daemon.wait_logged("no token is known any more")
        file.write_text(good)
        assert found.client.get("/api/v1/status").status_code == 200


def test_a_limited_token_sees_nothing_of_others(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    with api(tmp_path, "--images", sample.repository) as found:
        other = found.mount(sample.other)
        token = make_token(file, "limited", "web")
        limited = Api(found.daemon, token)
        with limited.client as client:
            mount = limited.mount(sample.full)
            answers = {
                path: limited.get(path)
                for path in ("/backups", "/vms", "/restore/mounts", "/status")
            }
            assert {b["vm_name"] for b in answers["/backups"]["backups"]} == {"web"}
            assert [m["mount_id"] for m in answers["/restore/mounts"]["mounts"]] == [mount]
            status = answers["/status"]
            assert (status["backups"], len(status["attached"])) == (2, 1)
            assert (status["pid"], status["catalog"], status["cache"]) == (None, None, None)
            assert sample.other not in json.dumps(answers)
            for method, path, body in (
                ("GET", f"/backups/{sample.other}/disks", None),
                ("GET", f"/backups/{sample.other}/volumes", None),
                ("PUT", f"/backups/{sample.other}/disks/0/attachment", None),
                ("DELETE", f"/backups/{sample.other}/disks/0/attachment", None),
                ("POST", "/restore/mount", {"backup_id": sample.other}),
                ("GET", f"/restore/{other}/files", None),
                ("GET", f"/restore/{other}/download?path=/note", None),
                ("GET", f"/restore/{other}/preview?path=/note", None),
                ("GET", f"/restore/{other}/archive", None),
                ("GET", f"/restore/{other}/search?pattern=x", None),
                ("DELETE", f"/restore/{other}", None),
                ("GET", "/versions?vm=db&path=/note", None),
            ):
                refused = client.request(method, "/api/v1" + path, json=body)
                assert limited.problem(refused) == (404, "ENOENT"), path
            for method, path in (("GET", "/metrics"), ("POST", "/api/v1/reload")):
                assert limited.problem(client.request(method, path))[0] == 403
            found.daemon.wait_logged(rf"audit: limited: mount {sample.full}/disk0")
        assert f"{sample.other}/disk0" in found.daemon.attached(), "nobody let it go"


def test_nobody_unmounts_what_others_have(sample: Sample, tmp_path: Path) -> None:
    disk = f"{sample.full}/disk1"
    with api(tmp_path, "--images", sample.repository) as found:
        mount = found.mount(sample.full, 1)
        other = Api(found.daemon, make_token(tmp_path / "tokens.json", "other"))
        with other.client, other.as_token(None) as nobody:
            assert other.mount(sample.full, 1) == mount
            server = found.daemon.attached()[disk]["qemu_nbd_pid"]

            def unmount(client: httpx.Client) -> int:
                return client.delete(f"/api/v1/restore/{mount}").status_code

            assert unmount(nobody) == 401
            assert unmount(other.client) == 200
            assert (unmount(other.client), other.raw(mount, "files").status_code) == (404, 404)
            assert found.raw(mount, "files").status_code == 200
            assert found.daemon.attached()[disk]["qemu_nbd_pid"] == server

            big = found.daemon.backups / sample.full / "disk1" / "big"
            with big.open("rb") as file, ThreadPoolExecutor(1) as threads:
                posix_fadvise(file.fileno(), 0, 0, POSIX_FADV_DONTNEED)
                with found.daemon.server(disk).stopped():
                    reading = threads.submit(file.read)
                    found.daemon.wait_under_way(disk)
                    assert unmount(found.client) == 200, "at once, and cutting off nobody"
                assert reading.result() == (sample.sources.data / "big").read_bytes()
            assert found.daemon.attached()[disk]["qemu_nbd_pid"] == server

            assert found.mount(sample.full, 1) == mount
            assert unmount(found.client) == 200
            assert disk not in found.daemon.attached(), "the last one has gone"


def test_what_attaches_is_in_the_audit_log(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        attachment = f"/api/v1/backups/{sample.full}/disks/1/attachment"
        assert found.client.put(attachment).json()["disk_index"] == 1
        assert found.client.delete(attachment).json()["detached"]
        found.get(f"/backups/{sample.full}/volumes")
        for what in ("attach", "detach", "volumes"):
            found.daemon.wait_logged(rf"INFO audit: gui: {what} {sample.full}/disk1$")


def test_a_browsers_session(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found, found.as_token(None) as browser:
        refused = browser.post("/api/v1/session", json={"token": "rfs_wrong"})
        assert found.problem(refused)[0] == 401
        assert found.problem(browser.post("/api/v1/session", json={}))[0] == 401
        no_text = b'{"token": "\\ud800"}'
        assert found.problem(browser.post("/api/v1/session", content=no_text))[0] == 401
        begun = browser.post("/api/v1/session", json={"token": found.token})
        assert begun.json() == {"name": "gui", "kind": "token", "vms": None}
        cookie = begun.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert browser.get("/api/v1/status").status_code == 200
        kept = dict(browser.cookies)
        (ours,) = (f"{name}={value}" for name, value in kept.items())
        for others in ('a={"x":1}; %s', "a=[b c]; %s; d", "%s; =;;", "xrestorefs_session=1; %s"):
            with found.as_token(None) as same:
                headers = {"Cookie": others % ours}
                assert same.get("/api/v1/status", headers=headers).status_code == 200, others
        assert browser.delete("/api/v1/session").json() == {"ended": True}
        assert browser.get("/api/v1/status").status_code == 401
        with httpx.Client(base_url=found.url, cookies=kept) as stolen:
            assert stolen.get("/api/v1/status").status_code == 401
        found.daemon.wait_logged(r"INFO audit: nobody: token refused.*, from 127\.0\.0\.1$")
        for what in ("sign in", "sign out"):
            found.daemon.wait_logged(rf"INFO audit: gui: {what}, from 127\.0\.0\.1$")


def test_nobody_signs_out_who_has_another_token(sample: Sample, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    with api(tmp_path, "--images", sample.repository) as found, found.as_token(None) as browser:
        browser.post("/api/v1/session", json={"token": found.token})
        greedy = {"token": make_token(file, "greedy")}
        with found.as_token(None) as other:
            for _ in range(1100):
                assert other.post("/api/v1/session", json=greedy).status_code == 200
                other.cookies.clear()
        assert browser.get("/api/v1/session").json()["name"] == "gui"


def test_host_and_origin(sample: Sample, tmp_path: Path) -> None:
    more = ("--allow-host", "restore.example.org")
    with api(tmp_path, "--images", sample.repository, *more) as found:
        port = found.url.rpartition(":")[2]

        def get(**headers: str) -> int:
            return found.client.get("/api/v1/status", headers=headers).status_code

        for host in (f"localhost:{port}", "restore.example.org", "restore.example.org:8443"):
            assert get(Host=host) == 200, host
        for host in ("evil.example.org", f"evil.example.org:{port}", "127.0.0.1:1", "", "[::1"):
            assert get(Host=host) == 421, host

        def post(**headers: str) -> int:
            return found.client.post("/api/v1/reload", headers=headers).status_code

        assert post() == 200
        assert post(Origin=found.url) == 200
        evil = "http://evil.example.org"
        for origin in ("null", evil, f"http://127.0.0.1:{port}.evil.org", "http://["):
            assert post(Origin=origin) == 403, origin
            assert get(Origin=origin) == 403, origin
        fetched = {"same-origin": 200, "none": 200, "same-site": 403, "cross-site": 403}
        for site, status in fetched.items():
            assert get(**{"Sec-Fetch-Site": site}) == status, site
            followed = found.client.get("/", headers={"Sec-Fetch-Site": site, "Origin": evil})
            assert followed.status_code == 200, "whoever links to the page"
        answer = found.client.get("/api/v1/status")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_over_tls(sample: Sample, tmp_path: Path) -> None:
    require("openssl", "curl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", key, "-out", cert),
    )
    file = tmp_path / "tokens.json"
    token = make_token(file, "gui")
    tls = ("--tls-cert", cert, "--tls-key", key)
    with served(
        *("--images", sample.repository, "--token-file", file, *tls, "--listen", "127.0.0.1:0")
    ) as daemon:
        url = daemon.wait_logged(" API at https://").rpartition(" API at ")[2]
        context = ssl.create_default_context(cafile=str(cert))
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, verify=context, headers=headers) as client:
            body = {"backup_id": sample.full, "disk_index": 1}
            mount = client.post("/api/v1/restore/mount", json=body).json()["mount_id"]
            big = client.get(f"/api/v1/restore/{mount}/download?path=/big").content
            assert big == (sample.sources.data / "big").read_bytes()
            begun = client.post("/api/v1/session", json={"token": token})
            assert "secure" in begun.headers["set-cookie"].lower()
        plain = socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])))
        with closing(plain):
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "127.0.0.1:0"), "--listen needs a --token-file"),
        (("--listen-insecure",), "--listen-insecure is for --listen"),
        (("--listen", "nonsense:port"), "is not an address"),
        (("--listen", "127.0.0.1:0", "--listen-insecure", "--tls-cert", "/x"), "belong together"),
        (
            ("--listen", "127.0.0.1:0", "--token-file", "/nope/tokens"),
            "restorefs token add NAME --file /nope/tokens",
        ),
        (("--listen", "192.0.2.1:0", "--listen-insecure"), "Cannot assign"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(
    sample: Sample, place: Place, options: tuple[str, ...], said: str
) -> None:
    done = restorefs(
        *("--runtime-dir", place.runtime_dir, "mount", "--images", sample.repository),
        *(*options, place.mountpoint),
    )
    assert done.code == 2
    assert said in done.err


def test_a_port_that_is_taken(sample: Sample, place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for _ in range(2):  # the first one leaves nothing that the second would wait for
            done = restorefs(
                *("--runtime-dir", place.runtime_dir, "mount", "--images", sample.repository),
                *("--listen", address, "--listen-insecure", place.mountpoint),
            )
            assert done.code == 2
            assert "Address already in use" in done.err
            assert "waiting" not in done.err
            assert list(place.runtime_dir.iterdir()) == []


def test_a_file_of_tokens_that_others_may_read(sample: Sample, place: Place) -> None:
    file = place.folder / "tokens.json"
    make_token(file, "gui")
    file.chmod(0o644)
    done = restorefs(
        *("--runtime-dir", place.runtime_dir, "mount", "--images", sample.repository),
        *("--listen", ":0", "--token-file", file, place.mountpoint),
    )
    assert (done.code, "chmod 600" in done.err) == (2, True)


@pytest.mark.parametrize(
    "wrong", [{"vms": "web*"}, {"vms": [1]}, {"vms": {}}, {"name": 1}, {"sha256": None}]
)
def test_a_file_of_tokens_that_says_something_else(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A text of patterns would be taken letter by letter, and a star sees every VM."""
    file = tmp_path / "tokens.json"
    make_token(file, "limited", "web*")
    told = json.loads(file.read_text())
    told["tokens"][0] |= wrong
    file.write_text(json.dumps(told))
    done = restorefs("token", "list", "--file", file)
    assert (done.code, "not a file of tokens" in done.err) == (2, True), done.err


def test_insecure_and_ipv6(sample: Sample) -> None:
    options = ("--images", sample.repository, "--listen-insecure", "--listen", "[::1]:0")
    with served(*options) as daemon:
        found = Api(daemon, None)
        with found.client:
            assert found.url.startswith("http://[::1]:")
            assert found.get("/session") == {"name": "anybody", "kind": "insecure", "vms": None}
            found.mount(sample.full)
            daemon.wait_logged("audit: anybody: mount")


def test_the_unix_socket_needs_none(sample: Sample, tmp_path: Path) -> None:
    require("curl")
    with api(tmp_path, "--images", sample.repository) as found:
        (path,) = found.daemon.place.runtime_dir.glob("*/control.sock")
        told = run("curl", "-s", "--unix-socket", path, "http://restorefs/api/v1/session")
        assert json.loads(told) == {"name": f"uid {os.geteuid()}", "kind": "unix", "vms": None}


def test_as_another_user(sample: Sample, tmp_path: Path) -> None:
    """The port is opened by root, the tokens are read by the user."""
    require_root()
    place = Place()
    try:
        file = place.folder / "tokens.json"
        token = make_token(file, "gui")
        repository = place.folder / "repository"
        shutil.copytree(sample.repository, repository)
        run("chmod", "-R", "a+rX", repository)
        options = ("--images", repository, "--user", "nobody", "--listen", "127.0.0.1:0")
        refused = restorefs(
            *("--runtime-dir", place.runtime_dir, "mount", *options),
            *("--token-file", file, place.mountpoint),
        )
        assert (refused.code, "Permission denied" in refused.err) == (2, True), refused.err
        shutil.chown(file, "nobody")
        with served(*options, "--token-file", file, place=place) as daemon:
            found = Api(daemon, token)
            with found.client:
                found.mount(sample.full)
                make_token(file, "second")
                assert file.owner() == "nobody"
                assert found.client.get("/api/v1/status").status_code == 200
    finally:
        place.remove()


def test_what_is_open_to_everybody(sample: Sample, tmp_path: Path) -> None:
    """And nothing else is, whatever it may be."""
    with api(tmp_path, "--images", sample.repository) as found, found.as_token(None) as nobody:
        for path in ("/", "/main.js", "/healthz", "/api/v1/openapi.json"):
            assert nobody.get(path).status_code == 200, path
        for path in ("/metrics", "/api/v1/status", "/main.js", "/healthz", "/api/v1/session"):
            for odd in ("%0A", "/", "%00", "%20"):
                assert found.problem(nobody.get(path + odd))[0] == 401, path + odd
                assert found.problem(found.client.get(path + odd))[0] == 404, path + odd
        long = f"/api/v1/backups/{sample.full}/disks/{'1' * 5000}/attachment"
        assert found.problem(found.client.put(long))[0] == 404


# What is not a browser's


def test_what_is_not_http(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        port = int(found.url.rpartition(":")[2])

        def answer(*sent: bytes) -> bytes:
            with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as raw:
                for piece in sent:
                    raw.sendall(piece)
                got = b""
                while data := raw.recv(65_536):
                    got += data
                return got

        assert answer(b"\x00\xff\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert answer(b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 70_000).startswith(b"HTTP/1.1 4")
        twice = b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"
        assert b" 400 " in answer(twice).partition(b"\r\n")[0]
        host = f"Host: 127.0.0.1:{port}\r\n".encode()
        upgrade = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n"
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        socketed = b"GET /api/v1/status HTTP/1.1\r\n" + host + upgrade + key + b"\r\n"
        assert b" 403 " in answer(socketed).partition(b"\r\n")[0]
        assert found.get("/status")["backups"] == 3


def test_http2_is_not_spoken(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        words = ("-o", "/dev/null", "-w", "%{http_version} %{http_code}", "/api/v1/status")
        assert found.curl("--http2", *words).stdout == b"1.1 200"
        assert found.curl("--http2-prior-knowledge", *words, check=False).returncode != 0
        assert found.get("/status")["backups"] == 3


def test_more_connections_than_there_are_places(sample: Sample, tmp_path: Path) -> None:
    """Those that ask nothing give theirs back; others wait, and are not turned away."""
    with api(tmp_path, "--images", sample.repository) as found, ExitStack() as stack:
        port = int(found.url.rpartition(":")[2])
        for _ in range(600):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        with found.as_token(found.token) as client:
            assert client.get("/api/v1/status").status_code == 200


def test_the_page(sample: Sample, tmp_path: Path) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        for path in ("/..%2fapp.py", "/%2e%2e/app.py", "/app.py", "/nope.js", "/page/index.html"):
            assert found.client.get(path).status_code == 404, path
