"""Bytes of ext2, ext3 and ext4, put together by hand or written by Linux.

Owns the field tables (names and offsets as the kernel's documentation has them, written down a
second time on purpose) and a builder of very small images. Knows nothing of the reader.
"""

import struct
import zlib
from base64 import b85decode

BLOCK = 1024
INODE_SIZE = 256
INODES = 32
BLOCKS = 96
TABLE = 3
FIRST_FREE = TABLE + INODES * INODE_SIZE // BLOCK
ROOT = 2
FIRST_FILE = 11

SUPERBLOCK_FIELDS = {
    "s_inodes_count": (0x0, "I"),
    "s_blocks_count_lo": (0x4, "I"),
    "s_free_blocks_count_lo": (0xC, "I"),
    "s_free_inodes_count": (0x10, "I"),
    "s_first_data_block": (0x14, "I"),
    "s_log_block_size": (0x18, "I"),
    "s_log_cluster_size": (0x1C, "I"),
    "s_blocks_per_group": (0x20, "I"),
    "s_clusters_per_group": (0x24, "I"),
    "s_inodes_per_group": (0x28, "I"),
    "s_magic": (0x38, "H"),
    "s_state": (0x3A, "H"),
    "s_creator_os": (0x48, "I"),
    "s_rev_level": (0x4C, "I"),
    "s_first_ino": (0x54, "I"),
    "s_inode_size": (0x58, "H"),
    "s_block_group_nr": (0x5A, "H"),
    "s_feature_compat": (0x5C, "I"),
    "s_feature_incompat": (0x60, "I"),
    "s_feature_ro_compat": (0x64, "I"),
    "s_uuid": (0x68, "16s"),
    "s_volume_name": (0x78, "16s"),
    "s_last_orphan": (0xE8, "I"),
    "s_desc_size": (0xFE, "H"),
    "s_default_mount_opts": (0x100, "I"),
    "s_first_meta_bg": (0x104, "I"),
    "s_blocks_count_hi": (0x150, "I"),
    "s_flags": (0x160, "I"),
    "s_checksum_type": (0x175, "B"),
    "s_backup_bgs": (0x24C, "8s"),
    "s_checksum_seed": (0x270, "I"),
    "s_encoding": (0x27C, "H"),
}

INODE_FIELDS = {
    "i_mode": (0x0, "H"),
    "i_uid": (0x2, "H"),
    "i_size_lo": (0x4, "I"),
    "i_atime": (0x8, "i"),
    "i_ctime": (0xC, "i"),
    "i_mtime": (0x10, "i"),
    "i_dtime": (0x14, "I"),
    "i_gid": (0x18, "H"),
    "i_links_count": (0x1A, "H"),
    "i_blocks_lo": (0x1C, "I"),
    "i_flags": (0x20, "I"),
    "i_block": (0x28, "60s"),
    "i_generation": (0x64, "I"),
    "i_file_acl_lo": (0x68, "I"),
    "i_size_high": (0x6C, "I"),
    "l_i_blocks_high": (0x74, "H"),
    "l_i_file_acl_high": (0x76, "H"),
    "l_i_uid_high": (0x78, "H"),
    "l_i_gid_high": (0x7A, "H"),
    "l_i_checksum_lo": (0x7C, "H"),
    "i_extra_isize": (0x80, "H"),
    "i_checksum_hi": (0x82, "H"),
    "i_ctime_extra": (0x84, "I"),
    "i_mtime_extra": (0x88, "I"),
    "i_atime_extra": (0x8C, "I"),
    "i_crtime": (0x90, "i"),
    "i_crtime_extra": (0x94, "I"),
}

FILETYPE, EXTENTS, INLINE_DATA = 0x2, 0x40, 0x8000
EXTENTS_FL, INLINE_DATA_FL = 0x80000, 0x10000000


