"""Extended attributes as bytes.

Owns the decoding of attribute entries, the names that Linux shows for them, and the conversion
of POSIX ACLs to the form that Linux shows. Pure. Source: "attributes"; the form of
system.posix_acl_* is that of linux/posix_acl_xattr.h.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.guestfs.base import Inode

_MAGIC = 0xEA020000
_HEADER = struct.Struct("<IIII")  # h_magic, h_refcount, h_blocks, h_hash
_HEADER_SIZE = 32
# e_name_len, e_name_index, e_value_offs, e_value_inum, e_value_size, (e_hash)
_ENTRY = struct.Struct("<BBHII4x")
_END = bytes(4)

PREFIX_SYSTEM = 7
INLINE_DATA_NAME = b"data"
_PREFIX_ACL_ACCESS = 2
_PREFIX_ACL_DEFAULT = 3

# Linux shows what has one of these; the others ("system.data", the encryption context ...) are
# the file system's own.
_PREFIXES = {
    1: b"user.",
    _PREFIX_ACL_ACCESS: b"system.posix_acl_access",
    _PREFIX_ACL_DEFAULT: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    10: b"gnu.",
}

_ACL_VERSION_STORED = 1
_ACL_VERSION_SHOWN = 2
_ACL_ENTRY = struct.Struct("<HH")  # e_tag, e_perm
_ACL_ENTRY_SHOWN = struct.Struct("<HHI")  # e_tag, e_perm, e_id
_ACL_TAGS_WITH_ID = (0x02, 0x08)  # ACL_USER, ACL_GROUP
_ACL_TAGS_WITHOUT_ID = (0x01, 0x04, 0x10, 0x20)  # USER_OBJ, GROUP_OBJ, MASK, OTHER
_ACL_NO_ID = 0xFFFFFFFF


class Entry(NamedTuple):
    """One attribute; `prefix` is its e_name_index. The value is `size` bytes at `offset` of the
    bytes that the entry came from, or the content of inode `value_inode` where that is not 0."""

    prefix: int
    name: bytes
    offset: ByteOffset
    size: ByteLength
    value_inode: Inode

    @property
    def shown_name(self) -> bytes | None:
        """The name that Linux shows; None for what it does not show."""
        prefix = _PREFIXES.get(self.prefix)
        return None if prefix is None else prefix + self.name


def decode_entries(raw: bytes, first: ByteOffset, base: ByteOffset) -> list[Entry]:
    """Decode the entries from `first` on; values lie relative to `base`, behind the entries.

    Raises DamagedError unless all of it lies inside raw.
    """
    entries = []
    offset = first
    while raw[offset : offset + 4] != _END:
        if offset + _ENTRY.size > len(raw):
            raise DamagedError("the list of extended attributes has no end")
        name_length, index, value, value_inode, size = _ENTRY.unpack_from(raw, offset)
        offset += _ENTRY.size
        name = raw[offset : offset + name_length]
        offset += name_length + 3 & ~3
        if b"\0" in name:
            raise DamagedError("the name of an extended attribute is damaged")
        entries.append(Entry(index, name, base + value, size, value_inode))
    for entry in entries:
        if entry.value_inode or not entry.size:
            continue
        if entry.offset < offset + len(_END) or entry.offset + entry.size > len(raw):
            raise DamagedError("the value of an extended attribute lies outside its block")
    return entries


def decode_block(raw: bytes) -> list[Entry]:
    """Decode an attribute block (i_file_acl). Raises DamagedError."""
    magic, _, blocks, _ = _HEADER.unpack_from(raw)
    if magic != _MAGIC or blocks != 1:
        raise DamagedError("a block of extended attributes is damaged")
    return decode_entries(raw, _HEADER_SIZE, 0)


def block_checksum_of(raw: bytes) -> int:
    """Return the checksum that an attribute block carries (h_checksum)."""
    return int.from_bytes(raw[0x10:0x14], "little")


def shown_value(entry: Entry, value: bytes) -> bytes | None:
    """Return a stored value as Linux shows it; None for an ACL without entries, as for none.

    Raises DamagedError for a damaged ACL.
    """
    if entry.prefix not in (_PREFIX_ACL_ACCESS, _PREFIX_ACL_DEFAULT):
        return value
    shown = b"".join(_acl_entries(value))
    return _ACL_VERSION_SHOWN.to_bytes(4, "little") + shown if shown else None


def _acl_entries(value: bytes) -> Iterator[bytes]:
    if value[:4] != _ACL_VERSION_STORED.to_bytes(4, "little"):
        raise DamagedError("an access control list has an unknown version")
    offset = 4
    while offset < len(value):
        if offset + _ACL_ENTRY.size > len(value):
            raise DamagedError("an access control list is cut off")
        tag, permissions = _ACL_ENTRY.unpack_from(value, offset)
        offset += _ACL_ENTRY.size
        identifier = _ACL_NO_ID
        if tag in _ACL_TAGS_WITH_ID:
            if offset + 4 > len(value):
                raise DamagedError("an access control list is cut off")
            identifier = int.from_bytes(value[offset : offset + 4], "little")
            offset += 4
        elif tag not in _ACL_TAGS_WITHOUT_ID:
            raise DamagedError(f"an access control list has the unknown tag {tag:#x}")
        yield _ACL_ENTRY_SHOWN.pack(tag, permissions, identifier)
