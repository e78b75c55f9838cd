"""Arithmetic on whole chunks for RAID 5 and 6.

Pure. Source: H. Peter Anvin, "The mathematics of RAID-6": the field of 256 elements with the
polynomial 0x11d, generator 2. P is the sum of the data, Q the sum of 2**n times the chunk with
number n; sum means XOR.
"""

from collections.abc import Iterable
from functools import lru_cache

POLYNOMIAL = 0x11D

_POWERS = [1]
for _ in range(254):
    _doubled = _POWERS[-1] << 1
    _POWERS.append(_doubled ^ POLYNOMIAL if _doubled & 0x100 else _doubled)
_LOGARITHMS = {value: power for power, value in enumerate(_POWERS)}


def power(exponent: int) -> int:
    """Return 2**exponent."""
    return _POWERS[exponent % 255]


def product(a: int, b: int) -> int:
    """Return a * b."""
    return power(_LOGARITHMS[a] + _LOGARITHMS[b]) if a and b else 0


def inverse(a: int) -> int:
    """Return 1 / a; a is not 0."""
    return power(-_LOGARITHMS[a])


@lru_cache(maxsize=256)
def _table(factor: int) -> bytes:
    return bytes(product(factor, value) for value in range(256))


def scaled(chunk: bytes, factor: int) -> bytes:
    """Return a chunk with every byte multiplied."""
    return chunk if factor == 1 else chunk.translate(_table(factor))


def summed(chunks: Iterable[bytes], length: int) -> bytes:
    """Return the XOR of chunks that have this length each."""
    total = 0
    for chunk in chunks:
        total ^= int.from_bytes(chunk, "little")
    return total.to_bytes(length, "little")
