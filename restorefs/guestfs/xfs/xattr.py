"""Extended attributes as bytes.

Owns the decoding of attribute entries, the names that Linux shows for them, and the conversion
of POSIX ACLs to the form that Linux shows. Pure. Source: "Extended Attributes"; the form of
system.posix_acl_* is that of linux/posix_acl_xattr.h.
"""

import struct
from typing import NamedTuple

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError

LEAF_MAGICS = (b"\xfb\xee", b"\x3b\xee")
_LEAF_COUNTS = (12, 56)
_LEAF_HEADS = (32, 80)
_LEAF_ENTRY = struct.Struct(">4xHBx")  # (hashval), nameidx, flags
_LOCAL = struct.Struct(">HB")  # valuelen, namelen
_REMOTE = struct.Struct(">IIB")  # valueblk, valuelen, namelen
_SHORT_HEAD = struct.Struct(">HB")  # totsize, count
_SHORT_HEAD_SIZE = 4
_SHORT_ENTRY_SIZE = 3  # namelen, valuelen, flags

_FLAG_LOCAL = 0x01
_FLAG_ROOT = 0x02
_FLAG_SECURE = 0x04
_FLAG_PARENT = 0x08
_FLAG_INCOMPLETE = 0x80
_NAMESPACES = {0: b"user.", _FLAG_ROOT: b"trusted.", _FLAG_SECURE: b"security."}

_ACLS = {
    b"SGI_ACL_FILE": b"system.posix_acl_access",
    b"SGI_ACL_DEFAULT": b"system.posix_acl_default",
}
_ACL_NAMES = frozenset(_ACLS.values())
AS_STORED = {shown: b"trusted." + stored for stored, shown in _ACLS.items()}
"""Under these names Linux shows ACLs once more, to root, in the form that XFS stores. rsync -X by
root removes from its target what the source does not show: on XFS, the ACL."""
_ACL_VERSION = 2
_ACL_ENTRY = struct.Struct(">IIHH")  # ae_tag, ae_id, ae_perm, ae_pad
_ACL_SHOWN = struct.Struct("<HHI")  # e_tag, e_perm, e_id
_ACL_TAGS_WITH_ID = (0x02, 0x08)  # ACL_USER, ACL_GROUP
_ACL_TAGS_WITHOUT_ID = (0x01, 0x04, 0x10, 0x20)  # USER_OBJ, GROUP_OBJ, MASK, OTHER
_ACL_NO_ID = 0xFFFFFFFF


class RemoteValue(NamedTuple):
    """A value of `size` bytes that begins at a block of the fork of attributes."""

    block: int
    size: ByteLength


class Entry(NamedTuple):
    """One attribute, under the name that Linux shows."""

    name: bytes
    value: bytes | RemoteValue


def decode_short_form(raw: bytes) -> list[Entry]:
    """Decode attributes inside an inode ("Short Form Attributes"), those that Linux shows.

    Raises DamagedError.
    """
    if len(raw) < _SHORT_HEAD_SIZE:
        raise DamagedError("the extended attributes inside an inode are cut off")
    size, count = _SHORT_HEAD.unpack_from(raw)
    if size > len(raw):
        raise DamagedError("the extended attributes inside an inode are cut off")
    entries = []
    start = _SHORT_HEAD_SIZE
    for _ in range(count):
        name_start = start + _SHORT_ENTRY_SIZE
        if name_start > size:
            raise DamagedError("the extended attributes inside an inode are cut off")
        name_length, value_length, flags = raw[start:name_start]
        value_start = name_start + name_length
        start = value_start + value_length
        if start > size:
            raise DamagedError("the extended attributes inside an inode are cut off")
        name = _shown_name(raw[name_start:value_start], flags)
        if name is not None:
            entries.append(Entry(name, raw[value_start:start]))
    return entries


def decode_leaf(block: bytes, checked: bool) -> list[Entry]:
    """Decode a block of attributes ("Leaf Attributes"), those that Linux shows.

    Raises DamagedError.
    """
    (count,) = struct.unpack_from(">H", block, _LEAF_COUNTS[checked])
    start = _LEAF_HEADS[checked]
    entries_end = start + count * _LEAF_ENTRY.size
    if entries_end > len(block):
        raise DamagedError("a block of extended attributes claims more than it has room for")
    entries = []
    for offset, flags in _LEAF_ENTRY.iter_unpack(block[start:entries_end]):
        head = _LOCAL if flags & _FLAG_LOCAL else _REMOTE
        name_start = offset + head.size
        if offset < entries_end or name_start > len(block):
            raise DamagedError("an extended attribute lies outside its block")
        *first, size, name_size = head.unpack_from(block, offset)
        name_end = name_start + name_size
        end = name_end if first else name_end + size
        if end > len(block):
            raise DamagedError("an extended attribute lies outside its block")
        value = RemoteValue(first[0], size) if first else block[name_end:end]
        name = _shown_name(block[name_start:name_end], flags)
        if name is not None:
            entries.append(Entry(name, value))
    return entries


def _shown_name(name: bytes, flags: int) -> bytes | None:
    """Return the name that Linux shows; None for what it does not show: what points to a file's
    parents, and what was not written to its end."""
    if not name or b"\0" in name:
        if flags & _FLAG_PARENT:
            return None
        raise DamagedError("the name of an extended attribute is damaged")
    if flags & _FLAG_ROOT and name in _ACLS:
        return None if flags & _FLAG_INCOMPLETE else _ACLS[name]
    # Parents and unfinished ones have further bits, and so no namespace.
    namespace = _NAMESPACES.get(flags & ~_FLAG_LOCAL)
    return None if namespace is None else namespace + name


def shown_value(name: bytes, value: bytes) -> bytes | None:
    """Return the value that Linux shows under a name; None for an ACL without entries, as for
    none. Raises DamagedError for a damaged ACL."""
    if name not in _ACL_NAMES:
        return value
    count = int.from_bytes(value[:4], "big")
    # The list may be followed by room for more.
    if len(value) < 4 + count * _ACL_ENTRY.size:
        raise DamagedError("an access control list is cut off")
    shown = b""
    for tag, identifier, permissions, _ in _ACL_ENTRY.iter_unpack(
        value[4 : 4 + count * _ACL_ENTRY.size]
    ):
        if tag not in _ACL_TAGS_WITH_ID:
            if tag not in _ACL_TAGS_WITHOUT_ID:
                raise DamagedError(f"an access control list has the unknown tag {tag:#x}")
            identifier = _ACL_NO_ID
        shown += _ACL_SHOWN.pack(tag, permissions, identifier)
    return _ACL_VERSION.to_bytes(4, "little") + shown if shown else None
