"""The API when much is asked for and nobody takes it: places are kept as long as something is sent,
and what waits to be sent is not in memory."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.mounted.api import Api, api, make_token
from tests.mounted.disks import MIB, ext, qcow2
from tests.tools import loop_mount, wait_until

BACKUP = "backup-much-1700000000"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(24 * MIB)
NAMES = [f"{number:05d}-" + "long" * 60 for number in range(12_000)]


class Much(Api):
    """A daemon with a folder of many long names and a large picture, and two clients."""

    def __init__(self, found: Api, tokens: Path) -> None:
        super().__init__(found.daemon, found.token)
        self.id = found.mount(BACKUP)
        self.second = make_token(tokens, "second")

    @contextmanager
    def asked(self, call: str, token: str | None = None) -> Iterator[socket.socket]:
        """Ask, and take no more than the beginning of the answer."""
        asked = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with closing(asked):
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host = self.url.removeprefix("http://")
            name, _, port = host.rpartition(":")
            asked.connect((name, int(port)))
            asked.sendall(
                f"GET /api/v1/restore/{self.id}/{call} HTTP/1.1\r\nHost: {host}\r\n"
                f"Authorization: Bearer {token or self.token}\r\n\r\n".encode()
            )
            assert asked.recv(15).startswith(b"HTTP/1.1 200")
            yield asked

    def status_of(self, call: str, token: str | None = None) -> int:
        """Return the status of an answer of which nothing is taken."""
        with (
            self.as_token(token or self.token) as client,
            client.stream("GET", f"/api/v1/restore/{self.id}/{call}") as answer,
        ):
            return answer.status_code

    @property
    def memory(self) -> int:
        """MiB of the daemon's memory that hold something."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024


@pytest.fixture(scope="module")
def much() -> Iterator[Much]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        source.mkdir()
        (source / "picture.png").write_bytes(PICTURE)
        image = ext(folder / "disk.img", "ext4", source, 96 * MIB, "-N", "16000")
        with loop_mount(image, "ext4", "rw") as mounted:  # mke2fs takes minutes
            (mounted / "many").mkdir()
            for each in NAMES:
                (mounted / "many" / each).touch()
        qcow2(image, folder / "repository" / BACKUP / "disk0.qcow2")
        options = ("--images", folder / "repository", "--cache-size", "16M")
        with api(folder, *options) as found:
            more = Much(found, folder / "tokens.json")
            with more.client:
                yield more


@pytest.mark.parametrize(
    ("call", "own", "each"),
    [("files?path=/many", 4, 6), ("preview?path=/picture.png", 32, 24)],
)
def test_who_takes_nothing_holds_a_place_and_no_memory(
    much: Much, call: str, own: int, each: int
) -> None:
    """`each`: MiB of one answer."""
    assert len(much.client.get(f"/api/v1/restore/{much.id}/{call}").content) > each * MIB
    before = much.memory
    with ExitStack() as held:
        for _ in range(own):
            held.enter_context(much.asked(call))
        assert much.status_of(call) == 429
        assert much.status_of(call, much.second) == 200, "somebody else has places left"
        assert much.status_of("files?path=/many&limit=500") == 200, "of what is small, there are"
        assert much.memory - before < own * each / 2
    wait_until(lambda: much.status_of(call) == 200, "their places are free")


@pytest.mark.parametrize("sort", ["name", "-name", "size", "type"])
def test_a_long_listing_is_whole_and_in_order(much: Much, sort: str) -> None:
    told = much.get(f"/restore/{much.id}/files", path="/many", sort=sort)
    assert (told["path"], told["total_count"], told["offset"]) == ("/many", len(NAMES), 0)
    expected = NAMES[::-1] if sort == "-name" else NAMES
    assert [file["name"] for file in told["files"]] == expected
    page = much.get(f"/restore/{much.id}/files", path="/many", sort=sort, offset=3000, limit=2500)
    assert page["files"] == told["files"][3000:5500]
    some = much.get(f"/restore/{much.id}/files", path="/many", sort=sort, q="77", offset=5)
    assert [file["name"] for file in some["files"]] == [n for n in expected if "77" in n][5:]
    found = much.get(f"/restore/{much.id}/files", path="/many", sort=sort, find="11999", limit=1)
    assert found["found"] == expected.index(NAMES[11_999])


def test_a_preview_is_the_picture(much: Much) -> None:
    shown = much.raw(much.id, "preview", "/picture.png")
    assert shown.content == PICTURE
    assert shown.headers["content-length"] == str(len(PICTURE))
