"""Names in FAT's folders: bytes to bytes.

Owns how a stored name is shown, and which names are the same but for upper and lower case. Names
are shown in UTF-8. What no character stands for is kept, so that names stay different: a byte that
the OEM character set does not have as itself, half of a UTF-16 pair in three bytes as UTF-8 would
write it. Must not do I/O. Source: spec, "Directory Structure" and "Long File Name
Implementation"; for the lower-case flags vfat.rst (shortname=mixed).
"""

from collections.abc import Callable

SHORT_NAME_SIZE = 11
_BASE_SIZE = 8
_LOWER_BASE = 0x08
_LOWER_EXTENSION = 0x10
_LONGEST = 255  # UTF-16 units
_IMPOSSIBLE = frozenset((b"", b".", b".."))
_REPLACEMENT = "\ufffd".encode()
"""Stands for what cannot be in a name."""


def short_name(stored: bytes, flags: int, codepage: str) -> bytes | None:
    """Return the 11 stored bytes of a short name as it is shown; None for an impossible one.

    flags: byte 12 of the entry, where Windows NT notes a part that is all lower case.
    codepage: Python's name of the OEM character set.
    """
    base, extension = _parts(stored, flags, codepage)
    name = base + b"." + extension if extension else base
    return name if base and is_possible(name) else None


def repaired_name(stored: bytes, flags: int, codepage: str) -> bytes:
    """Return an impossible short name as it is shown: U+FFFD stands for what cannot be in it."""
    base, extension = _parts(stored, flags, codepage)
    base = base or _REPLACEMENT
    name = base + b"." + extension if extension else base
    return name.replace(b"/", _REPLACEMENT).replace(b"\0", _REPLACEMENT)


def _parts(stored: bytes, flags: int, codepage: str) -> tuple[bytes, bytes]:
    """Return what a short name has before and behind its dot."""
    if stored[0] == 0x05:  # 0xE5 would mean that the entry is deleted.
        stored = b"\xe5" + stored[1:]
    base = _part(stored[:_BASE_SIZE], flags & _LOWER_BASE, codepage)
    return base, _part(stored[_BASE_SIZE:], flags & _LOWER_EXTENSION, codepage)


def _part(stored: bytes, lower: int, codepage: str) -> bytes:
    stored = stored.rstrip(b" ")
    if stored.isascii():  # as every OEM character set begins
        return stored.lower() if lower else stored
    text = stored.decode(codepage, "surrogateescape")
    if lower:
        text = _single(text, str.lower)
    return text.encode("utf-8", "surrogateescape")


def long_name(stored: bytes) -> bytes | None:
    """Return a long name as it is shown, from all its UTF-16 units; None for an impossible one.

    A name that does not fill its last entry ends with 0, and 0xFFFF fills the rest.
    """
    text = stored.decode("utf-16-le", "surrogatepass")
    text, end, filling = text.partition("\0")
    if end and filling.strip("\uffff"):
        return None
    name = text.encode("utf-8", "surrogatepass")
    return name if is_possible(name) and len(text) <= _LONGEST else None


def is_possible(name: bytes) -> bool:
    """Tell whether a folder can show a name."""
    return name not in _IMPOSSIBLE and b"/" not in name and b"\0" not in name


def checksum(stored: bytes) -> int:
    """Return the sum over the 11 bytes of a short name that its long name's entries carry."""
    total = 0
    for byte in stored:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def folded(name: bytes) -> str:
    """Return what all names have in common that differ in upper and lower case only."""
    if name.isascii():
        return name.decode("ascii").upper()
    return _single(name.decode("utf-8", "surrogateescape"), str.upper)


def _single(text: str, change: Callable[[str], str]) -> str:
    """Change each character into the one that it corresponds to, if it is one."""
    return "".join(
        changed if len(changed := change(character)) == 1 else character for character in text
    )
