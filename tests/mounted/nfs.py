"""nfs-ganesha over a mount of ours, as docs/nfs.md says, on a port of this machine alone.

Owns that the server's configuration is the documented one with its paths and port replaced, that a
server is waited for, and that nothing of it stays behind. Knows nothing of restorefs.

Concurrency: none.
"""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounted.daemon import SECONDS, Place, unmount_all
from tests.tools import require, require_root, run, unavailable, wait_until

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "nfs.md"
PSEUDO = "restore"
_READY = "NFS SERVER INITIALIZED"


@contextmanager
def nfs_place() -> Iterator[Place]:
    """Have a mountpoint that lies on a ramfs, and a runtime folder."""
    require_root()
    place = Place()
    try:
        above = place.folder / "nfs"
        above.mkdir()
        run("mount", "-t", "ramfs", "-o", "mode=0755", "ramfs", above)
        try:
            place.mountpoint = above / "restore"
            place.mountpoint.mkdir()
            yield place
        finally:
            unmount_all(place.mountpoint.resolve())
            unmount_all(above.resolve())
    finally:
        place.remove()


class Ganesha:
    """An nfs-ganesha that exports a folder; it can be ended and started again."""

    def __init__(self, path: Path, folder: Path) -> None:
        """`folder`: where it may keep what it needs."""
        self.port = _free_port()
        self._log = folder / "log"
        self._arguments = ("-f", folder / "conf", "-L", self._log, "-p", folder / "pid")
        (folder / "recovery").mkdir()
        text = documented()
        for name, value in (
            ("NFS_Port", str(self.port)),
            ("Bind_addr", "127.0.0.1"),
            ("RecoveryRoot", f'"{folder / "recovery"}"'),
            ("Path", f'"{path}"'),
        ):
            text, count = re.subn(rf"^( *{name} = ).*;$", rf"\g<1>{value};", text, flags=re.M)
            assert count == 1, f"{name} is {count} times in {DOCUMENTATION.name}"
        (folder / "conf").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, path: str = "") -> str:
        """Return what libnfs' programs take for a path below the export."""
        return f"nfs://127.0.0.1/{PSEUDO}/{path}?version=4&nfsport={self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> None:
        """Start it, and wait until it serves."""
        before = self.log.count(_READY)
        self._process = subprocess.Popen(
            ["ganesha.nfsd", "-F", *map(str, self._arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        process = self._process
        wait_until(
            lambda: self.log.count(_READY) > before or process.poll() is not None,
            "nfs-ganesha serves",
        )
        assert process.poll() is None, self.log

    def stop(self) -> None:
        """End it; unless it goes by itself, as a crash would."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def exported(path: Path, folder: Path) -> Iterator[Ganesha]:
    """Have a folder exported."""
    require("ganesha.nfsd")
    if not any(Path("/usr").glob("lib*/**/ganesha/libfsalvfs.so")):
        unavailable("not installed: nfs-ganesha's FSAL_VFS")
    folder.mkdir()
    server = Ganesha(path, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def documented() -> str:
    """Return the configuration that the documentation shows."""
    blocks: list[list[str]] = [[]]
    for line in DOCUMENTATION.read_text().splitlines():
        if line.startswith("    "):
            blocks[-1].append(line[4:])
        elif blocks[-1]:
            blocks.append([])
    (found,) = (block for block in blocks if block and block[0].startswith("NFS_CORE_PARAM"))
    return "\n".join(found) + "\n"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
