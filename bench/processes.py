"""Programs that a benchmark starts, and what the kernel says about them.

Owns that what was started ends, also after a failure. Knows nothing about what is measured.
"""

import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


class BenchError(Exception):
    """A program failed, or answered other than it must: the figures would mean nothing."""


def run(*argv: str | Path, stdout: int | None = subprocess.PIPE, **options: Any) -> str:
    """Run a program to its end; `options` go to subprocess.run. Raises BenchError with what it said
    when it fails."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, argv))} ended with {done.returncode}: {done.stderr}")
    return done.stdout or ""


def missing_programs(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


@contextmanager
def started(*argv: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background, its output in `log`; ended by SIGTERM, then SIGKILL."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def started_until_ready(*argv: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """As started(), but yields when the program said READY=1 by sd_notify(3)."""
    with (
        tempfile.TemporaryDirectory(prefix="restorefs-notify-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(f"{folder}/socket")
        os.environ["NOTIFY_SOCKET"] = f"{folder}/socket"
        try:
            with started(*argv, log=log) as process:
                del os.environ["NOTIFY_SOCKET"]
                _wait_for_ready(process, notify, log)
                yield process
        finally:
            os.environ.pop("NOTIFY_SOCKET", None)


def _wait_for_ready(process: subprocess.Popen[bytes], notify: socket.socket, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            left = max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select([notify.fileno(), ended], [], [], left)
            if notify.fileno() in readable:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            elif ended in readable:
                raise BenchError(f"{process.args!r} ended: {log.read_text(errors='replace')}")
            else:
                raise BenchError(f"{process.args!r} was not ready after {PATIENCE_S} s")
    finally:
        os.close(ended)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for programs that have no way to say that they are ready."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not after {PATIENCE_S} s")
        time.sleep(0.001)


def unmount(folder: Path) -> None:
    """Unmount, also what is busy (lazily); a folder that is no mountpoint is left alone."""
    if os.path.ismount(folder):
        tool = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        with suppress(BenchError):
            run(*tool, folder)
            return
        run(*tool, "-l" if os.geteuid() == 0 else "-z", folder)


def memory_kib(pid: int) -> int:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise BenchError(f"process {pid} has no memory")


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found
