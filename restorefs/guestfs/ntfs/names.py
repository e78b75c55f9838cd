"""Names: between UTF-16 and bytes, and without regard to case.

Owns how a stored name is shown, how a shown one is stored, and the volume's own table of upper
case. Pure. Lone surrogates are kept as WTF-8 writes them (their UTF-8 form), so that each stored
name has a shown one of its own. Source: linux-ntfs, "$UpCase" and "$FILE_NAME".
"""

import sys
from array import array
from codecs import utf_16_le_decode
from collections.abc import Sequence

from restorefs.errors import DamagedError, NotFoundError

UPCASE_SIZE = 2 << 16
REPLACEMENT = "\ufffd".encode()
"""Stands for what cannot be in a name."""


def shown(name: bytes) -> bytes:
    """Return a stored name (UTF-16LE) in UTF-8. Raises DamagedError for half a code unit."""
    if len(name) & 1:
        raise DamagedError(f"a name has {len(name)} bytes, which is no UTF-16")
    return name.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def shown_or_repaired(name: bytes) -> tuple[bytes, bool]:
    """Return a stored name as shown(), and whether it is an impossible one: in that, U+FFFD stands
    for what cannot be in a name."""
    text = shown(name)
    if text in (b".", b".."):
        return REPLACEMENT * len(text), True
    repaired = text.replace(b"/", REPLACEMENT).replace(b"\0", REPLACEMENT) or REPLACEMENT
    return repaired, repaired != text


_IMPOSSIBLE = frozenset((b"", b".", b".."))
_SLASH = "/".encode("utf-16-le")


def shown_together(names: Sequence[bytes]) -> list[bytes] | None:
    """Return stored names, all as shown(), or None where shown_or_repaired() must look at each: one
    may be impossible, or have a surrogate alone. For many names at once, as folders have them."""
    if not names:
        return []
    try:
        # Not decode("utf-16-le"), which looks for this function first, each time.
        text, _ = utf_16_le_decode(_SLASH.join(names), "strict", True)
        texts = text.encode().split(b"/")
    except UnicodeError:
        return None
    if len(texts) != len(names) or "\0" in text or not _IMPOSSIBLE.isdisjoint(texts):
        return None
    return texts


def stored(name: bytes) -> bytes:
    """Return a shown name in UTF-16LE. Raises NotFoundError for bytes that no name is shown as."""
    try:
        found = name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError:
        found = b""
    if not found or shown(found) != name:
        raise NotFoundError("no such name: it is not UTF-8")
    return found


class Upcase:
    """The volume's table of upper case, by UTF-16 code unit."""

    def __init__(self, table: bytes) -> None:
        """Raises DamagedError."""
        if len(table) != UPCASE_SIZE:
            raise DamagedError(f"$UpCase has {len(table)} bytes instead of {UPCASE_SIZE}")
        self._table = _units(table)
        # Most names are ASCII, and for those a table of bytes does.
        ascii_part = self._table[:128].tolist()
        self._ascii = bytes(ascii_part) + bytes(128) if max(ascii_part) < 128 else None

    def key(self, name: bytes) -> bytes:
        """Return what names are ordered by in an index, and equal in but for case.

        Two keys compare as the format's COLLATION_FILE_NAME does: unit by unit, as numbers.
        """
        low = name[::2]
        if self._ascii and low.isascii() and name[1::2] == bytes(len(low)):
            upper = bytearray(len(name))
            upper[1::2] = low.translate(self._ascii)
            return bytes(upper)
        table = self._table
        key = array("H", [table[unit] for unit in _units(name)])
        if sys.byteorder == "little":
            key.byteswap()
        return key.tobytes()


def _units(data: bytes) -> "array[int]":
    units = array("H")
    units.frombytes(data[: len(data) & ~1])
    if sys.byteorder == "big":
        units.byteswap()
    return units
