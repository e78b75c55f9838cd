"""Who asks: the process, or the client of the API, that a disk is attached for.

Owns what is known of a process by its number, and the context variable by which that reaches the
pool: set where requests come in, read where a disk is attached, in nothing between. Must not know
what is asked.
"""

import os
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple


class Asker(NamedTuple):
    """uid and pid of a process; pid is 0 where that is not known (another PID namespace)."""

    uid: int
    pid: int


class Client(NamedTuple):
    """A client of the API, by what its token is called."""

    name: str


class Described(NamedTuple):
    """An asker as it was when it asked; program: as ps shows it, "" where that is not known.
    client: of the API; it has none of the others."""

    uid: int | None = None
    pid: int | None = None
    program: str = ""
    client: str | None = None

    def __str__(self) -> str:
        if self.client is not None:
            return f"{self.client}, over the API"
        program = "".join(c if c.isprintable() else "?" for c in self.program)
        return f"uid {self.uid}, {program or 'a program'} (pid {self.pid})"


ASKER: ContextVar[Asker | Client | None] = ContextVar("ASKER", default=None)
"""Who asks for what the running task does; None for the daemon itself."""


def describe_asker() -> Described | None:
    """Return who asks, with the program's name."""
    asker = ASKER.get()
    if asker is None:
        return None
    if isinstance(asker, Client):
        return Described(client=asker.name)
    names = programs_of(asker.pid)
    return Described(asker.uid, asker.pid, names[-1] if names else "")


def programs_of(pid: int) -> list[str]:
    """Return the names that a thread and its process go by (comm in proc(5), 15 bytes at most), the
    process last; none where it has ended or cannot be seen."""
    try:
        about = dict(
            line.split(b":", 1)
            for line in Path(f"/proc/{pid}/status").read_bytes().splitlines()
            if b":" in line
        )
        names = [Path(f"/proc/{pid}/comm").read_bytes()]
        if (group := about[b"Tgid"].strip().decode()) != str(pid):
            names.append(Path(f"/proc/{group}/comm").read_bytes())
    except (OSError, KeyError):
        return []
    return [os.fsdecode(name.removesuffix(b"\n")) for name in names]
