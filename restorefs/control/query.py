"""The parameters of a request.

Owns how they are read: names in them may be any bytes (percent-encoded), and become Python's
surrogateescape. What is not a call's parameter is refused, so that a misspelt one is not ignored.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import trio
from starlette.requests import Request

from restorefs.control.problems import ProblemError

T = TypeVar("T")
_MAX_FIELDS = 5000
_MAX_NUMBER = 2**53
_BODY_SECONDS = 30.0


class Query:
    """The query of one request. Everything raises ProblemError for what cannot be."""

    def __init__(self, request: Request, *known: str, form: bytes = b"") -> None:
        """`form`: a body in the same form, for what does not fit into an address."""
        raw = b"&".join(filter(None, (request.scope["query_string"], form))).decode("latin-1")
        try:
            pairs = parse_qsl(
                raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_FIELDS
            )
        except ValueError:
            raise ProblemError(400, f"more than {_MAX_FIELDS} parameters") from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in known:
                raise ProblemError(
                    400, f"there is no parameter {name!r}; there are {', '.join(known) or 'none'}"
                )
            self._values.setdefault(name, []).append(value)

    def several(self, name: str) -> list[str]:
        """Return a parameter that may be given several times."""
        return self._values.get(name, [])

    def text(self, name: str) -> str | None:
        """Return a parameter that may be given once, None without it."""
        values = self._values.get(name, [])
        if len(values) > 1:
            raise ProblemError(400, f"{name} is given {len(values)} times")
        return values[0] if values else None

    def needed(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise ProblemError(400, f"the parameter {name} is needed")
        return value

    def number(self, name: str, default: int, least: int = 0, most: int = _MAX_NUMBER) -> int:
        value = self.text(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,16}", value) is None or not least <= int(value) <= most:
            raise ProblemError(400, f"{name} is not a number from {least} to {most}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.choice(name, ("true", "false"))
        return default if value is None else value == "true"

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise ProblemError(400, f"{name} is none of {', '.join(choices)}")
        return value

    def time(self, name: str) -> datetime | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ProblemError(400, f"{name} is not a time like 2025-09-02T06:21:20Z") from None


async def form_body(request: Request) -> bytes:
    """Return what a form that is posted brings, for Query. A slow client is given up."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ProblemError(415, "only application/x-www-form-urlencoded is understood here")
    with trio.move_on_after(_BODY_SECONDS):
        return await request.body()
    raise ProblemError(408, f"the body did not come within {_BODY_SECONDS:g} s")


async def json_body(request: Request, *known: str) -> dict[str, Any]:
    """Return the JSON object that a request brings, with none but known fields: a wrongly written
    one would be taken for absent. A client that is slow with it is given up."""
    with trio.move_on_after(_BODY_SECONDS):
        try:
            found = await request.json()
        except (ValueError, RecursionError):
            raise ProblemError(400, "the body is not JSON") from None
        if not isinstance(found, dict):
            raise ProblemError(400, "the body is not a JSON object")
        if unknown := found.keys() - set(known):
            raise ProblemError(400, f"unknown field {min(unknown)!r}; known: {', '.join(known)}")
        return found
    raise ProblemError(408, f"the body did not come within {_BODY_SECONDS:g} s")


def field(body: dict[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """Return a field of a body. Raises ProblemError where it is missing or of another type."""
    value = body.get(name, default)
    if type(value) is not kind:
        called = {str: "text", int: "a whole number"}.get(kind, kind.__name__)
        raise ProblemError(400, f"{name} must be {called}")
    return value


def paged(
    found: list[T], query: Query, most: int | None = None, default: int | None = None
) -> tuple[list[T], int]:
    """Return the part of a list that `offset` and `limit` ask for, and the offset."""
    offset = query.number("offset", 0)
    limit = query.number(
        "limit", default if default is not None else len(found), 1, most or _MAX_NUMBER
    )
    return found[offset : offset + limit], offset
