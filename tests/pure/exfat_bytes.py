"""exFAT structures byte by byte, by code of its own, from Microsoft's specification."""

import struct

from tests.images.exfat import checksum16


def file_set(
    name: str,
    *,
    attributes: int = 0x20,
    first: int = 5,
    length: int = 100,
    valid: int | None = None,
    flags: int = 1,
    behind: bytes = b"",
) -> bytes:
    """Return a set of entries (7.4, 7.6, 7.7). behind: further entries."""
    raw = name.encode("utf-16-le", "surrogatepass")
    names = [raw[start : start + 30] for start in range(0, len(raw), 30)]
    entries = struct.pack("<BBHH26x", 0x85, 1 + len(names) + len(behind) // 32, 0, attributes)
    entries += struct.pack(
        "<BBBBHHQIIQ",
        0xC0,
        flags,
        0,
        len(raw) // 2,
        0,
        0,
        length if valid is None else valid,
        0,
        first,
        length,
    )
    entries += b"".join(b"\xc1\0" + piece.ljust(30, b"\0") for piece in names) + behind
    return sealed(entries)


def sealed(entries: bytes) -> bytes:
    """Return a set with its right checksum."""
    return entries[:2] + struct.pack("<H", checksum16(entries)) + entries[4:]
