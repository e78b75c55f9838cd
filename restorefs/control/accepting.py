"""Taking connections, as far as there is room for them.

Owns that one is taken only where there is a place for it, and what happens while the process can
open no more files: who wants to connect waits in the kernel's queue, and the log says so once in a
while. trio's own way, a traceback for each try, would fill the log. Must not know what a connection
is for.
"""

import errno
import logging
import math

import trio

log = logging.getLogger(__name__)
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_RETRY_SECONDS = 0.1
_SAY_SECONDS = 60.0


class Listener(trio.abc.Listener[trio.SocketStream]):
    """Takes a connection only when there is a place for it, which whoever has it gives back. One
    without a request does so within seconds."""

    def __init__(
        self, listener: trio.abc.Listener[trio.SocketStream], places: trio.Semaphore
    ) -> None:
        self._listener = listener
        self._places = places
        self._say_at = -math.inf

    async def accept(self) -> trio.SocketStream:
        await self._places.acquire()
        try:
            while True:
                try:
                    return await self._listener.accept()
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    self._say(error)
                await trio.sleep(_RETRY_SECONDS)
        except BaseException:
            self._places.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()

    def _say(self, error: OSError) -> None:
        now = trio.current_time()
        if now >= self._say_at:
            self._say_at = now + _SAY_SECONDS
            log.warning(
                "the API takes no connection for now: %s (see ulimit -n, LimitNOFILE= of a unit)",
                error.strerror,
            )
