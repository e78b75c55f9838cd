"""Proof of who asks: a token, a session of a browser, or the socket itself.

Owns what is accepted. Sessions are for pages, whose links cannot send a token; they live in memory,
and end with their token.
"""

import secrets
import time
from collections import OrderedDict
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie

from restorefs.control.problems import ProblemError
from restorefs.control.tokens import Token, TokenFile, digest
from restorefs.control.who import Who

COOKIE = "restorefs_session"
SESSION_SECONDS = 12 * 3600
_MAX_SESSIONS = 1000

PEER: ContextVar[int | None] = ContextVar("PEER", default=None)
"""The user at the other end of a unix socket; None over TCP. Set where connections come in."""


class Doorkeeper:
    """Knows who may ask."""

    def __init__(self, tokens: TokenFile | None, *, insecure: bool = False) -> None:
        """`insecure`: let everybody in who comes over TCP and shows nothing."""
        self._tokens = tokens
        self._insecure = insecure
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def who(self, authorization: str | None, cookie: str | None) -> Who:
        """Return who asks by what a request shows. Raises ProblemError, 401."""
        uid = PEER.get()
        if uid is not None:
            return Who(f"uid {uid}", "unix")
        found = self._by_header(authorization) if authorization else self._by_cookie(cookie)
        if found is not None:
            return Who(found.name, "token", found.vms)
        if self._insecure and not authorization:
            return Who("anybody", "insecure")
        raise ProblemError(
            401,
            "this token is not known" if authorization else "a token is needed",
            {"WWW-Authenticate": "Bearer"},
        )

    def begin(self, token: str) -> tuple[str, Who]:
        """Begin a session; return its id. Raises ProblemError, 401."""
        found = self._tokens.find(token) if self._tokens is not None else None
        if found is None:
            raise ProblemError(401, "this token is not known", {"WWW-Authenticate": "Bearer"})
        made = secrets.token_urlsafe(32)
        self._sessions[digest(made)] = found.sha256, time.monotonic() + SESSION_SECONDS
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return made, Who(found.name, "token", found.vms)

    def end(self, cookie: str | None) -> None:
        """End a session, if there is one."""
        self._sessions.pop(digest(_session_in(cookie)), None)

    def _by_header(self, authorization: str) -> Token | None:
        scheme, _, token = authorization.partition(" ")
        if self._tokens is None or scheme.lower() != "bearer":
            return None
        return self._tokens.find(token.strip())

    def _by_cookie(self, cookie: str | None) -> Token | None:
        found = self._sessions.get(digest(_session_in(cookie)))
        if found is None or self._tokens is None or time.monotonic() > found[1]:
            return None
        return self._tokens.by_hash(found[0])


def _session_in(cookie: str | None) -> str:
    try:
        morsel = SimpleCookie(cookie or "").get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""
