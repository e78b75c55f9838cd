"""smbd and smbclient on loopback, as docs/smb.conf has them.

Owns that smbd runs on a port of its own with folders of its own, knows whom the test wants it to
know, and has ended, with each process that it started, when the test has. Knows nothing of
restorefs.

Concurrency: none.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mounted.daemon import Process, Result
from tests.tools import require, require_root, run, unavailable, wait_until

CONF = Path(__file__).parents[2] / "docs" / "smb.conf"
SECONDS = 60.0
NOBODY, ROOT = "nobody", "root"
"""Users of every machine; smbd learns a password for them."""
_PASSWORD = "of no use elsewhere"
_PRIVATE = ("lock directory", "state directory", "cache directory", "private dir", "pid directory")


class Share:
    """A share as a user sees it by smbclient."""

    def __init__(self, port: int, name: str, user: str, conf: Path) -> None:
        self._command = [
            *("smbclient", "--configfile", str(conf), "--port", str(port)),
            *("--user", f"{user}%{_PASSWORD}", f"//127.0.0.1/{name}"),
        ]

    def start(self, *commands: str) -> "subprocess.Popen[str]":
        """Start smbclient with its commands; the caller ends it."""
        return subprocess.Popen(
            [*self._command, "--command", "; ".join(commands)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )

    def do(self, *commands: str) -> Result:
        """Let smbclient execute commands; what it says of errors is in `out` too."""
        with self.start(*commands) as client:
            try:
                out, _ = client.communicate(timeout=SECONDS)
            finally:
                client.kill()
        return Result(client.returncode, out, "")

    def listing(self, folder: str) -> dict[str, tuple[str, int]]:
        """Return what a folder holds by name: DOS attributes and size. folder: with backslashes."""
        done = self.do(f'ls "{folder}\\*"')
        assert done.code == 0, done.out
        line = re.compile(r"  (.+?) +([A-Za-z]*) +(\d+)  \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}")
        found = [match.groups() for match in map(line.fullmatch, done.out.splitlines()) if match]
        return {n: (kind, int(size)) for n, kind, size in found if n not in (".", "..")}

    def read(self, path: str) -> bytes:
        """Return a file's content, or that of one of its streams, `file:stream`."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "content")
            done = self.do(f'get "{path}" "{target}"')
            assert done.code == 0, done.out
            return target.read_bytes()

    def copy(self, folder: str, target: Path) -> None:
        """Copy a folder with everything in it, as a tar archive that is unpacked again."""
        archive = target.with_suffix(".tar")
        done = self.do(f'cd "{folder}"', f'tar c "{archive}" *')
        assert done.code == 0, done.out
        assert "NT_STATUS" not in done.out, done.out
        target.mkdir()
        run("tar", "--extract", "--file", archive, "--directory", target)
        archive.unlink()


class Samba:
    """An smbd that runs."""

    def __init__(self, port: int, conf: Path, process: Process) -> None:
        self._port = port
        self._conf = conf
        self.process = process

    def share(self, name: str, user: str = ROOT) -> Share:
        return Share(self._port, name, user, self._conf)


def configuration(mountpoint: Path, folder: Path, vm: str) -> str:
    """Return docs/smb.conf for a mount that is elsewhere, and for users of every machine."""
    text = CONF.read_text()
    for here, there in (
        ("files01", vm),
        ("/mnt/restore", str(mountpoint)),
        ("@restore-admins", ROOT),
    ):
        assert here in text
        text = text.replace(here, there)
    own = "".join(f"    {name} = {folder / name.split()[0]}\n" for name in _PRIVATE)
    own += f"    ncalrpc dir = {folder / 'ncalrpc'}\n"
    own += "    interfaces = lo\n    bind interfaces only = yes\n    log level = 1\n"
    return text.replace("[global]\n", "[global]\n" + own)


@contextmanager
def smbd(mountpoint: Path, vm: str) -> Iterator[Samba]:
    """Serve a mount as docs/smb.conf does. `vm`: whose share stands for files01."""
    require("smbd", "smbclient", "smbpasswd")
    _require_modules()
    require_root()
    with tempfile.TemporaryDirectory(prefix="restorefs-smbd-") as name:
        folder = Path(name)
        for private in (*_PRIVATE, "ncalrpc dir"):
            (folder / private.split()[0]).mkdir()
        conf = folder / "smb.conf"
        conf.write_text(configuration(mountpoint, folder, vm))
        for user in (NOBODY, ROOT):
            told = f"{_PASSWORD}\n{_PASSWORD}\n"
            run("smbpasswd", "-c", conf, "-L", "-s", "-a", user, input=told)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [
                    *("smbd", "--foreground", "--no-process-group", "--debug-stdout"),
                    *("--port", str(port), "--configfile", str(conf)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # when it ends, it ends its whole group: not ours
            )
        process = Process(server.pid)
        try:
            wait_until(lambda: process.ended() or _listens(port), "smbd listens")
            assert not process.ended(), (folder / "log").read_text()
            yield Samba(port, conf, process)
        finally:
            _end(process)
            server.wait()
            process.close()


def _require_modules() -> None:
    """Skip the calling test unless smbd has the modules, which may be a package of their own."""
    (folder,) = re.findall(r"MODULESDIR: (.*)", run("smbd", "--build-options"))
    for line in re.findall(r"^ *vfs objects = (.*)", CONF.read_text(), re.MULTILINE):
        for name in line.split():
            if not Path(folder, "vfs", f"{name}.so").exists():
                unavailable(f"smbd has no module {name}")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _end(process: Process) -> None:
    """End smbd and what it started: one process per client, and some for itself."""
    children = [Process(pid) for pid in _descendants(process.pid)]
    process.send(signal.SIGTERM)
    if not process.ended(SECONDS):
        process.send(signal.SIGKILL)
    for child in children:
        if not child.ended(5):
            child.send(signal.SIGKILL)
        child.wait()
        child.close()


def _descendants(pid: int) -> Sequence[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found
