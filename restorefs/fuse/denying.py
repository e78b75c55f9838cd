"""Keeping named programs out of disks: indexers, which would attach every one.

Owns what they are refused: all that is inside a disk, and looking for it. What is above they may
look at. Must not know how requests are answered. A program is known by its name (comm in proc(5)),
which it can change: this is against accidents, and no protection.

Concurrency: nothing awaits.
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Mapping

from restorefs.fuse.protocol import Opcode
from restorefs.fuse.request import Request
from restorefs.fuse.server import Answering, Handler
from restorefs.guestfs.lru import Lru
from restorefs.session.asker import programs_of
from restorefs.tree.nodeid import is_above
from restorefs.tree.tree import Tree

_COMM_BYTES = 15
_KEPT = 256
_SECONDS = 1.0  # a process number may come to mean another program

_LOOKING = (Opcode.LOOKUP, Opcode.OPENDIR)
# Never to be refused: they end something, or ask nothing.
_ALWAYS = (
    Opcode.FORGET,
    Opcode.BATCH_FORGET,
    Opcode.RELEASEDIR,
    Opcode.DESTROY,
    Opcode.STATFS,
    Opcode.INTERRUPT,
)


class Denying:
    """Refuses programs by name."""

    def __init__(self, tree: Tree, names: Collection[str]) -> None:
        self._tree = tree
        self._names = {os.fsdecode(os.fsencode(name)[:_COMM_BYTES]) for name in names}
        self._known: Lru[int, tuple[float, bool]] = Lru(_KEPT)

    def wrapped(self, handlers: Mapping[int, Handler]) -> dict[int, Handler]:
        """Return handlers, by opcode, that refuse first."""
        return {
            opcode: handler if opcode in _ALWAYS else self._refusing(handler)
            for opcode, handler in handlers.items()
        }

    def _refusing(self, handler: Handler) -> Callable[[Request], Answering | None]:
        def begin(request: Request) -> Answering | None:
            if self._is_inside(request) and self._is_denied(request.pid):
                request.fail(errno.EACCES)
                return None
            return handler(request)

        return begin

    def _is_inside(self, request: Request) -> bool:
        if not is_above(request.node):
            return True
        return request.opcode in _LOOKING and self._tree.may_wait(request.node)

    def _is_denied(self, pid: int) -> bool:
        now = time.monotonic()
        at, denied = self._known.get(pid) or (0.0, False)
        if now - at > _SECONDS:
            denied = not self._names.isdisjoint(programs_of(pid))
            self._known.put(pid, (now, denied))
        return denied
