"""Who attached a disk: one process of one host, told apart from a later one of the same number.

Owns the identity of a daemon as restore_mounts keeps it. Must not know the database. Linux only:
reads /proc. Concurrency: plain functions without state.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: its host's name, its number, and when it began. Hosts whose process numbers are
    not the same ones have different names."""

    host: str
    pid: int
    pid_start: str

    @classmethod
    def of_this_process(cls, host: str | None = None) -> Self:
        """Return the identity of the calling process, on a host of that name, if not ours."""
        pid = os.getpid()
        start = process_start(pid)
        assert start is not None  # we are running
        return cls(host or socket.gethostname(), pid, start)

    def is_gone(self) -> bool:
        """Say whether this process, one of this host, has ended.

        Only certainty counts: a process of which nothing can be learned is not gone.
        """
        try:
            return process_start(self.pid) != self.pid_start
        except OSError:
            return False


def process_start(pid: int) -> str | None:
    """Return when a process began, as text that no other process of this host ever has; None if
    there is no such process.

    The start time counts clock ticks since boot, so the boot's own id goes with it. Format:
    proc(5), /proc/pid/stat, fields 3 (state) and 22 (starttime). Raises OSError where /proc does
    not show the process although it exists (hidepid).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if _exists(pid):
            raise PermissionError(f"process {pid} is hidden") from None
        return None
    # Field 2 is the program's name in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(b")")[2].split()
    state, start = fields[0], fields[19]
    if state in (b"Z", b"X"):  # ended; its parent has not asked for the result yet
        return None
    return f"{_BOOT_ID.read_text().strip()}/{start.decode()}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
