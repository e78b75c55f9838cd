"""`restorefs mount` as a child process, and everything that a test asks of it.

Owns that a daemon is started as a user would, that its readiness and its end are waited for, that
nothing of it stays behind whatever happens, and that nothing unexpected is in its log. Knows the
command line, the log's form and the API's socket; imports nothing of restorefs.

Concurrency: one thread per daemon reads its log; everything else belongs to the test's thread.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.tools import wait_until

RESTOREFS = Path(sys.executable).with_name("restorefs")
SECONDS = 60.0
_QUIET = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO) |restorefs: ")


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def restorefs(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
) -> Result:
    """Run a command of the real command line to its end, which never is a traceback.

    prefix: a program that runs it, such as setpriv with its options.
    """
    done = subprocess.run(
        [*prefix, str(RESTOREFS), *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=_environment(env),
        cwd=cwd,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


class Process:
    """A process, by a descriptor that never comes to mean another one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def ended(self, seconds: float = 0) -> bool:
        """Say whether it has ended, or ends within so many seconds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def wait(self, seconds: float = SECONDS) -> None:
        assert self.ended(seconds), f"process {self.pid} does not end within {seconds:g} s"

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended takes none."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        os.close(self._fd)

    @property
    def state(self) -> str:
        """Its state as proc(5) says: "T" when stopped, "" when it has ended."""
        try:
            return _stat(self.pid)[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it stand still for a while."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: self.state == "T", f"process {self.pid} stands still")
        try:
            yield
        finally:
            self.send(signal.SIGCONT)


class Place:
    """Where a daemon mounts and has its sockets: short paths, as those of sockets must be."""

    def __init__(self, owner: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="restorefs-"))
        self.folder.chmod(0o755)
        self.mountpoint = self.folder / "mnt"
        self.runtime_dir = self.folder / "run"
        for folder in (self.mountpoint, self.runtime_dir):
            folder.mkdir()
            if owner is not None:
                shutil.chown(folder, owner)

    def remove(self) -> None:
        """Unmount, whatever is there, and remove."""
        unmount_all(self.mountpoint.resolve())
        shutil.rmtree(self.folder)


class Daemon:
    """A `restorefs mount` that runs, or ran."""

    def __init__(
        self,
        place: Place,
        *options: str | Path,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        named: bool = True,
    ) -> None:
        """Start it. `prefix` as for restorefs(); `named`: with its mountpoint as an argument."""
        self.place = place
        self.mountpoint = place.mountpoint
        self.backups = place.mountpoint / "backups"
        self.lines: list[str] = []
        self._prefix = prefix
        self._expected: list[re.Pattern[str]] = []
        self._seen: dict[int, Process] = {}
        self._said = threading.Condition()
        self._killed = False
        self._process = subprocess.Popen(
            [
                *prefix,
                str(RESTOREFS),
                *("--runtime-dir", str(place.runtime_dir), "mount"),
                *map(str, options),
                *([str(place.mountpoint)] if named else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            # What Python warns of, such as a file that is not closed, is in the log then.
            env=_environment({"PYTHONWARNINGS": "default", **(env or {})}),
            start_new_session=True,
        )
        self.process = Process(self._process.pid)
        self._follower = threading.Thread(target=self._follow)
        self._follower.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    # --- its log --------------------------------------------------------------------------------

    def _follow(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def wait_logged(self, pattern: str, count: int = 1, seconds: float = SECONDS) -> str:
        """Wait until `count` lines of the log match; return the last of them."""

        def found() -> list[str]:
            return self.logged(pattern)[count - 1 :]

        with self._said:
            self._said.wait_for(lambda: found() or not self._follower.is_alive(), seconds)
            assert found(), f"{pattern!r} is not in the log:\n" + self.log
            return found()[0]

    def logged(self, pattern: str) -> list[str]:
        """Return the lines of the log that match."""
        return [line for line in self.lines if re.search(pattern, line)]

    def expect(self, *patterns: str) -> None:
        """Say that the log will hold warnings or errors that match; each of them must come."""
        self._expected += map(re.compile, patterns)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    # --- what it is asked -----------------------------------------------------------------------

    def cli(self, *args: str | Path) -> Result:
        """Run another command that asks this daemon, as the same user."""
        return restorefs("--runtime-dir", self.place.runtime_dir, *args, prefix=self._prefix)

    def status(self) -> Any:
        """Return what GET /status answers, without the cost of a command."""
        (socket,) = self.place.runtime_dir.glob("*/control.sock")
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, timeout=SECONDS) as client:
            return client.get("http://restorefs/api/v1/status").json()

    def attached(self) -> dict[str, Any]:
        """Return the attached disks by name, such as "backup-web-1700000000/disk0"."""
        return {f"{d['backup_id']}/disk{d['disk_index']}": d for d in self.status()["attached"]}

    def wait_under_way(self, disk: str, requests: int = 1) -> None:
        """Wait until so many requests are waiting for an attached disk."""

        def waiting() -> bool:
            found = self.attached().get(disk)
            return found is not None and found["requests_under_way"] >= requests

        wait_until(waiting, f"{requests} requests wait for {disk}")

    def children(self) -> list[int]:
        """Return its child processes that live. Each one seen must have ended when it has."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):  # it has ended
                    state, parent = _stat(int(folder.name))[:2]
                    if int(parent) == self.pid and state not in "XZ":
                        found.append(int(folder.name))
                        if found[-1] not in self._seen:
                            self._seen[found[-1]] = Process(found[-1])
        return found

    def server(self, disk: str) -> Process:
        """Return the qemu-nbd of an attached disk; close it."""
        return Process(self.attached()[disk]["qemu_nbd_pid"])

    # --- its end --------------------------------------------------------------------------------

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.children()
        self.process.send(number)

    def stop(self) -> None:
        """End it."""
        self.send(signal.SIGTERM)
        self.process.wait()

    def kill(self) -> None:
        """End it as a crash would: the mount stays, dead."""
        self._killed = True
        self.send(signal.SIGKILL)
        self._process.wait()

    def check(self) -> None:
        """End it, unless the test has; AssertionError unless nothing is left and all was well."""
        if not self.process.ended():
            self.stop()
        code = self._process.wait()
        self._follower.join()
        for child in self._seen.values():
            child.wait()
        if not self._killed:
            assert code == 0, f"ended with {code}:\n{self.log}"
            assert not is_mounted(self.mountpoint.resolve()), f"still mounted:\n{self.log}"
            left = [str(path) for path in self.place.runtime_dir.rglob("*")]
            assert not left, f"left in the runtime folder: {left}\n{self.log}"
        unexpected = [line for line in self.lines if not _QUIET.match(line)]
        for pattern in self._expected:
            assert any(map(pattern.search, unexpected)), f"no {pattern.pattern!r} in\n{self.log}"
        unexpected = [
            line for line in unexpected if not any(each.search(line) for each in self._expected)
        ]
        assert not unexpected, "unexpected in the log:\n" + "\n".join(unexpected)

    def destroy(self) -> None:
        """Leave nothing of it, in whatever state it is."""
        self.send(signal.SIGKILL)
        self._process.wait()
        for child in self._seen.values():
            child.send(signal.SIGKILL)
            child.close()
        self._follower.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self.process.close()

    def wait_ready(self) -> None:
        self.wait_logged(r"^restorefs: \d+ backups at ")


