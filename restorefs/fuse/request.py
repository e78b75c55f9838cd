"""One request of the kernel, and its answer.

Owns that a request is answered once: what comes later is dropped, as when somebody was told EINTR
and the answer arrives after all. Must not know what is asked.

Concurrency: answering does not block, and raises nothing.
"""

import errno
import logging
import os
import time

from restorefs.counters import FUSE, MAX_OPCODE
from restorefs.errors import RestoreError
from restorefs.fuse.protocol import HEADER, OPCODES, REPLY_HEADER
from restorefs.tree.nodeid import NodeId

log = logging.getLogger(__name__)
_NO_LONGER_WAITED_FOR = (errno.ENOENT, errno.ENODEV, errno.ENOTCONN)

Data = bytes | bytearray | memoryview


class Request:
    """What the kernel asks. `opcode` is one of protocol.Opcode, or one that we do not answer;
    `uid`, `gid` and `pid` are of the process that waits for it."""

    __slots__ = (
        "answered",
        "began_ns",
        "body",
        "fd",
        "gid",
        "node",
        "opcode",
        "pid",
        "uid",
        "unique",
    )

    def __init__(self, fd: int, message: bytes, began_ns: int) -> None:
        """`fd` is where the answer goes; `began_ns` when it came, by time.perf_counter_ns()."""
        header = HEADER.unpack_from(message)
        _, self.opcode, self.unique, node, self.uid, self.gid, self.pid, _, _ = header
        self.node = NodeId(node)
        self.body = message[HEADER.size :]
        self.fd = fd
        self.answered = False
        self.began_ns = began_ns

    def __str__(self) -> str:
        name = OPCODES[self.opcode].name if self.opcode in OPCODES else f"request {self.opcode}"
        return f"{name} of node {self.node:#x}"

    def reply(self, data: Data = b"") -> bool:
        """Answer. The data is copied before this returns: a view of a cache slot may be given.

        Returns False if nobody waits for it any more.
        """
        length = REPLY_HEADER.size + len(data)
        return self._send(REPLY_HEADER.pack(length, 0, self.unique), data)

    def fail(self, number: int) -> None:
        """Answer with an errno."""
        if not self.answered:
            FUSE.errors[number] += 1
        self._send(REPLY_HEADER.pack(REPLY_HEADER.size, -number, self.unique))

    def fail_with(self, error: BaseException) -> None:
        """Answer with the errno of an exception, where nothing was answered yet.

        Whatever is no RestoreError is a bug: it is logged with its traceback, and gives EIO.
        """
        if isinstance(error, RestoreError):
            self.fail(error.errno)
        else:
            log.error("unexpected error in %s", self, exc_info=error)
            self.fail(errno.EIO)

    def drop(self) -> None:
        """Leave a request unanswered that wants no answer."""
        self.answered = True

    def _send(self, *parts: Data) -> bool:
        if self.answered:
            return False
        self.answered = True
        opcode = self.opcode & MAX_OPCODE
        FUSE.requests[opcode] += 1
        FUSE.nanoseconds[opcode] += time.perf_counter_ns() - self.began_ns
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            if error.errno not in _NO_LONGER_WAITED_FOR:  # whoever asked got an error already
                log.error("the kernel takes no answer to %s: %s", self, error.strerror)  # noqa: TRY400
            return False
        return True
