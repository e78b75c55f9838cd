"""The API over a real TCP socket, with an HTTP client and with curl.

Expected answers come from the folders that the images were made of, and from the mount itself, that
is from the kernel.
"""

import fcntl
import io
import json
import os
import random
import select
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import pytest

from tests.mounted.api import Api, api, lines_of, percent, run_bytes
from tests.mounted.disks import MIB, Sample, ext, qcow2
from tests.tools import require, run

ODD = "backup-odd-1700000000"
_GETFLAGS = 0x80086601  # FS_IOC_GETFLAGS
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
NAMES = [
    b"new\nline",
    b"quo\"te';.txt",
    b"\xff\xfe not utf-8",
    "\u00fcmlaut \u202e.txt".encode(),
    b"percent%2e%2e",
    b"back\\slash",
    b"back%5Cslash",
    b"caf\xe9",
    b"caf%E9",
    b" space ",
    b"x" * 255,
]


class Odd:
    """A tree that wants out, and names that break things."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        names = self.source / "names"
        names.mkdir(parents=True)
        for name in NAMES:
            Path(os.fsdecode(bytes(names) + b"/" + name)).write_bytes(b"content of " + name)
        links = self.source / "links"
        links.mkdir()
        (self.source / "etc").mkdir()
        (self.source / "etc" / "passwd").write_text("the guest's own\n")
        for name, target in {
            "absolute": "/etc/passwd",
            "up": "../../../../../../etc/passwd",
            "proc": "/proc/self/root/etc/passwd",
            "loop": "loop",
            "ping": "pong",
            "pong": "ping",
            "self": ".",
            "root": "/",
            "dangling": "nothing/here",
            "through": "absolute/../x",
        }.items():
            (links / name).symlink_to(target)
        shown = self.source / "shown"
        shown.mkdir()
        (shown / "page.html").write_text("<script>alert(1)</script>\n")
        (shown / "picture.png").write_bytes(PNG)
        (shown / "utf16.txt").write_bytes("\ufeffgr\u00fc\u00dfe".encode("utf-16-le"))
        (shown / "latin.txt").write_bytes("gr\u00fc\u00dfe".encode("cp1252"))
        (shown / "program").write_bytes(b"\x7fELF\x00\x01")
        (shown / "long.txt").write_text("0123456789\n" * 200_000)
        os.link(shown / "latin.txt", shown / "another-name")
        os.utime(shown / "latin.txt", ns=(0, 1_234_567_890_123_456_789))
        self.repository = folder / "repository"
        image = ext(folder / "odd.img", "ext4", self.source, 16 * MIB, "-b", "4096", "-I", "256")
        # mke2fs copies whole seconds only; the two low bits of this field are the epoch's.
        extra = f"set_inode_field /shown/latin.txt mtime_extra {123_456_789 << 2}"
        run("debugfs", "-w", "-R", extra, image)
        qcow2(image, self.repository / ODD / "disk0.qcow2")


@pytest.fixture(scope="module")
def web(sample: Sample) -> Iterator[Api]:
    require("curl")
    with (
        tempfile.TemporaryDirectory() as folder,
        api(Path(folder), "--images", sample.repository) as found,
    ):
        found.daemon.expect("LUKS is encrypted")
        assert found.raw(found.mount(sample.full), "files", "/part5").status_code == 423
        yield found


@pytest.fixture(scope="module")
def odd_tree(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    return Odd(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def odd(odd_tree: Odd) -> Iterator[Api]:
    with (
        tempfile.TemporaryDirectory() as folder,
        api(Path(folder), "--images", odd_tree.repository) as found,
    ):
        yield found


# What the product does, with curl


def test_the_products_examples_with_curl(web: Api, sample: Sample, tmp_path: Path) -> None:
    def call(*args: str) -> Any:
        return json.loads(web.curl(*args).stdout)

    told = call(f"/api/v1/backups/{sample.full}/disks")
    assert (told["backup_id"], told["count"]) == (sample.full, 2)
    for index, disk in enumerate(told["disks"]):
        assert set(disk) == {
            *("id", "disk_index", "vmware_disk_key", "size_gb", "qcow2_path", "status")
        }
        assert (disk["disk_index"], disk["status"]) == (index, "completed")
    mounts = []
    for index in (0, 1):
        body = json.dumps({"backup_id": sample.full, "disk_index": index})
        words = ("--header", "Content-Type: application/json", "--data", body)
        mounted = call(*words, "/api/v1/restore/mount")
        assert call(*words, "/api/v1/restore/mount")["mount_id"] == mounted["mount_id"]
        assert mounted["status"] == "mounted"
        assert mounted["filesystem_type"] == "ext4"
        assert mounted["backup_disk_id"] == told["disks"][index]["id"]
        assert [*Path(mounted["mount_path"]).iterdir()]
        mounts.append(mounted["mount_id"])
    assert {each["mount_id"] for each in call("/api/v1/restore/mounts")["mounts"]} >= {*mounts}
    listed = call(f"/api/v1/restore/{mounts[0]}/files?path=/etc")
    assert [each["name"] for each in listed["files"]] == ["hostname", "removed-later"]
    assert listed["total_count"] == 2
    out = tmp_path / "hostname"
    web.curl("--output", str(out), f"/api/v1/restore/{mounts[0]}/download?path=/etc/hostname")
    assert out.read_text() == "web\n"
    for mount in mounts:
        gone = call("--request", "DELETE", f"/api/v1/restore/{mount}")
        assert gone == {"mount_id": mount, "status": "unmounted"}
        assert call(f"/api/v1/restore/{mount}/files")["status"] == 404
    assert f"{sample.full}/disk0" not in web.daemon.attached()
    for line in ("mount", "download", "unmount"):
        web.daemon.wait_logged(rf"INFO audit: gui: {line} {sample.full}/disk0")


def test_a_listing_is_as_the_mount_has_it(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full)
    told = web.get(f"/restore/{mount}/files", path="/var/log")
    assert told["path"] == "/part3/var/log", "as it was found"
    folder = web.daemon.backups / sample.full / "disk0" / "part3" / "var" / "log"
    assert {each["name"] for each in told["files"]} == {each.name for each in folder.iterdir()}
    for each in told["files"]:
        about = (folder / each["name"]).lstat()
        assert each["size"] == about.st_size
        assert each["mode"] == f"{about.st_mode & 0o7777:04o}"
        assert each["type"] == "file"
        assert each["path"] == f"{told['path']}/{each['name']}"
        assert (each["uid"], each["gid"]) == (about.st_uid, about.st_gid)
    assert [e["name"] for e in told["files"]] == sorted(e["name"] for e in told["files"])


def test_a_listing_is_filtered_and_looked_through(web: Api, sample: Sample) -> None:
    logs = sorted(path.name for path in (sample.sources.web / "var" / "log").iterdir())
    call, path = f"/restore/{web.mount(sample.full)}/files", "/var/log"
    told = web.get(call, path=path, q="PP.1", limit=3, offset=1)
    wanted = [name for name in logs if "pp.1" in name]
    assert [file["name"] for file in told["files"]] == wanted[1:4]
    assert told["total_count"] == len(wanted)
    assert "found" not in told
    assert web.get(call, path=path, find="APP.5", limit=1)["found"] == logs.index("app.5.log")
    down = web.get(call, path=path, find="app.5", sort="-name", limit=1)["found"]
    assert logs[::-1][down].startswith("app.5")
    assert web.get(call, path=path, find="app.5", q="7", limit=1)["found"] == [
        name for name in logs if "7" in name
    ].index("app.57.log")
    assert web.get(call, path=path, find="nope", limit=1)["found"] is None


def test_pages_and_orders(web: Api, sample: Sample) -> None:
    path = f"/restore/{web.mount(sample.full)}/files"
    for sort, key in (("size", "size"), ("time", "modified_time"), ("name", "name")):
        every = web.get(path, path="/part3/var/log", sort=sort)["files"]
        assert [e[key] for e in every] == sorted(e[key] for e in every)
        page = web.get(path, path="/part3/var/log", sort=sort, offset=10, limit=7)
        assert (page["files"], page["total_count"], page["offset"]) == (every[10:17], 100, 10)
    down = [e["size"] for e in web.get(path, path="/part3/var/log", sort="-size")["files"]]
    assert down == sorted(down, reverse=True)
    down = [e["name"] for e in web.get(path, path="/part3/var/log", sort="-name")["files"]]
    assert down == sorted(down, reverse=True)
    kinds = [e["type"] for e in web.get(path, path="/part3", sort="-type")["files"]]
    assert kinds == ["symlink"] + ["directory"] * 3
    top = web.get(path, path="/part3")["files"]
    assert [e["type"] for e in top] == ["directory"] * 3 + ["symlink"], "folders first"
    assert top[-1]["target"] == "etc/hostname"
    assert top[-1]["target_type"] == "file"
    assert web.get(path, path="/part3", folders_first="false", offset=99)["files"] == []


def test_the_volumes_are_the_top(web: Api, sample: Sample) -> None:
    told = web.get(f"/restore/{web.mount(sample.full)}/files")
    assert [e["name"] for e in told["files"]] == ["part2", "part3", "part5"]
    told = web.get(f"/restore/{web.mount(sample.full, 1)}/files")
    assert {e["name"] for e in told["files"]} == {"lost+found", "big", "small"}


# Downloads


def test_a_download_goes_on_where_it_broke_off(web: Api, sample: Sample) -> None:
    content = (sample.sources.data / "big").read_bytes()
    mount = web.mount(sample.full, 1)
    whole = web.raw(mount, "download", "/big")
    assert whole.content == content
    assert whole.headers["content-length"] == str(len(content))
    assert whole.headers["accept-ranges"] == "bytes"
    tag = whole.headers["etag"]
    chance = random.Random(1)
    for _ in range(20):
        start = chance.randrange(len(content))
        end = chance.randrange(start, len(content))
        part = web.raw(
            mount, "download", "/big", headers={"Range": f"bytes={start}-{end}", "If-Range": tag}
        )
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {start}-{end}/{len(content)}"
        assert part.content == content[start : end + 1]
    rest = web.raw(mount, "download", "/big", headers={"Range": f"bytes={20 * MIB}-"})
    assert rest.content == content[20 * MIB :]
    last = web.raw(mount, "download", "/big", headers={"Range": "bytes=-5"})
    assert (last.status_code, last.content) == (206, content[-5:])
    other = web.raw(
        mount, "download", "/big", headers={"Range": "bytes=5-9", "If-Range": '"another"'}
    )
    assert (other.status_code, len(other.content)) == (200, len(content))
    again = web.raw(mount, "download", "/big", headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    dated = {"Range": "bytes=0-0", "If-Range": whole.headers["last-modified"]}
    assert web.raw(mount, "download", "/big", headers=dated).status_code == 206


def test_ranges_that_are_none(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full, 1)
    for several in ("bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=5-2", "bytes=-"):
        whole = web.raw(mount, "download", "/small", headers={"Range": several})
        assert (whole.status_code, whole.content) == (200, b"small\n"), several
    for beyond in ("bytes=6-", "bytes=99-100", "bytes=-0"):
        refused = web.raw(mount, "download", "/small", headers={"Range": beyond})
        assert web.problem(refused)[0] == 416
        assert refused.headers["content-range"] == "bytes */6"


def test_head(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full, 1)
    response = web.client.head(f"/api/v1/restore/{mount}/download?path=/big")
    assert response.headers["content-length"] == str(24 * MIB)
    assert response.content == b""
    assert web.client.head(f"/api/v1/restore/{mount}/archive?path=/").status_code == 200


def test_curl_goes_on(web: Api, sample: Sample, tmp_path: Path) -> None:
    content = (sample.sources.data / "big").read_bytes()
    out = tmp_path / "big"
    out.write_bytes(content[: 9 * MIB + 17])
    path = f"/api/v1/restore/{web.mount(sample.full, 1)}/download?path=/big"
    web.curl("--continue-at", "-", "--output", str(out), path)
    assert out.read_bytes() == content


def test_a_download_goes_on_after_a_restart(sample: Sample, tmp_path: Path) -> None:
    """By what is known of it: nobody mounts again."""
    content = (sample.sources.data / "big").read_bytes()
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
    with api(tmp_path / "1", "--images", sample.repository) as found:
        mount = found.mount(sample.full, 1)
        tag = found.raw(mount, "download", "/big").headers["etag"]
    with api(tmp_path / "2", "--images", sample.repository) as found:
        asked = {"Range": f"bytes={MIB}-", "If-Range": tag}
        rest = found.raw(mount, "download", "/big", headers=asked)
        assert (rest.status_code, rest.content) == (206, content[MIB:])
        assert found.client.delete(f"/api/v1/restore/{mount}").status_code == 200
        assert found.problem(found.raw(mount, "files"))[0] == 404, "until somebody mounts it"
        assert found.mount(sample.full, 1) == mount
        assert found.raw(mount, "download", "/small").headers["etag"]
        of_another = f"{mount[:-8]}{int(mount[-8:], 16) ^ 1:08x}"
        assert found.problem(found.raw(of_another, "files"))[0] == 404


# Names and links that want to be somewhere else


def test_every_name_is_listed_and_downloaded(odd: Api) -> None:
    mount = odd.mount(ODD)
    told = odd.get(f"/restore/{mount}/files", path="/names")
    assert {os.fsencode(each["name"]) for each in told["files"]} == set(NAMES)
    for name in NAMES:
        response = odd.raw(mount, "download", b"/names/" + name)
        assert response.content == b"content of " + name
        header = response.headers["content-disposition"]
        assert header.isascii()
        assert header.isprintable()
        plain = header.partition('filename="')[2].partition('"; filename*=UTF-8')[0]
        assert not set(plain) & set('"\\/\n%')
        listed = os.fsencode(
            next(e for e in told["files"] if os.fsencode(e["name"]) == name)["path"]
        )
        assert odd.raw(mount, "download", listed).content == response.content
    odd.daemon.wait_logged(r"INFO audit: gui: download .*/names/new\ufffdline bytes 0-")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/links/absolute", b"the guest's own\n"),
        ("/links/up", b"the guest's own\n"),
        ("/links/self/absolute", b"the guest's own\n"),
        ("/links/root/etc/passwd", b"the guest's own\n"),
        ("/links/proc", (404, "ENOENT")),
        ("/links/dangling", (404, "ENOENT")),
        ("/links/loop", (422, "ELOOP")),
        ("/links/ping", (422, "ELOOP")),
        ("/links/through", (422, "ENOTDIR")),
        ("/proc/self/root/etc/passwd", (404, "ENOENT")),
        ("/../../etc/passwd", (422, None)),
        ("/links/../etc/passwd", (422, None)),
        ("/etc/passwd\0", (422, None)),
        ("/" + "x" * 5000, (422, None)),
        ("/x" * 3000, (422, None)),
        ("/etc", (422, "EISDIR")),
        ("//etc/./passwd/", b"the guest's own\n"),
    ],
)
def test_nothing_leads_out(odd: Api, path: str, answer: bytes | tuple[int, str | None]) -> None:
    mount = odd.mount(ODD)
    response = odd.raw(mount, "download", path)
    if isinstance(answer, bytes):
        assert response.content == answer
    else:
        assert odd.problem(response) == answer


def test_where_links_lead_is_told(odd: Api) -> None:
    told = odd.get(f"/restore/{odd.mount(ODD)}/files", path="/links")["files"]
    types = {each["name"]: each["target_type"] for each in told}
    assert types == {
        **dict.fromkeys(("absolute", "up"), "file"),
        **dict.fromkeys(("self", "root"), "directory"),
        **dict.fromkeys(("proc", "loop", "ping", "pong", "dangling", "through"), None),
    }
    listed = odd.get(f"/restore/{odd.mount(ODD)}/files", path="/links/root/shown")
    assert listed["path"] == "/shown"


# Previews


@pytest.mark.parametrize(
    ("name", "media_type", "content"),
    [
        ("page.html", "text/plain; charset=utf-8", b"<script>alert(1)</script>\n"),
        ("picture.png", "image/png", PNG),
        ("utf16.txt", "text/plain; charset=utf-8", "gr\u00fc\u00dfe".encode()),
        ("latin.txt", "text/plain; charset=utf-8", "gr\u00fc\u00dfe".encode()),
    ],
)
def test_previews(odd: Api, name: str, media_type: str, content: bytes) -> None:
    response = odd.raw(odd.mount(ODD), "preview", f"/shown/{name}")
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-type"] == media_type
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"] == "inline"


def test_what_has_no_preview(odd: Api) -> None:
    mount = odd.mount(ODD)
    assert odd.problem(odd.raw(mount, "preview", "/shown/program"))[0] == 415
    long = odd.raw(mount, "preview", "/shown/long.txt")
    assert (len(long.content), long.headers["x-truncated"]) == (MIB, "true")


def test_the_first_bytes_of_a_text(odd: Api, odd_tree: Odd) -> None:
    mount = odd.mount(ODD)
    content = (odd_tree.source / "shown" / "long.txt").read_bytes()
    for most in (1, 100, MIB):
        found = odd.raw(mount, "preview", "/shown/long.txt", query={"bytes": most})
        assert (found.content, found.headers["x-truncated"]) == (content[:most], "true")
    whole = odd.raw(mount, "preview", "/shown/page.html", query={"bytes": 1000})
    assert "x-truncated" not in whole.headers
    cut = odd.raw(mount, "preview", "/shown/utf16.txt", query={"bytes": 7})
    assert cut.text.startswith("gr"), "what it is does not depend on how much is shown"
    picture = odd.raw(mount, "preview", "/shown/picture.png", query={"bytes": 8})
    assert picture.content == PNG, "half of an image is none"
    for most in (0, MIB + 1, -1, "x"):
        refused = odd.raw(mount, "preview", "/shown/long.txt", query={"bytes": most})
        assert odd.problem(refused)[0] == 400


def test_what_a_preview_is_can_be_asked_cheaply(odd: Api) -> None:
    mount = odd.mount(ODD)
    url = f"/api/v1/restore/{mount}/preview?path=/shown/"
    sent = sent_bytes(odd)
    for name, kind, length in (
        ("picture.png", "image/png", len(PNG)),
        ("long.txt", "text/plain; charset=utf-8", MIB),
    ):
        told = odd.client.head(url + name)
        assert (told.status_code, told.headers["content-type"]) == (200, kind)
        assert int(told.headers["content-length"]) == length
    assert odd.client.head(url + "program").status_code == 415
    assert sent_bytes(odd) == sent


def sent_bytes(found: Api) -> float:
    """Return what the metrics say has been sent of files."""
    text = found.client.get("/metrics").text
    (line,) = (each for each in text.splitlines() if each.startswith("restorefs_api_sent_bytes"))
    return float(line.rpartition(" ")[2])


# Archives


def test_a_folder_as_tar(odd: Api, odd_tree: Odd) -> None:
    response = odd.raw(odd.mount(ODD), "archive", "/shown", query={"format": "tar.zst"})
    assert response.headers["content-type"] == "application/zstd"
    assert 'filename="shown.tar.zst"' in response.headers["content-disposition"]
    raw = run_bytes("zstd", "-dc", given=response.content)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = {each.name: each for each in tar.getmembers()}
        assert len(members) == 1 + len([*(odd_tree.source / "shown").iterdir()])
        for name, member in members.items():
            source = odd_tree.source / name
            about = source.lstat()
            assert member.mode == about.st_mode & 0o7777
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                assert content.read() == source.read_bytes()
        linked = {members["shown/latin.txt"].type, members["shown/another-name"].type}
        assert linked == {tarfile.REGTYPE, tarfile.LNKTYPE}
        assert "1234567890.123456789" in [m.pax_headers.get("mtime") for m in members.values()]


def test_odd_names_and_links_in_a_tar(odd: Api, tmp_path: Path) -> None:
    mount = odd.mount(ODD)
    path = f"/api/v1/restore/{mount}/archive?path=/names&path=/links&format=tar.zst"
    packed = odd.curl(path).stdout
    run_bytes("tar", "--zstd", "-xf", "-", "-C", str(tmp_path), given=packed)
    assert {os.fsencode(each.name) for each in (tmp_path / "names").iterdir()} == set(NAMES)
    assert (tmp_path / "links" / "up").readlink() == Path("../../../../../../etc/passwd")


def test_a_folder_as_zip(odd: Api, odd_tree: Odd, tmp_path: Path) -> None:
    require("unzip")
    mount = odd.mount(ODD)
    path = f"/api/v1/restore/{mount}/archive?path=/shown&path=/names&path=/links"
    out = tmp_path / "all.zip"
    odd.curl("--output", str(out), path)
    assert "No errors" in run("unzip", "-tq", out)
    with zipfile.ZipFile(out) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        assert "names/%FF%FE not utf-8" in names
        assert "names/back%5Cslash" in names
        assert "names/back%255Cslash" in names
        assert len(set(names)) == len(names)
        for name in NAMES:
            (shown,) = (each for each in names if unquote_to_bytes(each) == b"names/" + name)
            assert packed.read(shown) == b"content of " + name
        for source in (odd_tree.source / "shown").iterdir():
            member = packed.getinfo(f"shown/{source.name}")
            assert packed.read(member) == source.read_bytes()
            assert member.external_attr >> 16 == source.stat().st_mode
    run("unzip", "-q", out, "-d", tmp_path / "out")
    assert (tmp_path / "out" / "links" / "dangling").readlink() == Path("nothing/here")
    about = (tmp_path / "out" / "shown" / "latin.txt").stat()
    assert about.st_mtime == 1_234_567_890


def test_a_long_selection_is_posted(odd: Api) -> None:
    mount = odd.mount(ODD)
    form = "&".join("path=" + percent(b"/names/" + name) for name in NAMES)
    url = f"/api/v1/restore/{mount}/archive"
    packed = odd.curl("--data", form + "&format=tar.zst", url).stdout
    with tarfile.open(fileobj=io.BytesIO(run_bytes("zstd", "-dc", given=packed))) as tar:
        assert {os.fsencode(each.name) for each in tar} == set(NAMES)
    refused = odd.client.post(url, json={"path": "/"})
    assert odd.problem(refused)[0] == 415


def test_what_cannot_be_read_is_never_left_out_silently(web: Api, sample: Sample) -> None:
    """The disk has a volume that is encrypted."""
    mount = web.mount(sample.full)
    query = f"/api/v1/restore/{mount}/archive?path=/&format=tar.zst"
    broken = web.curl(query, check=False)
    assert broken.returncode == 18, "the transfer is not whole"
    listed = web.curl(query + "&errors=list")
    raw = run_bytes("zstd", "-dc", given=listed.stdout)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        last = tar.getmembers()[-1]
        assert last.name == "RESTOREFS-ERRORS.txt"
        errors = tar.extractfile(last)
        assert errors is not None
        text = errors.read().decode()
        assert f"{sample.full}-disk0/part5" in text
        assert "LUKS" in text
        assert f"{sample.full}-disk0/part3/etc/hostname" in tar.getnames()


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_a_broken_archive_is_not_taken_for_a_whole_one(
    web: Api, sample: Sample, tmp_path: Path, version: str
) -> None:
    """In HTTP/1.0 the end of the connection is the end of the answer. What could be read is there,
    and so is the list of what could not."""
    require("curl", "unzip", "7z", "zstd")
    query = f"/api/v1/restore/{web.mount(sample.full)}/archive?path=/"
    broken = tmp_path / "broken.zip"
    web.curl(version, "--output", str(broken), query, check=False)
    tested = subprocess.run(["unzip", "-tqq", broken], capture_output=True, check=False)
    assert tested.returncode != 0
    out = tmp_path / "zip"
    mended = subprocess.run(["7z", "x", f"-o{out}", broken], capture_output=True, check=False)
    assert mended.returncode != 0
    check_what_was_taken_out(out, sample)

    broken = tmp_path / "broken.tar.zst"
    web.curl(version, "--output", str(broken), query + "&format=tar.zst", check=False)
    assert subprocess.run(["zstd", "-tq", broken], capture_output=True, check=False).returncode
    out = tmp_path / "tar"
    out.mkdir()
    command = ["tar", "--zstd", "--no-same-owner", "-xf", broken, "-C", out]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    check_what_was_taken_out(out, sample)


def check_what_was_taken_out(out: Path, sample: Sample) -> None:
    """An archive of the whole disk whose part5 is encrypted: everything but that."""
    assert "part5" in (out / "RESTOREFS-ERRORS.txt").read_text()
    root, made_of = out / f"{sample.full}-disk0" / "part3", sample.sources.web
    for source in made_of.rglob("*"):
        if source.is_file() and not source.is_symlink():
            assert (root / source.relative_to(made_of)).read_bytes() == source.read_bytes()


def test_a_client_that_leaves_ends_its_archive(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full, 1)
    for _ in range(8):  # more than may be under way
        with web.client.stream(
            "GET", f"/api/v1/restore/{mount}/archive?path=/&format=tar.zst"
        ) as response:
            next(response.iter_raw())
        with web.as_token(web.token) as client:
            assert client.get("/api/v1/status").status_code == 200


# Search


def test_a_search(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full)
    *found, end = lines_of(web.raw(mount, "search", "/part3", query={"pattern": "APP.1*.log"}))
    expected = {path.name for path in (sample.sources.web / "var" / "log").glob("app.1*.log")}
    assert {each["name"] for each in found} == expected
    assert {each["record"] for each in found} == {"match"}
    assert all(each["path"] == "/part3/var/log/" + each["name"] for each in found)
    assert (end["record"], end["matches"], end["complete"], end["limited"]) == (
        *("end", len(expected), True, False),
    )
    query = {"pattern": "APP.1*.log", "case": "true"}
    (end,) = lines_of(web.raw(mount, "search", "/part3", query=query))
    assert end["matches"] == 0
    query = {"pattern": "*", "limit": "5"}
    *found, end = lines_of(web.raw(mount, "search", "/part3", query=query))
    assert (len(found), end["limited"]) == (5, True)
    *found, end = lines_of(web.raw(mount, "search", "/", query={"pattern": "host*"}))
    (error,) = (each for each in found if each["record"] == "error")
    assert (error["path"], error["errno"], end["complete"]) == ("/part5", "ENOKEY", False)


def test_a_search_that_follows_no_links_ends(odd: Api) -> None:
    *found, end = lines_of(odd.raw(odd.mount(ODD), "search", "/", query={"pattern": "*passwd*"}))
    assert [each["path"] for each in found] == ["/etc/passwd"]
    assert end["complete"]


# Backups, VMs, versions


def test_backups_and_vms(web: Api, sample: Sample) -> None:
    every = web.get("/backups", sort="-created")
    assert every["total_count"] == 3
    times = [each["created_at"] for each in every["backups"]]
    assert times == sorted(times, reverse=True)
    assert web.get("/backups", sort="-created", offset=1, limit=1)["backups"] == [
        every["backups"][1]
    ]
    assert {each["backup_id"] for each in web.get("/backups", vm="web")["backups"]} == {
        *(sample.full, sample.incremental)
    }
    assert web.get("/backups", q="DB-17")["total_count"] == 1
    since = every["backups"][0]["created_at"]
    assert web.get("/backups", since=since)["total_count"] == 1
    vms = web.get("/vms")["vms"]
    assert [(each["vm_name"], each["backups"]) for each in vms] == [("db", 1), ("web", 2)]
    assert vms[1]["latest_backup_id"] == sample.incremental


def test_versions(web: Api, sample: Sample) -> None:
    found = web.get("/versions", vm="web", path="/etc/hostname")
    newer, older = found["versions"]
    assert (newer["backup_id"], older["backup_id"]) == (sample.incremental, sample.full)
    assert (newer["size"], older["size"]) == (12, 4)
    assert (newer["differs"], older["differs"]) == (True, None)
    same = web.get("/versions", vm="web", path="/var/log/app.7.log")["versions"]
    assert [each["differs"] for each in same] == [False, None]
    hidden = web.get("/versions", vm="web", path="/var/log/app.8.log")["versions"]
    assert len({(each["size"], each["modified_time"]) for each in hidden}) == 1
    assert [each["differs"] for each in hidden] == [True, None], "its content tells"
    touched = web.get("/versions", vm="web", path="/var/log/app.9.log")["versions"]
    assert len({each["modified_time"] for each in touched}) == 2
    assert [each["differs"] for each in touched] == [False, None]
    paged = web.get("/versions", vm="web", path="/etc/hostname", limit=1)["versions"]
    assert [each["differs"] for each in paged] == [True], "its neighbour is on the next page"
    added = web.get("/versions", vm="web", path="/etc/added")
    assert [each["backup_id"] for each in added["versions"]] == [sample.incremental]
    assert added["absent"] == [], "who knows what the encrypted volume holds"
    (unknown,) = added["errors"]
    assert unknown["created_at"] == "2023-11-14T22:13:20Z"
    assert (unknown["backup_id"], unknown["errno"]) == (sample.full, "ENOKEY")
    none = web.get("/versions", vm="web", path="/part3/nope")
    assert (none["versions"], none["errors"], none["total_count"]) == ([], [], 2)
    assert [each["backup_id"] for each in none["absent"]] == [sample.incremental, sample.full]
    exactly = web.get("/versions", vm="web", path="/part3/etc/added")
    assert (len(exactly["versions"]), exactly["errors"]) == (1, [])
    absent = {"backup_id": sample.full, "created_at": "2023-11-14T22:13:20Z"}
    assert exactly["absent"] == [absent]
    content = web.raw(newer["mount_id"], "download", newer["path"]).content
    assert content == b"web-renamed\n"


# What goes wrong


def test_problems(web: Api, sample: Sample) -> None:
    client = web.client
    mount = web.mount(sample.full)

    def mounting(**body: Any) -> tuple[int, str | None]:
        return web.problem(client.post("/api/v1/restore/mount", json=body))

    assert mounting(backup_id="nope") == (404, "ENOENT")
    assert mounting(backup_id=sample.full, disk_index=9) == (422, None)
    assert mounting(backup_id=sample.full, disk_index="0") == (400, None)
    assert mounting() == (400, None)
    assert mounting(backup_id=sample.full, disk_idx=1) == (400, None), "and not disk 0"
    bad = client.post("/api/v1/restore/mount", content=b"{")
    assert web.problem(bad)[0] == 400
    large = client.post("/api/v1/restore/mount", content=b" " * 300_000)
    assert web.problem(large)[0] == 413
    assert large.headers["connection"] == "close", "or the next request would go to a closed one"
    assert web.problem(client.get("/api/v1/restore/nope/files")) == (404, "ENOENT")
    assert web.problem(web.raw(mount, "files", "/part3/nope")) == (404, "ENOENT")
    assert web.problem(web.raw(web.mount(sample.other), "files", "/nope")) == (404, "ENOENT")
    assert "/part3/etc has no 'nope'" in web.raw(mount, "files", "/part3/etc/nope").text
    no_folder = "/part3/etc/hostname is not a folder"
    assert no_folder in web.raw(mount, "files", "/part3/etc/hostname").text
    assert no_folder in web.raw(mount, "files", "/part3/link/x").text
    nobody_knows = web.raw(mount, "files", "/nope")
    assert web.problem(nobody_knows) == (423, "ENOKEY"), "it may be on the volume that is encrypted"
    assert "part5" in nobody_knows.json()["detail"]
    assert web.problem(web.raw(mount, "files", "/etc/hostname")) == (422, "ENOTDIR")
    assert web.problem(web.raw(mount, "files", "/part5")) == (423, "ENOKEY")
    assert web.problem(web.raw(mount, "archive", "/part5")) == (423, "ENOKEY")
    assert web.problem(web.raw(mount, "search", "/part5", query={"pattern": "x"}))[0] == 423
    assert web.problem(web.raw(mount, "files", query={"sort": "colour"}))[0] == 400
    assert web.problem(web.raw(mount, "files", query={"limt": "1"}))[0] == 400
    assert web.problem(client.get("/api/v1/backups?limit=0"))[0] == 400
    assert web.problem(client.post("/api/v1/status"))[0] == 405
    assert web.problem(client.get("/api/v1/nope"))[0] == 404
    assert web.problem(client.get("/api/v1/restore/mount"))[0] in (404, 405)


def test_the_daemon_and_its_figures(web: Api, sample: Sample) -> None:
    mount = web.mount(sample.full, 1)
    web.raw(mount, "download", "/big")
    big = web.daemon.backups / sample.full / "disk1" / "big"
    big.read_bytes()
    with big.open("rb") as file:  # requests that are not answered
        poller = select.poll()
        poller.register(file)
        poller.poll(0)
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            fcntl.ioctl(file, _GETFLAGS, bytes(8))
    assert web.client.get("/healthz").json() == {"status": "ok"}
    response = web.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    figures = dict(line.rsplit(" ", 1) for line in lines)
    assert len(figures) == len(lines), "each once"
    took = 'restorefs_fuse_request_seconds_total{operation="'
    assert all(float(value) < 60 for name, value in figures.items() if name.startswith(took))
    assert float(figures["restorefs_attached_disks"]) >= 1
    assert float(figures['restorefs_attach_seconds_bucket{le="+Inf"}']) >= 1
    assert float(figures["restorefs_api_sent_bytes_total"]) >= 24 * MIB
    assert float(figures["restorefs_fuse_read_bytes_total"]) >= 24 * MIB
    assert float(figures['restorefs_fuse_requests_total{operation="read"}']) >= 24
    assert float(figures['restorefs_fuse_request_seconds_total{operation="read"}']) > 0
    call = 'call="/api/v1/restore/{mount_id}/download",method="GET",status="200"'
    assert float(figures["restorefs_api_requests_total{" + call + "}"]) >= 1
    status = web.get("/status")
    assert status["listening"] == [web.url + "/"]
    assert mount in [each["mount_id"] for each in status["attached"]]


def test_a_whole_answer_to_a_client_that_reads_slowly(web: Api, sample: Sample) -> None:
    """Others are answered meanwhile."""
    mount = web.mount(sample.full, 1)
    content = (sample.sources.data / "big").read_bytes()
    url = f"/api/v1/restore/{mount}/download?path=/big"
    with web.client.stream("GET", url) as slow:
        pieces = slow.iter_raw(65_536)
        got = bytearray(next(pieces))
        with web.as_token(web.token) as other:
            for _ in range(20):
                assert other.get("/api/v1/status").status_code == 200
        for piece in pieces:
            got += piece
    assert got == content


def test_nothing_waits_for_a_client_that_takes_nothing_at_the_end(
    sample: Sample, tmp_path: Path
) -> None:
    with api(tmp_path, "--images", sample.repository) as found:
        mount = found.mount(sample.full, 1)
        url = f"/api/v1/restore/{mount}/download?path=/big"
        with found.as_token(found.token) as client, client.stream("GET", url) as stuck:
            assert stuck.status_code == 200
            found.daemon.stop()


def test_percent() -> None:
    assert httpx.URL("http://x/?path=" + percent(b"\xff/a")).query == b"path=%FF%2F%61"