@contextmanager
def served(
    *options: str | Path,
    place: Place | None = None,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    named: bool = True,
) -> Iterator[Daemon]:
    """Have a daemon serve a mount; afterwards it is ended and must have behaved.

    place: where, when another daemon was or is there; it is removed with the first one's.
    """
    own = place is None
    place = place or Place()
    try:
        daemon = Daemon(place, *options, env=env, prefix=prefix, named=named)
        try:
            daemon.wait_ready()
            yield daemon
            daemon.check()
        finally:
            daemon.destroy()
    finally:
        if own:
            place.remove()


def unmount_all(folder: Path) -> None:
    """Take away, lazily, whatever is mounted on a folder."""
    while is_mounted(folder):
        command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*command, str(folder)], check=True)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third one, the state, on; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_mounted(folder: Path) -> bool:
    """Say whether something is mounted on a folder, without asking what is mounted."""
    return mount_line(folder) is not None


def mount_line(folder: Path) -> str | None:
    """Return the line of /proc/self/mountinfo of what is mounted on a folder, if anything is."""
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        if line.split(b" ")[4].decode("unicode_escape").encode("latin-1") == os.fsencode(folder):
            found = os.fsdecode(line)
    return found


def _environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    """Return our environment without what would configure restorefs, and with the changes."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RESTOREFS_", "NOTIFY_"))}
    return plain | {"LC_ALL": "C.UTF-8"} | dict(changes or {})
