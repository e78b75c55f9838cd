"""What the tests of the API share: a daemon that listens, and clients of it.

Knows docs/api.md; imports nothing of restorefs.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.mounted.daemon import SECONDS, Daemon, restorefs, served
from tests.tools import require


class Api:
    """A daemon's API over TCP, with a token."""

    def __init__(self, daemon: Daemon, token: str | None) -> None:
        ready = daemon.wait_logged(r"^restorefs: .*, API at ")
        self.daemon = daemon
        self.url = ready.rpartition(" API at ")[2].rstrip("/")
        self.token = token
        self.client = self.as_token(token)

    def as_token(self, token: str | None) -> httpx.Client:
        """Return another client; close it."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS)

    def get(self, call: str, /, **query: Any) -> Any:
        """Return the JSON of a call that must succeed."""
        response = self.client.get("/api/v1" + call, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def mount(self, backup: str, index: int = 0) -> str:
        """Return the id of a mount."""
        body = {"backup_id": backup, "disk_index": index}
        response = self.client.post("/api/v1/restore/mount", json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["mount_id"])

    def raw(self, mount: str, call: str, path: bytes | str = b"/", **how: Any) -> httpx.Response:
        """Return the answer about a file, whose name may be any bytes."""
        query = "path=" + percent(path.encode() if isinstance(path, str) else path)
        more = "".join(f"&{name}={value}" for name, value in how.pop("query", {}).items())
        return self.client.get(f"/api/v1/restore/{mount}/{call}?{query}{more}", **how)

    def problem(self, response: httpx.Response) -> tuple[int, str | None]:
        """Return the status and errno of a problem document."""
        assert response.headers["content-type"] == "application/problem+json", response.text
        told = response.json()
        assert told["status"] == response.status_code
        assert told["detail"]
        assert told["title"]
        return response.status_code, told["errno"]

    def curl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run curl with the token; what begins with / is on this server."""
        words = [self.url + arg if arg.startswith("/api/") else arg for arg in args]
        token = ["--header", f"Authorization: Bearer {self.token}"] if self.token else []
        return subprocess.run(
            ["curl", "--silent", "--show-error", "--max-time", "60", *token, *words],
            capture_output=True,
            check=check,
        )


def percent(raw: bytes) -> str:
    """Return bytes as a part of a query."""
    return "".join(f"%{byte:02X}" for byte in raw)


def make_token(file: Path, name: str, *vms: str) -> str:
    """Return a new token."""
    options = [word for vm in vms for word in ("--vm", vm)]
    done = restorefs("token", "add", name, "--file", file, *options)
    assert done.code == 0, done.err
    assert re.fullmatch(r"rfs_[\w-]{43}\n", done.out), done.out
    return done.out.strip()


@contextmanager
def api(folder: Path, *options: str | Path, **how: Any) -> Iterator[Api]:
    """Have a daemon listen on a free port, with a token."""
    file = folder / "tokens.json"
    token = make_token(file, "gui")
    listen = ("--listen", "127.0.0.1:0", "--token-file", file)
    with served(*options, *listen, **how) as daemon:
        found = Api(daemon, token)
        with found.client:
            yield found


def lines_of(response: httpx.Response) -> list[Any]:
    """Return the records of a search."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def run_bytes(*words: str, given: bytes) -> bytes:
    """Run a program that must succeed; return what it makes of some bytes."""
    require(words[0])
    return subprocess.run(words, input=given, capture_output=True, check=True).stdout
