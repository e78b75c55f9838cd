"""Windows' security descriptors in the form in which Samba keeps them, the xattr security.NTACL.

Owns that form, version 1: the descriptor alone. Later versions add a hash of the POSIX ACL that
Samba wrote beside it, by which it knows when something else has changed that one; here, nothing
was written and nothing can change. Pure. Source: Samba's interface definition of xattr_NTACL in
NDR, the encoding of DCE/RPC ("Transfer Syntax NDR"), what Samba's own library makes of the same
values (tests), and of the descriptor MS-DTYP 2.4.6.
"""

import struct

from restorefs.errors import DamagedError

NAME = b"security.NTACL"

# u16 version, u16 which of the union's members (both 1), u32 anything but 0: a pointer that is set
_HEAD = struct.pack("<HHI", 1, 1, 0x0002_0000)
_DESCRIPTOR = struct.Struct("<BBH4I")  # revision, padding, control; owner, group, SACL, DACL: where
_SELF_RELATIVE = 0x8000
_SMALLEST = {"owner": 8, "group": 8, "SACL": 8, "DACL": 8}  # of a SID, and of an ACL, without parts


def encode(descriptor: bytes) -> bytes:
    """Return the xattr's value for a self-relative security descriptor, as NTFS stores it.

    It is the descriptor behind a header; where its parts lie, 0 for none, counts from the header's
    start. Raises DamagedError for one whose parts lie outside of it.
    """
    if len(descriptor) < _DESCRIPTOR.size:
        raise DamagedError("a security descriptor is too short")
    revision, padding, control, *parts = _DESCRIPTOR.unpack_from(descriptor)
    if revision != 1 or not control & _SELF_RELATIVE:
        raise DamagedError(f"a security descriptor of revision {revision}, flags {control:#x}")
    for at, (name, size) in zip(parts, _SMALLEST.items(), strict=True):
        if at and not _DESCRIPTOR.size <= at <= len(descriptor) - size:
            raise DamagedError(f"the {name} of a security descriptor lies outside of it")
    moved = [at and at + len(_HEAD) for at in parts]
    head = _HEAD + _DESCRIPTOR.pack(revision, padding, control, *moved)
    return head + descriptor[_DESCRIPTOR.size :]