def fill(raw: bytearray, table: dict[str, tuple[int, str]], **values: object) -> None:
    """Write named fields into a structure."""
    for name, value in values.items():
        offset, form = table[name]
        struct.pack_into("<" + form, raw, offset, value)


def superblock(**changes: object) -> bytes:
    """Return a superblock of the images below, with changes."""
    raw = bytearray(1024)
    fields: dict[str, object] = {
        "s_inodes_count": INODES,
        "s_blocks_count_lo": BLOCKS,
        "s_free_blocks_count_lo": 7,
        "s_free_inodes_count": 5,
        "s_first_data_block": 1,
        "s_blocks_per_group": 8192,
        "s_clusters_per_group": 8192,
        "s_inodes_per_group": INODES,
        "s_magic": 0xEF53,
        "s_state": 1,
        "s_rev_level": 1,
        "s_first_ino": FIRST_FILE,
        "s_inode_size": INODE_SIZE,
        "s_feature_incompat": FILETYPE | EXTENTS | INLINE_DATA,
    }
    fill(raw, SUPERBLOCK_FIELDS, **(fields | changes))
    return bytes(raw)


def inode(size: int = INODE_SIZE, **fields: object) -> bytes:
    """Return an inode's record."""
    raw = bytearray(size)
    fill(raw, INODE_FIELDS, **fields)
    return bytes(raw)


def record(number: int, name: bytes, length: int = 0, file_type: int = 1) -> bytes:
    """Return a directory record, as long as its name needs or as given."""
    length = length or 8 + len(name) + 3 & ~3
    head = struct.pack("<IHBB", number, length & 0xFFFF, len(name), file_type)
    return (head + name).ljust(length, b"\0")


def folder_block(*entries: tuple[int, bytes], size: int = BLOCK) -> bytes:
    """Return records, the last of which reaches to the end of the block."""
    records = [record(number, name) for number, name in entries[:-1]]
    used = sum(map(len, records))
    return b"".join(records) + record(*entries[-1], length=size - used)


def extent_node(depth: int, *entries: bytes, capacity: int = 4) -> bytes:
    """Return a node of an extent tree."""
    return struct.pack("<HHHHI", 0xF30A, len(entries), capacity, depth, 0) + b"".join(entries)


def extent(first: int, count: int, block: int) -> bytes:
    return struct.pack("<IHHI", first, count, block >> 32, block & 0xFFFFFFFF)


def index(first: int, block: int) -> bytes:
    return struct.pack("<IIHH", first, block & 0xFFFFFFFF, block >> 32, 0)


def pointers(*blocks: int, count: int = 15) -> bytes:
    """Return direct and indirect block numbers."""
    return struct.pack(f"<{count}I", *blocks, *(0,) * (count - len(blocks)))


class TinyImage:
    """A file system of 96 blocks of 1 KiB in one group, without checksums and with room for 32
    inodes. Holds a root folder once `root` was called."""

    def __init__(self, **changes: object) -> None:
        self.blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
        self.blocks[1] = superblock(**changes)
        self.blocks[2] = struct.pack("<8xI20x", TABLE).ljust(BLOCK, b"\0")
        self.inodes = [bytes(INODE_SIZE) for _ in range(INODES)]
        self._free = FIRST_FREE

    def put(self, content: bytes) -> int:
        """Store a block; return its number."""
        self.blocks[self._free] = content.ljust(BLOCK, b"\0")
        self._free += 1
        return self._free - 1

    def file(self, number: int, mode: int = 0o100644, **fields: object) -> None:
        self.inodes[number - 1] = inode(i_mode=mode, i_links_count=1, **fields)

    def folder(self, number: int, parent: int, *blocks: bytes) -> None:
        """Store a folder of direct blocks; the first of them begins with "." and ".."."""
        stored = [self.put(block) for block in blocks]
        self.inodes[number - 1] = inode(
            i_mode=0o40755,
            i_links_count=2,
            i_size_lo=BLOCK * len(blocks),
            i_block=pointers(*stored),
        )

    def root(self, *entries: tuple[int, bytes]) -> None:
        self.folder(ROOT, ROOT, folder_block((ROOT, b"."), (ROOT, b".."), *entries))

    def bytes(self) -> bytes:
        table = b"".join(self.inodes)
        for number in range(FIRST_FREE - TABLE):
            self.blocks[TABLE + number] = table[number * BLOCK :][:BLOCK]
        return b"".join(self.blocks)


