"""Answers whose body is made while they are sent.

Owns their end: a maker that fails ends the connection before the answer is complete, so that nobody
takes it for whole.

Concurrency: writing waits for the client, so a slow one holds up only its own answer. The maker is
cancelled when the client leaves (exchange.py).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from restorefs.control.limits import Limit
from restorefs.control.problems import ProblemError
from restorefs.errors import RestoreError

log = logging.getLogger(__name__)

Write = Callable[[bytes], Awaitable[None]]
Make = Callable[[Write], Awaitable[None]]


class BrokenOffError(Exception):
    """The answer is to end as an incomplete one; why is known to who asked, or logged."""


class Streamed(Response):
    """An answer by `make`, which writes the body's pieces. `limit`: a place in it was taken for
    this answer, and is given back at its end."""

    def __init__(
        self,
        make: Make,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        limit: Limit | None = None,
        count: Callable[[int], None] | None = None,
    ) -> None:
        """count: is told of every piece's length."""
        super().__init__(None, status, None)
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self._make = make
        self._limit = limit
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, send)
        finally:
            if self._limit is not None:
                self._limit.give_back()

    async def _answer(self, scope: Scope, send: Send) -> None:
        async def write(piece: bytes) -> None:
            if self._count is not None:
                self._count(len(piece))
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if scope["method"] != "HEAD":
            try:
                await self._make(write)
            except BrokenOffError:
                return
            except (RestoreError, ProblemError) as error:
                log.warning("an answer to %s was broken off: %s", scope["path"], error)
                return
            except Exception:
                log.exception("unexpected error in an answer to %s", scope["path"])
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
