"""DOS attributes in the form in which Samba keeps them, the xattr user.DOSATTRIB.

Owns that form, version 3, which every Samba since 3.5 reads. Pure. Source: Samba's interface
definition of xattr_DOSATTRIB, and what its own library makes of the same values (tests).
"""

import struct

from restorefs.guestfs.base import Nanoseconds

NAME = b"user.DOSATTRIB"

_VERSION = 3
_HAS_ATTRIBUTES = 0x01
_HAS_CREATED = 0x10
_FROM_1601_TO_1970 = 11_644_473_600 * 10_000_000  # in units of 100 ns


def encode(attributes: int, created_ns: Nanoseconds | None) -> bytes:
    """Return the xattr's value.

    attributes: the FILE_ATTRIBUTE bits, as Windows numbers them. created_ns: when the file was
    created, None where that is not known.

    The value: the attributes as text ("0x21") that ends with NUL, padded to 2 bytes; u16 version,
    twice, padded to 4; u32 which fields are set, u32 attributes, u32 size of OS/2's attributes,
    u64 size, u64 size on disk, u64 time of creation, u64 time of change (in 100 ns since 1601).
    """
    known, created = _HAS_ATTRIBUTES, 0
    if created_ns is not None:
        units = created_ns // 100 + _FROM_1601_TO_1970
        if 0 <= units < 1 << 63:
            known, created = known | _HAS_CREATED, units
    text = b"0x%x\0" % attributes
    head = text + bytes(len(text) % 2) + struct.pack("<HH", _VERSION, _VERSION)
    head += bytes(-len(head) % 4)
    return head + struct.pack("<IIIQQQQ", known, attributes, 0, 0, 0, created, 0)
