"""The feature bits of XFS.

Owns their values, their names for people, and which of them restorefs reads. Pure.
Source: "Superblocks", sb_versionnum, sb_features2 and sb_features_*; the names are those that
mkfs.xfs(8) and xfs_db(8) use.
"""

from collections.abc import Mapping

VERSION_MASK = 0x000F
VERSION_DIR_V2 = 0x2000
VERSION_ASCII_CI = 0x4000  # BORGBIT
VERSION_MORE_BITS = 0x8000

FEATURES2_FILE_TYPE = 0x200

INCOMPAT_FILE_TYPE = 0x1
INCOMPAT_SPARSE_INODES = 0x2
INCOMPAT_META_UUID = 0x4
INCOMPAT_BIGTIME = 0x8
INCOMPAT_NEEDS_REPAIR = 0x10
INCOMPAT_NREXT64 = 0x20
INCOMPAT_EXCHANGE_RANGE = 0x40
INCOMPAT_PARENT = 0x80
INCOMPAT_METADIR = 0x100

INCOMPAT_NAMES: Mapping[int, str] = {
    INCOMPAT_FILE_TYPE: "ftype",
    INCOMPAT_SPARSE_INODES: "sparse inodes",
    INCOMPAT_META_UUID: "meta_uuid",
    INCOMPAT_BIGTIME: "bigtime",
    INCOMPAT_NEEDS_REPAIR: "needsrepair",
    INCOMPAT_NREXT64: "nrext64",
    INCOMPAT_EXCHANGE_RANGE: "exchange",
    INCOMPAT_PARENT: "parent",
    INCOMPAT_METADIR: "metadir",
    0x200: "zoned",
    0x400: "zone gaps",
}

RO_COMPAT_NAMES: Mapping[int, str] = {
    0x1: "finobt",
    0x2: "rmapbt",
    0x4: "reflink",
    0x8: "inobtcount",
}

READABLE_INCOMPAT = (
    INCOMPAT_FILE_TYPE
    | INCOMPAT_SPARSE_INODES
    | INCOMPAT_META_UUID
    | INCOMPAT_BIGTIME
    | INCOMPAT_NEEDS_REPAIR
    | INCOMPAT_NREXT64
    | INCOMPAT_EXCHANGE_RANGE
    | INCOMPAT_PARENT
    | INCOMPAT_METADIR
)

READABLE_FEATURES2 = 0x2 | 0x8 | 0x80 | 0x100 | FEATURES2_FILE_TYPE
"""lazy-count, attr2, projid32bit, crc, ftype."""


def names_of(bits: int, names: Mapping[int, str]) -> list[str]:
    """Name each set bit, "bit 0x..." where the documentation has no name for it."""
    single = [1 << position for position in range(bits.bit_length()) if bits >> position & 1]
    return [names.get(bit, f"bit {bit:#x}") for bit in single]
