"""What goes wrong, as problem documents (RFC 9457), and JSON as the API writes it.

Owns status codes and the documents' fields. Must not know the calls.
"""

import errno
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from restorefs.errors import RestoreError, errno_name

log = logging.getLogger(__name__)

STATUS_CODES = {
    errno.ENOENT: 404,
    errno.EBUSY: 409,
    errno.ESTALE: 410,
    errno.EINVAL: 422,
    errno.ENOTDIR: 422,
    errno.EISDIR: 422,
    errno.ELOOP: 422,
    errno.ENOKEY: 423,
    errno.EOPNOTSUPP: 501,
    errno.EIO: 502,
    errno.ETIMEDOUT: 504,
}


class JsonResponse(JSONResponse):
    """JSON in ASCII: a name that is not UTF-8 becomes escapes, which give it back when read."""

    def render(self, content: Any) -> bytes:
        return as_json(content)


def as_json(content: Any) -> bytes:
    """Return a value as JSON in ASCII."""
    return json.dumps(content, separators=(",", ":")).encode()


class ProblemError(Exception):
    """A request that cannot be answered, for a reason that is HTTP's own."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


def document(
    status: int, detail: str, code: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem document; `code` is an errno."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "errno": code and errno_name(code),
    }
    return JsonResponse(content, status, headers, media_type="application/problem+json")


def describe(error: RestoreError) -> dict[str, Any]:
    """Return an error as a part of an answer."""
    return {"detail": str(error), "errno": errno_name(error.errno)}


async def answer(request: Request, error: Exception) -> Response:
    """Return the document of an exception of ours, or of Starlette's."""
    if isinstance(error, ProblemError):
        return document(error.status, str(error), headers=error.headers)
    if isinstance(error, HTTPException):
        return document(error.status_code, error.detail, headers=error.headers)
    assert isinstance(error, RestoreError)
    return document(STATUS_CODES.get(error.errno, 500), str(error), error.errno)


async def bug(request: Request, error: Exception) -> Response:
    """Return the document of an exception that nobody expected, and log it."""
    log.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return document(500, "internal error; it is in the daemon's log")
