"""Proof of who asks: a token, a session of a browser, or the socket itself.

Owns what is accepted. Sessions are for pages, whose links cannot send a token; they live in memory,
and end with their token.
"""

import secrets
import time
from collections import OrderedDict
from contextvars import ContextVar

from restorefs.control import audit
from restorefs.control.problems import ProblemError
from restorefs.control.tokens import Token, TokenFile, digest
from restorefs.control.who import Who

COOKIE = "restorefs_session"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
SESSION_SECONDS = 12 * 3600
_MAX_SESSIONS = 1000  # of one token: nobody signs out who comes with another one
_REFUSED_SECONDS = 1.0

PEER: ContextVar[int | None] = ContextVar("PEER", default=None)
"""The user at the other end of a unix socket; None over TCP. Set where connections come in."""


class Doorkeeper:
    """Knows who may ask."""

    def __init__(self, tokens: TokenFile | None, *, insecure: bool = False) -> None:
        """`insecure`: let everybody in who comes over TCP and shows nothing."""
        self._tokens = tokens
        self._insecure = insecure
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._refused = 0
        self._told_at = -_REFUSED_SECONDS

    def who(self, authorization: str | None, cookie: str | None, address: str) -> Who:
        """Return who asks by what a request shows; `address`: where it is from. Raises
        ProblemError, 401."""
        uid = PEER.get()
        if uid is not None:
            return Who(f"uid {uid}", "unix")
        found = self._by_header(authorization) if authorization else self._by_cookie(cookie)
        if found is not None:
            return Who(found.name, "token", found.vms)
        if self._insecure and not authorization:
            return Who("anybody", "insecure")
        if authorization:
            raise self._refuse(address)
        raise ProblemError(401, "a token is needed", _CHALLENGE)

    def begin(self, token: str, address: str) -> tuple[str, Who]:
        """Begin a session; return its id. Raises ProblemError, 401."""
        found = self._tokens.find(token) if self._tokens is not None else None
        if found is None:
            raise self._refuse(address)
        made = secrets.token_urlsafe(32)
        self._sessions[digest(made)] = found.sha256, time.monotonic() + SESSION_SECONDS
        own = [key for key, (sha256, _) in self._sessions.items() if sha256 == found.sha256]
        for oldest in own[:-_MAX_SESSIONS]:
            del self._sessions[oldest]
        audit.note_visit(found.name, "sign in", address)
        return made, Who(found.name, "token", found.vms)

    def end(self, cookie: str | None, address: str) -> None:
        """End a session, if there is one."""
        found = self._by_cookie(cookie)
        self._sessions.pop(digest(_session_in(cookie)), None)
        if found is not None:
            audit.note_visit(found.name, "sign out", address)

    def _refuse(self, address: str) -> ProblemError:
        """Return what a token that is not known is answered. Who tries many fills no log."""
        self._refused += 1
        if time.monotonic() - self._told_at >= _REFUSED_SECONDS:
            times = f" {self._refused} times" if self._refused > 1 else ""
            audit.note_visit("nobody", f"token refused{times}", address)
            self._refused, self._told_at = 0, time.monotonic()
        return ProblemError(401, "this token is not known", _CHALLENGE)

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
    """Return the session's pair of a Cookie header, whatever others hold: a browser sends with ours
    the cookies of every site of the host, and a parser of all of them gives up at an odd one."""
    for pair in (cookie or "").split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == COOKIE:
            return value.strip()
    return ""
