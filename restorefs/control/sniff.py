"""What a file's first bytes say it is, for a preview.

Owns the short list of what may be shown inside a page: images and plain text, nothing that a
browser would run. Never by the name: that is the guest's.
"""

import codecs
import re
from enum import Enum


class Kind(Enum):
    """What may be shown; the value is its media type."""

    TEXT = "text/plain; charset=utf-8"
    PNG = "image/png"
    JPEG = "image/jpeg"
    GIF = "image/gif"
    WEBP = "image/webp"


_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def told_by(head: bytes) -> Kind | None:
    """Return what a file is by its beginning; None where it is not to be shown."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Kind.GIF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Kind.TEXT
    return None if _CONTROLS.search(head) else Kind.TEXT


def text_of(head: bytes) -> str:
    """Return text from its bytes, of which the last character may be cut."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return head.decode("cp1252", "replace")
