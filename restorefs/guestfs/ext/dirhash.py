"""The hashes that ext3 and ext4 sort large folders by.

Owns the three hash functions of "directory", table dirhash, each with signed or unsigned
characters. Pure. Sources: half MD4 is RFC 1320 with half the steps in each round; TEA is Wheeler
and Needham's block cipher, used as a compression function; the legacy one is ext3's own.
"""

from collections.abc import Callable, Sequence

from restorefs.errors import UnsupportedError

LEGACY, HALF_MD4, TEA, LEGACY_UNSIGNED, HALF_MD4_UNSIGNED, TEA_UNSIGNED = range(6)

_MASK = 0xFFFFFFFF
_DEFAULT_SEED = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_END_OF_FOLDER = 0xFFFFFFFE

_TEA_DELTA = 0x9E3779B9
_TEA_ROUNDS = 16

_Mix = Callable[[int, int, int], int]
# Per round: the mixing function, the constant, the order of the words, the four shifts.
_MD4_ROUNDS: Sequence[tuple[_Mix, int, Sequence[int], Sequence[int]]] = (
    (lambda x, y, z: x & y | ~x & z, 0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
    (
        lambda x, y, z: x & y | x & z | y & z,
        0x5A827999,
        (1, 3, 5, 7, 0, 2, 4, 6),
        (3, 5, 9, 13),
    ),
    (lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
)


def folder_hash(name: bytes, version: int, seed: Sequence[int]) -> tuple[int, int]:
    """Return a name's hash and minor hash.

    version: one of the table dirhash; seed: s_hash_seed. Raises UnsupportedError for a version
    that is not in the table.
    """
    if not LEGACY <= version <= TEA_UNSIGNED:
        raise UnsupportedError(f"directory hash version {version} is not supported")
    signed = version < LEGACY_UNSIGNED
    state = list(seed if any(seed) else _DEFAULT_SEED)
    minor = 0
    if version in (LEGACY, LEGACY_UNSIGNED):
        major = _legacy(_characters(name, signed))
    elif version in (HALF_MD4, HALF_MD4_UNSIGNED):
        for start in range(0, len(name), 32):
            _half_md4(state, _words(name[start:], 8, signed))
        major, minor = state[1], state[2]
    else:
        for start in range(0, len(name), 16):
            _tea(state, _words(name[start:], 4, signed))
        major, minor = state[0], state[1]
    major &= ~1  # the lowest bit marks a hash that goes on in the next block
    return (major - 2 if major == _END_OF_FOLDER else major), minor


def _characters(name: bytes, signed: bool) -> list[int]:
    return [byte - 256 if signed and byte > 127 else byte for byte in name]


def _words(name: bytes, count: int, signed: bool) -> list[int]:
    """Pack the first characters into 32-bit words, the first character in the highest bits, the
    rest filled with the remaining length."""
    padding = len(name) & 0xFF | (len(name) & 0xFF) << 8
    padding |= padding << 16
    words = []
    for start in range(0, count * 4, 4):
        word = padding
        for character in _characters(name[start : start + 4], signed):
            word = (word << 8) + character & _MASK
        words.append(word)
    return words


def _half_md4(state: list[int], words: Sequence[int]) -> None:
    a, b, c, d = state
    for mix, constant, order, shifts in _MD4_ROUNDS:
        for step, index in enumerate(order):
            total = a + mix(b, c, d) + words[index] + constant & _MASK
            shift = shifts[step % 4]
            a, b, c, d = d, (total << shift | total >> 32 - shift) & _MASK, b, c
    state[:] = [x + y & _MASK for x, y in zip(state, (a, b, c, d), strict=True)]


def _tea(state: list[int], words: Sequence[int]) -> None:
    x, y = state[:2]
    total = 0
    for _ in range(_TEA_ROUNDS):
        total = total + _TEA_DELTA & _MASK
        x = x + ((y << 4) + words[0] ^ y + total ^ (y >> 5) + words[1]) & _MASK
        y = y + ((x << 4) + words[2] ^ x + total ^ (x >> 5) + words[3]) & _MASK
    state[0] = state[0] + x & _MASK
    state[1] = state[1] + y & _MASK


def _legacy(characters: Sequence[int]) -> int:
    before, current = 0x37ABE8F9, 0x12A3FE2D
    for character in characters:
        value = before + (current ^ character * 7152373 & _MASK) & _MASK
        if value & 0x80000000:
            value -= 0x7FFFFFFF
        before, current = current, value
    return current << 1 & _MASK
