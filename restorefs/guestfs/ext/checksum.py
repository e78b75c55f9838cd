"""The checksums of ext4's metadata.

Owns which bytes go into which checksum. Pure; knows nothing about where the bytes came from.
Source: "Checksums", and what each structure's chapter says about its own. All crc32c values
are as ext4 stores them: starting from a given seed, without a final inversion.
"""

import struct

from google_crc32c import extend as _extend

_U32 = struct.Struct("<I")
_INVERT = 0xFFFFFFFF
_CRC16_POLYNOMIAL = 0xA001


def crc32c(seed: int, data: bytes) -> int:
    """Return the crc32c of data, continuing from seed."""
    value: int = _extend(seed ^ _INVERT, data)
    return value ^ _INVERT


def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_CRC16_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC16_TABLE = _crc16_table()


def crc16(seed: int, data: bytes) -> int:
    """Return the CRC-16 (polynomial 0x8005, reflected) of data, continuing from seed."""
    value = seed
    for byte in data:
        value = value >> 8 ^ _CRC16_TABLE[(value ^ byte) & 0xFF]
    return value


def inode_seed(seed: int, inode: int, generation: int) -> int:
    """Return the seed for everything that belongs to one inode."""
    return crc32c(seed, struct.pack("<II", inode, generation))


def inode_checksum(seed: int, inode: int, raw: bytes, has_high_half: bool) -> int:
    """Return the checksum of an inode's record; 16 bits wide unless i_checksum_hi is in use.

    raw is the whole record of s_inode_size bytes; i_checksum_lo (0x7C) and, where used,
    i_checksum_hi (0x82) count as zero; i_generation is at 0x64 ("inodes").
    """
    ingredients = (
        _U32.pack(inode),
        raw[0x64:0x68],
        raw[:0x7C],
        b"\0\0",
        raw[0x7E:0x82],
        b"\0\0" if has_high_half else raw[0x82:0x84],
        raw[0x84:],
    )
    value = crc32c(seed, b"".join(ingredients))
    return value if has_high_half else value & 0xFFFF


def without_inode_checksums(piece: bytes, size: int) -> bytes:
    """Return a piece of an inode table, of records of `size` bytes, with both halves of each
    checksum set to zero."""
    cleared = bytearray(piece)
    for field in (0x7C, 0x7D, 0x82, 0x83):
        cleared[field::size] = bytes(len(range(field, len(piece), size)))
    return bytes(cleared)


def xattr_block_checksum(seed: int, block: int, raw: bytes) -> int:
    """Return the checksum of an attribute block; h_checksum (0x10) counts as zero."""
    return crc32c(seed, struct.pack("<Q", block) + raw[:0x10] + bytes(4) + raw[0x14:])


def group_crc32c(seed: int, group: int, raw: bytes) -> int:
    """Return a group descriptor's checksum under metadata_csum; bg_checksum counts as zero."""
    return crc32c(seed, _U32.pack(group) + raw[:0x1E] + bytes(2) + raw[0x20:]) & 0xFFFF


def group_crc16(uuid: bytes, group: int, raw: bytes) -> int:
    """Return a group descriptor's checksum under gdt_csum; bg_checksum is left out."""
    return crc16(0xFFFF, uuid + _U32.pack(group) + raw[:0x1E] + raw[0x20:])
