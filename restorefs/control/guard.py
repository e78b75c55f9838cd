"""What every request must pass, and what every answer carries.

Owns: HTTP/1.1 only; a Host that is ours, so that no other name leads a browser here; an Origin
that is the Host, so that no other page acts through one; that it is known who asks, for all that
is not said to be open; the size of a request; the headers that keep a browser strict; that every
request is counted. Must not know the calls.
"""

import ipaddress
import time
from collections.abc import Collection
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restorefs.control import problems
from restorefs.control.exchange import TOO_LARGE, Exchange
from restorefs.control.metrics import ApiFigures
from restorefs.control.problems import ProblemError
from restorefs.control.sessions import PEER, Doorkeeper
from restorefs.control.who import KEY, address_of
from restorefs.session.asker import ASKER, Client

_MAX_BODY = 256 << 10
_LEFT = 499  # as others count it: the client left before there was an answer
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Hosts:
    """The names that a request may be addressed to."""

    def __init__(self, listened: Collection[tuple[str, int]] = (), also: Collection[str] = ()):
        """`listened`: addresses and ports. `also`: further names, with a port or for any."""
        self._ports = {port for _, port in listened}
        self._names = {each.lower() for each in also}
        self._any_address = False
        for host, port in listened:
            address = ipaddress.ip_address(host)
            # Names can be made to lead to any address, but nobody owns a name that is an address.
            self._any_address |= address.is_unspecified
            names = ["localhost"] if address.is_loopback or address.is_unspecified else []
            names.append(f"[{host}]" if address.version == 6 else host)
            self._names |= {f"{name}:{port}".lower() for name in names}
            if port in (80, 443):  # which browsers leave out
                self._names |= {name.lower() for name in names}

    def have(self, host: str) -> bool:
        """Whether a Host header names us."""
        host = host.lower()
        try:
            parts = urlsplit("//" + host)
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if host in self._names or name in self._names:
            return True
        if not self._any_address or (port or 80) not in self._ports:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """Stands in front of an application."""

    def __init__(
        self,
        app: ASGIApp,
        doorkeeper: Doorkeeper,
        hosts: Hosts,
        figures: ApiFigures,
        open_paths: Collection[str],
    ) -> None:
        """open_paths: whoever asks may have these; for everything else, it must be known who."""
        self._app = app
        self._doorkeeper = doorkeeper
        self._hosts = hosts
        self._figures = figures
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1002})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if status == TOO_LARGE:  # its body is not taken to the end: nothing can follow it
                    headers["Connection"] = "close"
                message = {**message, "headers": headers.raw}
            await send(message)

        exchange = Exchange(receive, sending, _MAX_BODY)
        try:
            await exchange.run(self._pass, scope)
        finally:
            route = scope.get("route")
            call = route.path if route is not None else "other"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            ended = status or (_LEFT if exchange.has_left else 500)
            self._figures.count(method, call, ended, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As bytes: a name need not be UTF-8.
        scope["path"] = unquote(scope["raw_path"].decode("ascii"), errors="surrogateescape")
        try:
            self._check(scope)
        except ProblemError as error:
            response = await problems.answer(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise ProblemError for what is not to be answered."""
        if scope["http_version"] not in ("1.0", "1.1"):
            raise ProblemError(505, "HTTP/1.1 is spoken here")
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) > 1:
            raise ProblemError(400, "more than one Host")
        path = scope["path"]
        if PEER.get() is None:
            host = headers.get("host", "")
            if not self._hosts.have(host):
                raise ProblemError(421, f"{host!r} is not a name of this server; see --allow-host")
            # What only looks at the page may come from anywhere, such as by a link.
            looks = scope["method"] in _SAFE and path in self._open and not path.startswith("/api/")
            if not looks and (foreign := _foreign(headers, host)):
                raise ProblemError(403, f"pages of {foreign} may not do this here")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > _MAX_BODY:
            raise ProblemError(TOO_LARGE, f"a request may have {_MAX_BODY} bytes")
        scope[KEY] = None
        if path not in self._open:
            who = self._doorkeeper.who(
                headers.get("authorization"), headers.get("cookie"), address_of(scope)
            )
            scope[KEY] = who
            ASKER.set(Client(who.name))
        if path.endswith("\n"):  # `$` in Starlette's routes matches before it
            raise ProblemError(404, "no path here ends so")


def _foreign(headers: Headers, host: str) -> str | None:
    """Return what to call the site of the page that has a browser ask, None for our own page and
    for what no page asks. Browsers give an Origin with all but plain GETs, and the newer ones say
    with each request where it is from."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            ours = urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            ours = False
        if not ours:
            return repr(origin)
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "another site"
    return None
