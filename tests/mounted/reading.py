"""Reads in a process of their own: they may block for as long as the mount lets them.

Owns that such a reader can be waited for, looked at and ended. Concurrency: the process has one
thread per read, all at once.
"""

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mounted.daemon import SECONDS

_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # Linux has one number for two names

_SCRIPT = """
import errno, hashlib, json, mmap, os, sys, threading
path, length, direct, offsets = json.loads(sys.argv[1])
fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
found = [None] * len(offsets)

def read(number):
    buffer = mmap.mmap(-1, length)
    try:
        got = os.preadv(fd, [buffer], offsets[number])
    except OSError as error:
        found[number] = errno.errorcode[error.errno]
    else:
        found[number] = hashlib.sha256(memoryview(buffer)[:got]).hexdigest()

threads = [threading.Thread(target=read, args=(number,)) for number in range(len(offsets))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(found))
"""


class Reading:
    """Reads of `length` bytes at several offsets of one file, all under way at once."""

    def __init__(self, path: Path, offsets: Sequence[int], length: int, direct: bool) -> None:
        arguments = json.dumps([str(path), length, direct, list(offsets)])
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", _SCRIPT, arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def blocked(self) -> bool:
        """Not all reads have ended yet."""
        return self.process.poll() is None

    def results(self, seconds: float = SECONDS) -> list[str]:
        """Return what each read gave: the SHA-256 of its bytes, or an errno's name."""
        out, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0
        found: list[str] = json.loads(out)
        return found

    def failed(self, seconds: float = SECONDS) -> bool:
        """Say whether it could not even open the file."""
        self.process.communicate(timeout=seconds)
        return self.process.returncode != 0


@contextmanager
def reading(
    path: Path, *offsets: int, length: int = 65_536, direct: bool = False
) -> Iterator[Reading]:
    """Start to read; `direct` past the kernel's cache, which needs whole blocks of 4096 bytes."""
    reader = Reading(path, offsets, length, direct)
    try:
        yield reader
    finally:
        reader.process.kill()
        reader.process.communicate()


def digests(path: Path, *offsets: int, length: int = 65_536) -> list[str]:
    """Return what reads of a file must give."""
    with path.open("rb") as file:
        found = []
        for offset in offsets:
            file.seek(offset)
            found.append(hashlib.sha256(file.read(length)).hexdigest())
    return found


def error_of(call: Callable[..., object], *arguments: object) -> str:
    """Return the errno's name with which a system call fails, "" if it does not."""
    try:
        call(*arguments)
    except OSError as error:
        return _NAMES[error.errno or 0]
    return ""
