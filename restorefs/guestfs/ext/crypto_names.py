"""The names that Linux shows in an encrypted folder while the key is not known.

Owns their form: base64url, without padding, of the folder hash (two 32-bit numbers), up to 149
bytes of the stored name and, if it is longer, the SHA-256 of the rest. Pure.
Source: the kernel's change "fscrypt: improve format of no-key names" (Linux 5.7) and
"Filesystem-level encryption (fscrypt)", chapter "Access semantics, without the key".
"""

import binascii
import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

_HASHES = struct.Struct("<II")
_INLINE_SIZE = 149
_DIGEST_SIZE = hashlib.sha256().digest_size


class NoKeyName(NamedTuple):
    """What a shown name tells of the stored one: `start` is all of it if `digest` is empty."""

    start: bytes
    digest: bytes

    def matches(self, stored: bytes) -> bool:
        if not self.digest:
            return stored == self.start
        return (
            stored.startswith(self.start)
            and hashlib.sha256(stored[_INLINE_SIZE:]).digest() == self.digest
        )


def encode_no_key_name(stored: bytes, hashes: tuple[int, int]) -> bytes:
    """Return the name that Linux shows for a stored one with the given folder hash."""
    plain = _HASHES.pack(*hashes) + stored[:_INLINE_SIZE]
    if len(stored) > _INLINE_SIZE:
        plain += hashlib.sha256(stored[_INLINE_SIZE:]).digest()
    return urlsafe_b64encode(plain).rstrip(b"=")


def decode_no_key_name(shown: bytes) -> NoKeyName | None:
    """Take a shown name apart; None if no stored name is shown like that."""
    try:
        plain = urlsafe_b64decode(shown + b"=" * (-len(shown) % 4))
    except binascii.Error:
        return None
    stored = plain[_HASHES.size :]
    if not stored or urlsafe_b64encode(plain).rstrip(b"=") != shown:
        return None
    if len(stored) <= _INLINE_SIZE:
        return NoKeyName(stored, b"")
    if len(stored) != _INLINE_SIZE + _DIGEST_SIZE:
        return None
    return NoKeyName(stored[:_INLINE_SIZE], stored[_INLINE_SIZE:])


def no_key_length(stored: int) -> int:
    """Return the length of the shown name for a stored one of the given length."""
    if stored > _INLINE_SIZE:
        stored = _INLINE_SIZE + _DIGEST_SIZE
    return -(-(_HASHES.size + stored) * 4 // 3)
