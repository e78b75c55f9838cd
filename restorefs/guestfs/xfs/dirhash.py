"""The hash of names in folders and of attributes.

Owns the two ways to compute it. Pure. Source: "Directories", "Hash B+trees"; what the lower case
is in folders that ignore case: mkfs.xfs(8), -n version=ci, and the kernel's change "xfs: stabilize
the dirent name transformation function used for ascii-ci dir hash computation".
"""

_MASK = 0xFFFFFFFF


def _lower_case() -> bytes:
    """Return a table from bytes to lower case: ASCII and the letters of ISO 8859-1."""
    upper = [*range(0x41, 0x5B), *range(0xC0, 0xD7), *range(0xD8, 0xDF)]
    table = bytearray(range(256))
    for byte in upper:
        table[byte] = byte + 0x20
    return bytes(table)


LOWER_CASE = _lower_case()


def name_hash(name: bytes) -> int:
    """Return a name's hash."""
    value = 0
    for byte in name:
        value = (value << 7 & _MASK | value >> 25) ^ byte
    return value


def folded_hash(name: bytes) -> int:
    """Return a name's hash where case is ignored."""
    return name_hash(name.translate(LOWER_CASE))
