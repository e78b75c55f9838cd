"""One request and its answer.

Owns the two ends of an exchange: what the client sends is always read, up to a size, so that nobody
ever waits for room; and nothing goes on for a client that has left. Must not know the calls.

Concurrency: a task beside the answer's reads. It cancels the answer when the client leaves before
the answer's last piece was handed over; from then on there is nothing to cancel, and the server is
left alone with its own end of the exchange.
"""

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restorefs.control.problems import ProblemError

TOO_LARGE = 413


class Exchange:
    """A request while it is answered."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        """most: bytes that a request's body may have."""
        self.has_left = False
        """The client left before it had its answer."""
        self._receive = receive
        self._send = send
        self._most = most
        self._read = 0
        self._body = bytearray()
        self._complete = False
        self._came = trio.Event()
        self._begun = self._whole = False
        self._answering = trio.CancelScope()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have an application answer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            with self._answering:
                await app(scope, self._next, self._sending)
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        while (message := await self._receive())["type"] != "http.disconnect":
            piece = message.get("body", b"")
            self._read += len(piece)
            if self._read <= self._most and not self._begun:  # who answers asks for no more
                self._body += piece
            self._complete = not message.get("more_body", False)
            self._came.set()
            self._came = trio.Event()
        if not self._whole:
            self.has_left = True
            self._answering.cancel()

    async def _next(self) -> Message:
        """Return what came of the body. Raises ProblemError when it is too large."""
        while not (self._body or self._complete or self._read > self._most):
            await self._came.wait()
        if self._read > self._most:
            raise ProblemError(TOO_LARGE, f"a request may have {self._most} bytes")
        piece = bytes(self._body)
        self._body.clear()
        return {"type": "http.request", "body": piece, "more_body": not self._complete}

    async def _sending(self, message: Message) -> None:
        self._begun = True
        self._body.clear()
        # The server tells of a disconnect while it takes the last piece, before it is done with it.
        self._whole = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)
