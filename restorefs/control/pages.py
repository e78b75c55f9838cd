"""The web page's files.

Owns that only they are served: a file with a known ending that lies in the folder, or in one of its
folders, when the daemon starts. Nothing of a request becomes a path.
"""

from collections.abc import Iterable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).with_name("page")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'"
)


class Pages:
    """The files of the page, in memory."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix in _TYPES and path.is_file():
                name = path.relative_to(folder).as_posix()
                self._files[name] = path.read_bytes(), _TYPES[path.suffix]

    @property
    def names(self) -> Iterable[str]:
        """The paths of all files of the page, such as "views/folder.js"."""
        return self._files

    async def page(self, request: Request) -> Response:
        name = request.scope["path"].removeprefix("/") or "index.html"
        content, media_type = self._files[name]
        headers = {
            "Content-Type": media_type,
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-cache",
            # With no-referrer, a browser gives no Origin with a form either, which is then refused.
            "Referrer-Policy": "same-origin",
        }
        return Response(content, headers=headers)
