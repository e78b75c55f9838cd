"""The records of the log.

Owns the decoding of their headers. Pure. Source: "Journaling Log", "Log Records" and "Log
Operations". The log is a ring of blocks of 512 bytes; each begins with the number of the turn
("cycle") in which it was written, where a record's header does not have its signature there.
"""

import struct
from typing import NamedTuple

from restorefs.block.base import ByteLength

BLOCK_BITS = 9
BLOCK_SIZE: ByteLength = 1 << BLOCK_BITS
MAGIC = b"\xfe\xed\xba\xbe"  # XLOG_HEADER_MAGIC_NUM

# h_magicno, (h_cycle), h_version, h_len, h_lsn, (h_tail_lsn, h_crc, h_prev_block), h_num_logops
_HEADER = struct.Struct(">4s4xIIQ16xI")
_FORMAT = struct.Struct(">I16sI")  # h_fmt, h_fs_uuid, h_size
_FORMAT_OFFSET = 300
_FORMATS = (1, 2, 3)  # of Linux, little- and big-endian, and of IRIX
_HEADER_COVERS: ByteLength = 32 << 10
"""A record needs another block of header for each so many bytes."""
_FLAGS_OFFSET = 9  # oh_flags, behind oh_tid, oh_len, oh_clientid
_UNMOUNT = 0x20  # XLOG_UNMOUNT_TRANS


class RecordHeader(NamedTuple):
    """A record at block `start` of the log; `blocks` counts its header, too."""

    start: int
    header_blocks: int
    blocks: int
    operations: int
    uuid: bytes


def decode_record_header(raw: bytes, block: int, cycle: int | None = None) -> RecordHeader | None:
    """Return the header that begins at this block of a log, or None where none does.

    cycle: the turn that it must be of.
    """
    magic, version, length, lsn, operations = _HEADER.unpack_from(raw)
    format_, uuid, size = _FORMAT.unpack_from(raw, _FORMAT_OFFSET)
    if (
        magic != MAGIC
        or version not in (1, 2)
        or format_ not in _FORMATS
        or lsn & 0xFFFFFFFF != block
        or not lsn >> 32
        or (cycle is not None and lsn >> 32 != cycle)
        or not 0 < length <= 1 << 20
    ):
        return None
    header_blocks = 1
    if version == 2:
        header_blocks = max(1, -(-min(size, 1 << 20) // _HEADER_COVERS))
    blocks = header_blocks + -(-length // BLOCK_SIZE)
    return RecordHeader(block, header_blocks, blocks, operations, uuid)


def cycle_of(raw: bytes) -> int:
    """Return the turn in which a block was written; 0 for one that never was."""
    at = 4 if raw[:4] == MAGIC else 0
    return int.from_bytes(raw[at : at + 4], "big")


def is_unmount(raw: bytes) -> bool:
    """Say whether a block of operations begins with the one that ends a clean log."""
    return len(raw) > _FLAGS_OFFSET and bool(raw[_FLAGS_OFFSET] & _UNMOUNT)
