"""The LZX decoder, for chunks of up to 32 KiB as the Windows Overlay Filter and WIM files have.

Owns the format. Pure: bytes in, bytes out. It is our own because libfwnt's (20260602) fails for
blocks without long matches and gives wrong bytes near a chunk's end and in uncompressed blocks.

Format: MS-PATCH, section 2 (LZX DELTA), with what "WIM Compression" (coderforlife.com) lists as
different: a window of 32 KiB; a block's size is one bit (set: 32 KiB) or that bit and 16 more; the
aligned offset tree comes first; no header, as call translation is always on, for a file size of
12,000,000; every chunk begins anew. The overlay filter's chunks are the same as a WIM's.
"""

import struct
from array import array
from collections.abc import Sequence

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError

MAX_CHUNK: ByteLength = 32768

_VERBATIM, _ALIGNED, _UNCOMPRESSED = 1, 2, 3  # block types (2.3.1.1)
_LITERALS = 256
_SLOTS = 30  # for a window of 32 KiB (2.4)
_LENGTHS = 249
_FOOTER_BITS = tuple(0 if slot < 4 else (slot - 2) // 2 for slot in range(_SLOTS))
_BASES = tuple(sum(1 << bits for bits in _FOOTER_BITS[:slot]) - 2 for slot in range(_SLOTS))
_MAX_CODE_LENGTH = 16
_TRANSLATED_SIZE = 12_000_000
_NOT_TRANSLATED = 10  # bytes at a chunk's end (2.2.2)

_Table = list[int]  # by the next bits of the stream: symbol << 5 | bits of its code


def decode(data: bytes, size: ByteLength) -> bytes:
    """Decode one chunk to exactly `size` bytes, at most MAX_CHUNK. Raises DamagedError."""
    if not 0 < size <= MAX_CHUNK:
        raise DamagedError(f"a chunk (LZX) of {size} bytes")
    try:
        return _undo_call_translation(_Decoder(data, size).run())
    except IndexError as error:  # of the windows: the stream ends too early
        raise DamagedError("compressed data (LZX) ends too early") from error


class _Decoder:
    """One chunk on its way. Bits come from little-endian words of 16, the highest one first (2.1).
    `windows` has for each word the 64 bits from its beginning; `position` counts bits."""

    def __init__(self, data: bytes, size: ByteLength) -> None:
        self.data = data
        self.size = size
        self.out = bytearray()
        self.position = 0
        self.windows = _windows(data)
        self.end = 8 * len(data)
        self.recent = (1, 1, 1)
        self.main_lengths = [0] * (_LITERALS + 8 * _SLOTS)
        self.length_lengths = [0] * _LENGTHS

    def bits(self, count: int) -> int:
        position = self.position
        self.position = position + count
        return self.windows[position >> 4] >> 64 - count - (position & 15) & (1 << count) - 1

    def run(self) -> bytearray:
        while len(self.out) < self.size:
            kind = self.bits(3)
            length = MAX_CHUNK if self.bits(1) else self.bits(16)
            if kind not in (_VERBATIM, _ALIGNED, _UNCOMPRESSED):
                raise DamagedError(f"compressed data (LZX) has a block of type {kind}")
            if not 0 < length <= self.size - len(self.out):
                raise DamagedError(f"compressed data (LZX) has a block of {length} bytes")
            if kind == _UNCOMPRESSED:
                self.copy(length)
            else:
                self.decode_block(len(self.out) + length, aligned=kind == _ALIGNED)
            if self.position > self.end:
                raise DamagedError("compressed data (LZX) ends too early")
        return self.out

    def copy(self, length: int) -> None:
        """Take an uncompressed block (2.3.2.1): 1 to 16 bits of padding, the recent offsets, the
        bytes, and one more if they are an odd number."""
        start = (self.position // 16 + 1) * 2
        if start + 12 + length > len(self.data):
            raise DamagedError("compressed data (LZX) ends too early")
        self.recent = struct.unpack_from("<3I", self.data, start)
        self.out += self.data[start + 12 : start + 12 + length]
        self.position = 8 * (start + 12 + length)
        if length % 2 and len(self.out) < self.size:
            self.position += 8

    def decode_block(self, stop: int, aligned: bool) -> None:
        """Decode a verbatim or an aligned offset block (2.3.2.2, 2.3.2.3, 2.6)."""
        aligned_table: _Table = []
        aligned_bits = 0
        if aligned:
            aligned_table, aligned_bits = _table([self.bits(3) for _ in range(8)])
        self.read_lengths(self.main_lengths, 0, _LITERALS)
        self.read_lengths(self.main_lengths, _LITERALS, len(self.main_lengths))
        self.read_lengths(self.length_lengths, 0, _LENGTHS)
        table, main_bits = _table(self.main_lengths)
        length_table, length_bits = _table(self.length_lengths)
        main_shift, main_mask = 64 - main_bits, (1 << main_bits) - 1
        length_shift, length_mask = 64 - length_bits, (1 << length_bits) - 1
        aligned_shift, aligned_mask = 64 - aligned_bits, (1 << aligned_bits) - 1
        windows, out, position = self.windows, self.out, self.position
        r0, r1, r2 = self.recent
        append, footer_bits, bases = out.append, _FOOTER_BITS, _BASES
        done = len(out)
        while done < stop:
            code = table[windows[position >> 4] >> main_shift - (position & 15) & main_mask]
            position += code & 31
            code >>= 5
            if code < 256:
                append(code)
                done += 1
                continue
            length = (code & 7) + 2
            if length == 9:
                if not length_table:
                    raise DamagedError("compressed data (LZX) uses a length without a code")
                found = length_table[
                    windows[position >> 4] >> length_shift - (position & 15) & length_mask
                ]
                position += found & 31
                length += found >> 5
            slot = code - 256 >> 3
            if slot > 2:
                footer = footer_bits[slot]
                offset = bases[slot]
                if footer > 2 and aligned:
                    footer -= 3
                    offset += (
                        windows[position >> 4] >> 64 - footer - (position & 15) & (1 << footer) - 1
                    ) << 3
                    position += footer
                    found = aligned_table[
                        windows[position >> 4] >> aligned_shift - (position & 15) & aligned_mask
                    ]
                    position += found & 31
                    offset += found >> 5
                else:
                    offset += (
                        windows[position >> 4] >> 64 - footer - (position & 15) & (1 << footer) - 1
                    )
                    position += footer
                r2 = r1
                r1 = r0
                r0 = offset
            elif slot == 1:
                r0, r1 = r1, r0
            elif slot == 2:
                r0, r2 = r2, r0
            start = done - r0
            if start < 0 or start == done or done + length > stop:
                raise DamagedError("compressed data (LZX) refers to bytes outside its chunk")
            if r0 >= length:
                out += out[start : start + length]
            else:
                out += (out[start:] * (length // r0 + 1))[:length]
            done += length
        self.position = position
        self.recent = r0, r1, r2

    def read_lengths(self, lengths: list[int], first: int, stop: int) -> None:
        """Bring the code lengths of a tree up to date (2.5): each is stored as the difference to
        that of the block before, coded by a tree of its own."""
        table, bits = _table([self.bits(4) for _ in range(20)])
        if not table:
            raise DamagedError("compressed data (LZX) has a tree without codes")
        shift, mask = 64 - bits, (1 << bits) - 1
        index = first
        while index < stop:
            found = table[self.windows[self.position >> 4] >> shift - (self.position & 15) & mask]
            self.position += found & 31
            code, run, value = found >> 5, 1, 0
            if code == 17:
                run = 4 + self.bits(4)
            elif code == 18:
                run = 20 + self.bits(5)
            else:
                if code == 19:
                    run = 4 + self.bits(1)
                    found = table[
                        self.windows[self.position >> 4] >> shift - (self.position & 15) & mask
                    ]
                    self.position += found & 31
                    code = found >> 5
                    if code > 16:
                        raise DamagedError("compressed data (LZX) has a damaged tree")
                value = (lengths[index] - code) % 17
            if run > stop - index:
                raise DamagedError("compressed data (LZX) has a damaged tree")
            lengths[index : index + run] = [value] * run
            index += run


def _windows(data: bytes) -> list[int]:
    """Return the 64 bits from the beginning of each 16-bit word. Zeros follow the last one; a
    decoder that goes on into them ends with an IndexError, or is seen to be behind the end."""
    words = array("H", data[: len(data) & ~1])
    if struct.pack("=H", 1) == b"\x01\0":
        words.byteswap()
    if len(data) % 2:
        last = bytes((0, data[-1]))
        swapped = words.tobytes() + last
    else:
        swapped = words.tobytes()
    count = len(swapped) // 2
    groups = count // 4 + 1
    swapped += bytes(8 * groups + 8 - len(swapped))
    windows = [0] * (4 * groups)
    for index in range(4):
        windows[index::4] = struct.unpack_from(f">{groups}Q", swapped, 2 * index)
    return windows[: count + 1]


def _table(lengths: Sequence[int]) -> tuple[_Table, int]:
    """Return a table of a canonical code, and how many bits index it: codes are given out by
    length, then by symbol (2.5). Without any code the table is empty."""
    longest = max(lengths)
    if not longest:
        return [], 1
    by_length: list[list[int]] = [[] for _ in range(_MAX_CODE_LENGTH + 1)]
    for symbol, length in enumerate(lengths):
        by_length[length].append(symbol << 5 | length)
    if sum(len(by_length[n]) << longest - n for n in range(1, longest + 1)) != 1 << longest:
        raise DamagedError("compressed data (LZX) has a tree that is not complete")
    table: _Table = []
    for length in range(1, longest + 1):
        repeat = 1 << longest - length
        for entry in by_length[length]:
            table += [entry] * repeat
    return table, longest


def _undo_call_translation(out: bytearray) -> bytes:
    """Turn the absolute targets of x86 calls back to relative ones (2.2.2)."""
    last = len(out) - _NOT_TRANSLATED
    position = out.find(0xE8, 0, max(0, last))
    while position >= 0:
        target = int.from_bytes(out[position + 1 : position + 5], "little", signed=True)
        if -position <= target < _TRANSLATED_SIZE:
            target += -position if target >= 0 else _TRANSLATED_SIZE
            out[position + 1 : position + 5] = target.to_bytes(4, "little", signed=True)
        position = out.find(0xE8, position + 5, last)
    return bytes(out)