def _sample(text: str) -> bytes:
    return zlib.decompress(b85decode(text))


# What mke2fs 1.47.0 and Linux 6.18 wrote to one image with metadata_csum: its superblock, the
# descriptor of group 0, the inodes 12 (a file with an extent tree), 13 and 14 (a folder with an
# index), the attribute block 17 of inode 13, the root's first block, the root of the index of
# inode 14, and the leaf of inode 12's tree.
SUPERBLOCK = _sample(
    "c-muNWME(rU|=`{q-OCmFx&&uAR#zVfMTGa$#$k}5N2ff|3COWBShWD;8d7Wm_BYOM*~P5Vq##(W&v`QUDG>PpM4L"
    "b8PI@!Np69DYDI}|QEFmJYLR|!UWuNYQFtZ;6@efSC@C2mySRjc0V9J00}o6R$sg1L3P8w+MVtjF=*}>_fGfi&7-}"
    "Fbu=oxDckv_f"
)
GROUP = _sample("c-muTU|<jiVr3wn#ea{1nSq4?1Y|{y@3_ZMw~he^Xn2(t2ciM+y$7%")
INODE_12 = _sample(
    "c-mXi$iTp`g@M6jJ5x3cGk^gjgA|zNU|<K5T%Q>kSb$<MAOfXXz$zISn0P=cA#7$Kn+M8f0Wz4n44N3Q0EtWn1_cIY"
    "D~Ih~%Rtzoc<Wq{{UDlwP5=NZcM_)"
)
INODE_13 = _sample(
    "c-mXi$N&Z=+nKUq7$U;Rzyzi_7?^=1*JlO>76$Tw`<8dd1+j=9f5^a~z;Lj>MgQC~hwWZq46+|YBUCZHVr2{fv$&ul"
    "`6U^tMGWMFayVdM003i}9Zm"
)
INODE_14 = _sample(
    "c-njG$iToL!N6d$ohciJ8Nh&vfd@nha4?7hDXz~f3@i)?zzD=bP?`yd6@i!;%1#DiR;V0EZ~BS%?hIH!ttA740>hes"
    "7X5R}U>IaSh-RP@004Iz6?6"
)
XATTR_BLOCK_17 = _sample("c-muNV0y*Kz`y{)i3PRCu1;PV#DD}?8Lu#bXdOm~d{Rz+ayG*#7zKkDl#K$S0RUKHl-2")
FOLDER_BLOCK_2 = _sample(
    "c-muPU|`^3U}Vw*(oA4B6O$g0!wqDMFmN&D<QJD{r{$OCrGVtX@{DOk3=F(bc10os10RsRftiUZvw~q1jDk@x1OPBE"
    "-#g~4IU4{#lnW;"
)
INDEX_ROOT_14 = _sample(
    "c-rG*U|`^3U}Vw*(o8`7g_(&-55xfiMh*ssY6eyYMj-nU&re%cAf1+FIGF`VUyBo33sP_NblU@FhEXsIM!`@5JPZu?"
    "@<odH0BUm#f&"
)
EXTENT_NODE_12 = _sample(
    "c-rIo%)=1EfB=jj%)`LI0%bD+*&I+dGmy;#WwQVo0#No7eg*~+DEkGFEdgb}0kUPF><>V;0+f9a$X0=}j{?~mQ1(e6"
    "TL;QM%g-<hM!_hcA+QUq`UL<QdJF3"
)
