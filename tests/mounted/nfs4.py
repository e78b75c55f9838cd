"""A client of NFS version 4.0 that keeps file handles, and tells every error by its name.

Owns the few operations that a reader needs, each one COMPOUND of its own: what a handle means is
asked of the server every time, and nothing is cached or tried again. libnfs' programs do the
browsing; none of them lets a test hold a handle across what happens to the server. Reads are by the
anonymous stateid, so there is no state that a server could lose. Source: RFC 7530 and 7531, and
RFC 5531 for the calls.

Concurrency: one request at a time.
"""

import os
import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

_PROGRAM = 100_003
_GETATTR, _GETFH, _LOOKUP = 9, 10, 15
_PUTFH, _PUTROOTFH, _READ, _READDIR, _READLINK = 22, 24, 25, 26, 27
_AUTH_SYS = 1
_SECONDS = 60.0

_ERRORS = {
    1: "PERM",
    2: "NOENT",
    5: "IO",
    6: "NXIO",
    13: "ACCESS",
    20: "NOTDIR",
    21: "ISDIR",
    22: "INVAL",
    30: "ROFS",
    63: "NAMETOOLONG",
    70: "STALE",
    10_001: "BADHANDLE",
    10_004: "NOTSUPP",
    10_006: "SERVERFAULT",
    10_008: "DELAY",
    10_013: "GRACE",
    10_014: "FHEXPIRED",
}

# Attributes that are asked for, in the order in which they are answered (RFC 7530, 5.6 and 5.7).
_TYPE, _SIZE, _FSID, _FILEID, _MODE, _NUMLINKS, _MTIME = 1, 4, 8, 20, 33, 35, 53
_WANTED = (1 << _TYPE | 1 << _SIZE | 1 << _FSID | 1 << _FILEID) | (
    1 << _MODE | 1 << _NUMLINKS | 1 << _MTIME
)


class NfsError(Exception):
    """What the server said: `name` without its NFS4ERR_."""

    def __init__(self, number: int) -> None:
        self.name = _ERRORS.get(number, str(number))
        super().__init__(self.name)


class Attributes(NamedTuple):
    """`kind`: 1 a file, 2 a folder, 5 a link. `fsid`: two numbers."""

    kind: int
    size: int
    fsid: tuple[int, int]
    fileid: int
    mode: int
    nlink: int
    mtime_ns: int


class Client:
    """A connection to a server on this machine. Use as a context manager."""

    def __init__(self, port: int, uid: int = 0, gid: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _SECONDS)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._who = uid, gid

    def handle(self, *names: str | bytes) -> bytes:
        """Walk from the root of everything that is exported; return the handle found there."""
        walked = b"".join(_op(_LOOKUP, _opaque(os.fsencode(name))) for name in names)
        answer = self._compound(_op(_PUTROOTFH) + walked + _op(_GETFH), 2 + len(names))
        for operation in (_PUTROOTFH, *[_LOOKUP] * len(names), _GETFH):
            answer.expect(operation)
        return answer.opaque()

    def lookup(self, folder: bytes, name: str | bytes) -> bytes:
        """Return the handle of a name."""
        asked = _op(_LOOKUP, _opaque(os.fsencode(name))) + _op(_GETFH)
        return self._at(folder, asked, _LOOKUP, _GETFH).opaque()

    def attributes(self, handle: bytes) -> Attributes:
        bitmap = struct.pack(">III", 2, _WANTED & 0xFFFF_FFFF, _WANTED >> 32)
        answer = self._at(handle, _op(_GETATTR, bitmap), _GETATTR)
        answer.bitmap()
        return Answer(answer.opaque()).attributes()

    def names(self, folder: bytes) -> list[bytes]:
        """Return all names of a folder."""
        found: list[bytes] = []
        cookie, verifier = 0, bytes(8)
        while True:
            body = struct.pack(">Q8sIII", cookie, verifier, 8192, 32_768, 0)
            answer = self._at(folder, _op(_READDIR, body), _READDIR)
            verifier = answer.take(8)
            while answer.number():
                cookie = answer.long()
                found.append(answer.opaque())
                answer.bitmap()
                answer.opaque()
            if answer.number():
                return found

    def read(self, handle: bytes, offset: int, length: int) -> bytes:
        """Read once: what the server gives may be less."""
        body = bytes(16) + struct.pack(">QI", offset, length)
        answer = self._at(handle, _op(_READ, body), _READ)
        answer.number()
        return answer.opaque()

    def readlink(self, handle: bytes) -> bytes:
        return self._at(handle, _op(_READLINK), _READLINK).opaque()

    # --- messages -------------------------------------------------------------------------------

    def _at(self, handle: bytes, operations: bytes, *numbers: int) -> "Answer":
        answer = self._compound(_op(_PUTFH, _opaque(handle)) + operations, 1 + len(numbers))
        for number in (_PUTFH, *numbers):
            answer.expect(number)
        return answer

    def _compound(self, operations: bytes, count: int) -> "Answer":
        self._number += 1
        uid, gid = self._who
        credentials = struct.pack(">I", 0) + _opaque(b"test") + struct.pack(">III", uid, gid, 0)
        call = (
            struct.pack(">IIIIII", self._number, 0, 2, _PROGRAM, 4, 1)
            + struct.pack(">I", _AUTH_SYS)
            + _opaque(credentials)
            + struct.pack(">II", 0, 0)  # no verifier
            + _opaque(b"")  # tag
            + struct.pack(">II", 0, count)  # minor version
            + operations
        )
        self._socket.sendall(struct.pack(">I", 1 << 31 | len(call)) + call)
        answer = Answer(self._message())
        assert answer.number() == self._number
        assert answer.number() == 1, "no reply"
        assert answer.number() == 0, "the call was not accepted"
        answer.number()
        answer.opaque()  # verifier
        assert answer.number() == 0, "the call was not understood"
        answer.number()  # of the whole: that of the last operation, which is there, too
        answer.opaque()
        answer.number()
        return answer

    def _message(self) -> bytes:
        message, last = b"", False
        while not last:
            (head,) = struct.unpack(">I", self._file.read(4))
            last = bool(head >> 31)
            message += self._file.read(head & 0x7FFF_FFFF)
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()


class Answer:
    """A message that is read from its beginning to its end (RFC 4506)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        assert len(found) == length, "the message is too short"
        self._at += length
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(4))

    def long(self) -> int:
        return int.from_bytes(self.take(8))

    def opaque(self) -> bytes:
        found = self.take(self.number())
        self.take(-len(found) % 4)
        return found

    def bitmap(self) -> int:
        words = [self.number() for _ in range(self.number())]
        return sum(word << 32 * place for place, word in enumerate(words))

    def expect(self, operation: int) -> None:
        """Go on to what an operation gave. Raises NfsError."""
        assert self.number() == operation
        status = self.number()
        if status:
            raise NfsError(status)

    def attributes(self) -> Attributes:
        kind, size = self.number(), self.long()
        fsid = self.long(), self.long()
        fileid, mode, nlink = self.long(), self.number(), self.number()
        mtime = int.from_bytes(self.take(8), signed=True) * 10**9 + self.number()
        return Attributes(kind, size, fsid, fileid, mode, nlink, mtime)


def _op(number: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", number) + body


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)
