"""Getting a mount from the kernel: fusermount3, and the first request.

Owns how /dev/fuse is opened and what is agreed with the kernel (INIT). Must not know what is
served. Source: fusermount3(1) and libfuse's doc/kernel.txt for the socket; linux/fuse.h for INIT.

Concurrency: blocks; done once, at the start.
"""

import errno
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from restorefs.errors import MountError
from restorefs.fuse.protocol import (
    BUFFER_SIZE,
    MAJOR,
    MINOR,
    NEEDED,
    WANTED,
    InitFlag,
    Opcode,
    init_in,
    init_out,
)
from restorefs.fuse.request import Request

_SECONDS = 10.0


def mount(mountpoint: Path, options: Iterable[str]) -> int:
    """Mount, and return the descriptor that requests come from. Raises MountError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["fusermount3", "-o", ",".join(sorted(options)), "--", str(mountpoint)]
        try:
            result = subprocess.run(
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except FileNotFoundError:
            raise MountError("fusermount3 is not installed") from None
        except subprocess.TimeoutExpired:
            raise MountError(f"fusermount3 takes more than {_SECONDS:g} s") from None
        theirs.close()
        if result.returncode != 0:
            raise MountError(result.stderr.strip() or "fusermount3 failed")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise MountError("fusermount3 opened no /dev/fuse")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def ended(fd: int) -> bool:
    """Whether the kernel has ended the mount, of which nothing may be left then."""
    poll = select.poll()
    poll.register(fd, 0)  # errors alone
    return bool(poll.poll(0))


def agree(fd: int, max_background: int) -> None:
    """Answer the kernel's first request, and make the descriptor one that does not block.

    Raises MountError for a kernel that lacks what we cannot do without.
    """
    os.set_blocking(fd, False)
    while True:
        if not select.select([fd], [], [], _SECONDS)[0]:
            raise MountError("the kernel does not talk to us: no FUSE_INIT came")
        try:
            message = os.read(fd, BUFFER_SIZE)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                continue
            raise MountError(f"the kernel ended the mount: {error.strerror}") from error
        break
    request = Request(fd, message, time.perf_counter_ns())
    asked = init_in(request.body)
    if (
        request.opcode != Opcode.INIT
        or (asked.major, asked.minor) < (MAJOR, MINOR)
        or asked.flags & NEEDED != NEEDED
    ):
        request.fail(errno.EPROTO)
        raise MountError(
            f"this kernel's FUSE ({asked.major}.{asked.minor}, {InitFlag(asked.flags)!r}) lacks"
            f" something: {MAJOR}.{MINOR} with {NEEDED!r} is needed (Linux 5.4 or newer)"
        )
    request.reply(init_out(asked.flags & WANTED, asked.max_readahead, max_background))
