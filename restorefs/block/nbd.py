"""A disk behind an NBD server, through libnbd in trio. The only importer of nbd.

Owns one connection: its handshake, the requests in flight, and what happens to them when the
server dies. Must not know how the server was started.

Concurrency: submit() may be called from any task of the loop; run() is the one task that waits for
the socket and lets libnbd make progress. libnbd calls completions from within its aio_* calls;
they only set events, and failures are passed on later, because a dead server may be noticed while
a request is submitted. After close() libnbd no longer writes into any buffer, and only then are
the requests that were in flight failed.
"""

import errno
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import nbd
import trio

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.block.cache import Done, Slot
from restorefs.errors import AttachTimeoutError, RestoreError, StorageError

Trouble: TypeAlias = Callable[[], RestoreError | None]

READ = nbd.AIO_DIRECTION_READ
WRITE = nbd.AIO_DIRECTION_WRITE
_REPLIES_AT_ONCE = 4


class NbdTransport:
    """A connection to one export. Made by connect(); run() must run as long as it is used."""

    def __init__(
        self, handle: Any, name: str, read_timeout: float, trouble: Trouble | None
    ) -> None:
        self._handle = handle
        self._trouble = trouble
        self.name = name
        self._read_timeout = read_timeout
        self._pending: dict[int, tuple[float, Done]] = {}
        self._next = 0
        self._waiting: trio.CancelScope | None = None
        self._ended = trio.Event()
        self.closed: RestoreError | None = None
        self.size: ByteLength = handle.get_size()
        # libnbd closes its socket whenever it finds the server dead: we wait for one of our own.
        self._fd = os.dup(handle.aio_get_fd())

    @classmethod
    async def connect(
        cls,
        socket: Path,
        name: str,
        read_timeout: float = math.inf,
        trouble: Trouble | None = None,
    ) -> "NbdTransport":
        """Connect to the export served on a unix socket and finish the handshake.

        `name` is for messages; `read_timeout` in seconds bounds each later read. `trouble`: says
        behind each read why it, and the connection, cannot be used any more. Raises StorageError
        when the server refuses or ends.
        """
        handle = nbd.NBD()
        handle.set_pread_initialize(False)
        # With structured replies qemu-nbd hangs up on a read error; simple ones tell of it.
        handle.set_request_structured_replies(False)
        try:
            handle.aio_connect_unix(str(socket))
            while not handle.aio_is_ready():
                if handle.aio_is_dead() or handle.aio_is_closed():
                    raise StorageError(f"{name}: the NBD server ended during the handshake")
                await _wait(handle.aio_get_fd(), handle.aio_get_direction())
                _notify(handle)
            return cls(handle, name, read_timeout, trouble)
        except nbd.Error as error:
            raise StorageError(f"{name}: cannot connect to the NBD server: {error}") from None

    def submit(self, slot: Slot, offset: ByteOffset, length: ByteLength, done: Done) -> None:
        """Read into the slot's first `length` bytes; see Transport."""
        if self.closed is not None:
            _soon(done, self.closed)
            return
        buffer = slot.buffers.get(length)
        if buffer is None:
            buffer = slot.buffers[length] = nbd.Buffer.from_buffer(slot.view[:length])
        number = self._next = self._next + 1
        self._pending[number] = (trio.current_time(), done)
        try:
            self._handle.aio_pread(buffer, offset, self._completion(number, offset, length))
        except nbd.Error as error:
            if self._pending.pop(number, None) is not None:
                dead = self._handle.aio_is_dead()
                _soon(done, self._server_ended() if dead else StorageError(f"{self.name}: {error}"))
            return
        if self._waiting is not None and self._handle.aio_get_direction() & WRITE:
            self._waiting.cancel()  # the socket was full: run() must wait for it to drain

    def _completion(self, number: int, offset: int, length: int) -> Callable[[Any], int]:
        def completed(error: Any) -> int:
            entry = self._pending.pop(number, None)
            if entry is not None:
                if error.value:
                    _soon(entry[1], self._failure(error.value, offset, length))
                elif self._trouble is not None and (trouble := self._trouble()) is not None:
                    _soon(entry[1], trouble)
                    _soon(self.close, trouble)
                else:
                    entry[1](None)
            return 1  # retires the command

        return completed

    def _failure(self, code: int, offset: int, length: int) -> StorageError:
        if code in (errno.ENOTCONN, errno.ESHUTDOWN):
            return self._server_ended()
        return StorageError(
            f"{self.name}: reading {length} bytes at {offset} failed: {os.strerror(code)}"
            " (the image or its storage has an error)"
        )

    def _server_ended(self) -> StorageError:
        return StorageError(f"{self.name}: the NBD server ended")

    async def run(self) -> None:
        """Serve the connection until it is closed or the server ends, then fail what is left."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, name=f"nbd-watch {self.name}")
                await self._pump()
                nursery.cancel_scope.cancel()
        finally:
            self.close(StorageError(f"{self.name}: the connection was closed"))

    async def _pump(self) -> None:
        while self.closed is None:
            with trio.CancelScope() as self._waiting:
                await _wait(self._fd, self._handle.aio_get_direction())
            self._waiting = None
            if self.closed is not None:
                return
            try:
                self._receive()
                ended = self._handle.aio_is_dead() or self._handle.aio_is_closed()
            except nbd.Error:
                ended = True
            if ended:
                self.close(self._server_ended())

    def _receive(self) -> None:
        """Take the reply that is here, and a few more if they are, too: to wait for the socket
        costs as much as a reply. Not many, as nobody else's task runs meanwhile."""
        for _ in range(_REPLIES_AT_ONCE):
            before = len(self._pending)
            _notify(self._handle)
            if len(self._pending) in (0, before):
                break

    async def _watch(self) -> None:
        """Give the disk up when its oldest read has waited too long."""
        while self._read_timeout < math.inf:
            oldest = next(iter(self._pending.values()), None)
            now = trio.current_time()
            deadline = (oldest[0] if oldest else now) + self._read_timeout
            if deadline <= now:
                self.close(
                    AttachTimeoutError(
                        f"{self.name}: the storage did not answer a read within"
                        f" {self._read_timeout:g} s"
                    )
                )
                return
            await trio.sleep_until(deadline)

    def close(self, reason: RestoreError) -> None:
        """Close the connection; reads in flight fail with the reason. Idempotent."""
        if self.closed is not None:
            return
        self.closed = reason
        pending, self._pending = self._pending, {}
        if self._waiting is not None:
            self._waiting.cancel()  # trio lets go of the socket at once, before it is closed
        self._handle = None  # the only reference: this closes the handle and its socket
        os.close(self._fd)
        self._ended.set()
        for _, done in pending.values():
            done(reason)

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by either side; `closed` then says why."""
        await self._ended.wait()


def _soon(done: Callable[[RestoreError], None], error: RestoreError) -> None:
    """Report a failure from the loop: submit() itself never does."""
    trio.lowlevel.current_trio_token().run_sync_soon(done, error)


async def _wait(fd: int, direction: int) -> None:
    """Wait until the socket is ready in one of the directions that libnbd wants."""
    if direction == READ:
        await trio.lowlevel.wait_readable(fd)
    elif direction == WRITE:
        await trio.lowlevel.wait_writable(fd)
    else:
        async with trio.open_nursery() as nursery:

            async def one(wait: Callable[[int], Awaitable[None]]) -> None:
                await trio.lowlevel.checkpoint_if_cancelled()  # the socket may be closed by now
                await wait(fd)
                nursery.cancel_scope.cancel()

            nursery.start_soon(one, trio.lowlevel.wait_readable)
            nursery.start_soon(one, trio.lowlevel.wait_writable)


def _notify(handle: Any) -> None:
    """Let libnbd go on after a wait; a direction that is not ready after all is harmless."""
    if handle.aio_get_direction() & READ:
        handle.aio_notify_read()
    if handle.aio_get_direction() & WRITE:
        handle.aio_notify_write()
