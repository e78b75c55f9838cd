"""The volume's up-case table.

Owns when two names are the same without regard to case. Pure. Source: sections 7.2 and 7.6.4.
"""

import string
import struct
from collections.abc import Mapping
from typing import TypeAlias

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError
from restorefs.guestfs.exfat.layout import checksum32

_CHARACTERS = 0x10000
_IDENTITIES_FOLLOW = 0xFFFF
_SURROGATES = range(0xD800, 0xE000)
LARGEST_TABLE: ByteLength = 2 * _CHARACTERS

UpcaseTable: TypeAlias = Mapping[int, int]
"""The characters that change, for str.translate()."""

MANDATORY: UpcaseTable = dict(zip(string.ascii_lowercase.encode(), range(65, 91), strict=True))
"""What every table says (7.2.5, table 24)."""


def decode_upcase_table(data: bytes, checksum: int) -> UpcaseTable:
    """Decode a table, compressed or not. Raises DamagedError."""
    if len(data) % 2 or len(data) > LARGEST_TABLE or checksum32(data) != checksum:
        raise DamagedError("the up-case table has a wrong checksum")
    table: dict[int, int] = {}
    character = 0
    numbers = iter(struct.unpack(f"<{len(data) // 2}H", data))
    for number in numbers:
        if number == _IDENTITIES_FOLLOW and character != _IDENTITIES_FOLLOW:
            character += next(numbers, 0)
            continue
        if number != character and character not in _SURROGATES:
            table[character] = number
        character += 1
    ascii_part = {each: upper for each, upper in table.items() if each < 128}
    if character > _CHARACTERS or ascii_part != MANDATORY:
        raise DamagedError("the up-case table is not one")
    return table
