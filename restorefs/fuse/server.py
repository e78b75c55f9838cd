"""Taking requests from the kernel, and having them answered.

Owns who listens to the device, how many requests are under way, and what an exception does to one
of them (boundary: nothing that goes wrong with a request may end the mount of all users). Must not
know what is asked.

Concurrency: workers, of which one listens. A handler that can answer at once does so while its
worker goes on listening. Where one has to wait, its worker first has another listen; so a
request costs no new task, and two task switches only where it waits. Any number of requests may be
under way; the kernel bounds it (max_background, and one for each process that waits).
"""

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Mapping

import trio

from restorefs.fuse.protocol import BUFFER_SIZE, Opcode, handle_in
from restorefs.fuse.request import Request
from restorefs.session.asker import ASKER, Asker

log = logging.getLogger(__name__)
_AT_ONCE = 16  # requests that are answered before others in the loop have a turn
_AWAKE_NS = 120_000
"""How long to look for the next request before the process sleeps. Who got an answer mostly asks
again within that time, and waking up costs both sides more."""
_INTERRUPTED_SECONDS = 1.0
_MAX_IDLE = 64  # workers that are kept for the next requests
_TRY_AGAIN = (errno.EINTR, errno.ENOENT)  # ENOENT: the request was taken back meanwhile

Answering = Coroutine[object, object, None]
Handler = Callable[[Request], Answering | None]
"""Answers a request, or returns what will, where that has to wait."""


class Server:
    """Answers the requests of one mount."""

    def __init__(self, fd: int, handlers: Mapping[int, Handler], request_timeout: float) -> None:
        """`fd`: an open /dev/fuse after its INIT, not blocking. `handlers` by opcode; what has none
        gives ENOSYS. `request_timeout` in seconds bounds every request."""
        self._fd = fd
        self._handlers = {Opcode.INTERRUPT: self._interrupt, **handlers}
        self._request_timeout = request_timeout
        self._waiting: dict[int, tuple[Request, trio.CancelScope]] = {}
        self._idle: list[trio.lowlevel.Task] = []
        self._sleeping = False
        self._ended = False

    async def run(self) -> None:
        """Serve until the file system is unmounted or stop() was called, and then until the
        requests under way are answered."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._work, name="fuse")

    def stop(self) -> None:
        """Take no more requests."""
        self._end()
        for request, scope in self._waiting.values():
            if request.answered:  # what goes on behind the answer is for later requests
                scope.cancel()
        if self._sleeping:
            trio.lowlevel.notify_closing(self._fd)

    def _end(self) -> None:
        self._ended = True
        for task in self._idle:
            trio.lowlevel.reschedule(task)
        self._idle.clear()

    async def _work(self) -> None:
        # One scope for all that a worker does: when a request of it is given up, it ends, too.
        with trio.CancelScope() as scope:
            while (waiting := await self._listen()) is not None:
                self._have_another_listen()
                await self._finish(*waiting, scope)
                if self._ended or len(self._idle) >= _MAX_IDLE:
                    return
                await self._turn()

    async def _listen(self) -> tuple[Request, Answering] | None:
        """Answer what can be answered at once. Return a request that cannot with what will answer
        it, or None at the end."""
        answered = 0
        awake_until = time.perf_counter_ns() + _AWAKE_NS
        while not self._ended:
            message = self._receive()
            if message is None:
                answered = 0
                if time.perf_counter_ns() < awake_until:
                    await trio.lowlevel.checkpoint()
                else:
                    await self._sleep()
                continue
            if not message:
                self._end()
                break
            now = time.perf_counter_ns()
            awake_until = now + _AWAKE_NS
            request = Request(self._fd, message, now)
            answering = self._begin(request)
            if answering is not None:
                return request, answering
            answered += 1
            if answered == _AT_ONCE:
                answered = 0
                await trio.lowlevel.checkpoint()
        return None

    async def _sleep(self) -> None:
        """Wait for a request, or for stop()."""
        self._sleeping = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            assert self._ended
        finally:
            self._sleeping = False

    def _receive(self) -> bytes | None:
        """Return a request, None if there is none now, b"" if there will be none any more."""
        while True:
            try:
                return os.read(self._fd, BUFFER_SIZE)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return b""
                if error.errno not in _TRY_AGAIN:
                    raise

    def _begin(self, request: Request) -> Answering | None:
        handler = self._handlers.get(request.opcode)
        if handler is None:
            request.fail(errno.ENOSYS)
            return None
        ASKER.set(Asker(request.uid, request.pid))
        try:
            return handler(request)
        except Exception as error:  # noqa: BLE001 - logged there
            request.fail_with(error)
            return None

    async def _finish(
        self, request: Request, answering: Answering, scope: trio.CancelScope
    ) -> None:
        self._waiting[request.unique] = request, scope
        if self._request_timeout < math.inf:
            scope.deadline = trio.current_time() + self._request_timeout
        try:
            await answering
        except Exception as error:  # noqa: BLE001 - logged there
            request.fail_with(error)
        finally:
            del self._waiting[request.unique]
            if scope.cancel_called:
                request.fail(errno.ETIMEDOUT)  # unless it was answered
            scope.deadline = math.inf

    def _have_another_listen(self) -> None:
        if self._ended:
            return
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop())
        else:
            self._nursery.start_soon(self._work, name="fuse")

    async def _turn(self) -> None:
        """Wait until this worker is to listen again."""
        task = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _interrupt(self, request: Request) -> None:
        """Let go whoever waits for a request and got a signal, if the answer does not come soon.

        Soon, it is better than EINTR: a signal need not be meant to end anything, and not all
        programs ask again. Nothing that others wait for is given up: loads are their disk's.
        """
        request.drop()
        number = handle_in(request.body)
        if number in self._waiting:
            self._nursery.start_soon(self._let_go, *self._waiting[number], name="interrupt")

    async def _let_go(self, request: Request, scope: trio.CancelScope) -> None:
        with trio.move_on_after(_INTERRUPTED_SECONDS):
            while not (request.answered or self._ended):
                await trio.sleep(_INTERRUPTED_SECONDS / 4)
        if not request.answered:
            request.fail(errno.EINTR)
            scope.cancel()
