"""The LZX decoder, for chunks of up to 32 KiB as the Windows Overlay Filter and WIM files have.

Owns the format. Pure: bytes in, bytes out. It is our own because libfwnt's (20260602) fails for
blocks without long matches and gives wrong bytes near a chunk's end and in uncompressed blocks.

Every access is bounds-checked, compiled or not: what lies behind the stream's end is an IndexError.
No index can be negative, which the two forms would take differently.

Format: MS-PATCH, section 2 (LZX DELTA), with what "WIM Compression" (coderforlife.com) lists as
different: a window of 32 KiB; a block's size is one bit (set: 32 KiB) or that bit and 16 more; the
aligned offset tree comes first; no header, as call translation is always on, for a file size of
12,000,000; every chunk begins anew. The overlay filter's chunks are the same as a WIM's.

Concurrency: keeps nothing. Compiled, it lets other threads run while it decodes.
"""

import sys
from array import array

import cython

from restorefs.errors import DamagedError

__all__ = ["COMPILED", "MAX_CHUNK", "decode"]

MAX_CHUNK = 32768
COMPILED: bool = cython.compiled

_VERBATIM = cython.declare(cython.Py_ssize_t, 1)  # block types (2.3.1.1)
_ALIGNED = cython.declare(cython.Py_ssize_t, 2)
_UNCOMPRESSED = cython.declare(cython.Py_ssize_t, 3)
_LITERALS = cython.declare(cython.Py_ssize_t, 256)
_SLOTS = 30  # for a window of 32 KiB (2.4)
_MAIN = cython.declare(cython.Py_ssize_t, 256 + 8 * _SLOTS)
_LENGTHS = cython.declare(cython.Py_ssize_t, 249)
_PRETREE = cython.declare(cython.Py_ssize_t, 20)
_LARGEST_TABLE = 1 << 16  # of codes of 16 bits
_MAX_CODE_LENGTH = cython.declare(cython.Py_ssize_t, 16)
_LARGEST = cython.declare(cython.Py_ssize_t, MAX_CHUNK)
_TRANSLATED_SIZE = cython.declare(cython.Py_ssize_t, 12_000_000)
_LARGEST_SIGNED = cython.declare(cython.Py_ssize_t, (1 << 31) - 1)
_NOT_TRANSLATED = cython.declare(cython.Py_ssize_t, 10)  # bytes at a chunk's end (2.2.2)

_REASONS = (
    "",
    "",  # -1 is an exception
    "ends too early",
    "has a block of an unknown type",
    "has a block of a wrong size",
    "has a tree without codes",
    "has a damaged tree",
    "has a tree that is not complete",
    "uses a length or an offset without a code",
    "refers to bytes outside its chunk",
)


def decode(data: bytes, size: int) -> bytes:
    """Decode one chunk to exactly `size` bytes, at most MAX_CHUNK. Raises DamagedError."""
    if not 0 < size <= MAX_CHUNK:
        raise DamagedError(f"a chunk (LZX) of {size} bytes")
    out = bytearray(size)
    try:
        reason = _Decoder(data, out).run()
    except IndexError:
        reason = _REASONS[2]
    if reason:
        raise DamagedError(f"compressed data (LZX) {reason}")
    return bytes(out)


@cython.final
@cython.cclass
class _Decoder:
    """One chunk on its way. Methods return a negative reason where they find something wrong.

    words: the stream's bits, in words of 16, the highest one first (2.1), with two of zeros behind
    the last one; a decoder that goes on behind these ends with an IndexError, or is seen to be
    behind the end. position: counts bits. done: counts the bytes of `out` that are there.
    *_table: by the next *_bits of the stream: symbol << 5 | bits of its code; *_bits is 0 where
    there are no codes.
    """

    data: cython.const[cython.uchar][::1]
    words: cython.ushort[::1]
    out: cython.uchar[::1]
    main_lengths: cython.uchar[::1]
    length_lengths: cython.uchar[::1]
    pretree_lengths: cython.uchar[::1]
    aligned_lengths: cython.uchar[::1]
    main_table: cython.int[::1]
    length_table: cython.int[::1]
    pretree_table: cython.int[::1]
    aligned_table: cython.int[::1]
    places: cython.longlong[::1]
    position: cython.Py_ssize_t
    end: cython.Py_ssize_t
    size: cython.Py_ssize_t
    done: cython.Py_ssize_t
    recent0: cython.Py_ssize_t
    recent1: cython.Py_ssize_t
    recent2: cython.Py_ssize_t

    def __init__(self, data: bytes, out: bytearray) -> None:
        words = array("H", data + bytes(4 + len(data) % 2))
        if sys.byteorder != "little":
            words.byteswap()
        self.data = memoryview(data)
        self.words = memoryview(words)
        self.out = memoryview(out)
        self.main_lengths = memoryview(bytearray(_MAIN))
        self.length_lengths = memoryview(bytearray(_LENGTHS))
        self.pretree_lengths = memoryview(bytearray(_PRETREE))
        self.aligned_lengths = memoryview(bytearray(8))
        self.main_table = _new_table(_LARGEST_TABLE)
        self.length_table = _new_table(_LARGEST_TABLE)
        self.pretree_table = _new_table(1 << 15)  # as its lengths have four bits
        self.aligned_table = _new_table(1 << 7)
        self.places = memoryview(array("q", bytes(8 * (_MAX_CODE_LENGTH + 1))))
        self.position = 0
        self.end = 8 * len(data)
        self.size = len(out)
        self.done = 0
        self.recent0 = self.recent1 = self.recent2 = 1

    def run(self) -> str:
        """Let other threads run, and decode. Returns what is wrong."""
        result: cython.Py_ssize_t
        with cython.nogil:
            result = self.blocks()
            if result == 0:
                result = self.undo_call_translation()
        return _REASONS[-result]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def bits(self, count: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Take up to 16 bits."""
        found: cython.Py_ssize_t = self.next(count)
        self.position += count
        return found

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def blocks(self) -> cython.Py_ssize_t:
        kind: cython.Py_ssize_t
        length: cython.Py_ssize_t
        result: cython.Py_ssize_t
        while self.done < self.size:
            kind = self.bits(3)
            length = _LARGEST if self.bits(1) else self.bits(16)
            if not _VERBATIM <= kind <= _UNCOMPRESSED:
                return -3
            if not 0 < length <= self.size - self.done:
                return -4
            if kind == _UNCOMPRESSED:
                result = self.copy(length)
            else:
                result = self.block(self.done + length, kind == _ALIGNED)
            if result < 0:
                return result
            if self.position > self.end:
                return -2
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def copy(self, length: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Take an uncompressed block (2.3.2.1): 1 to 16 bits of padding, the recent offsets, the
        bytes, and one more if they are an odd number."""
        start: cython.Py_ssize_t = (self.position // 16 + 1) * 2
        index: cython.Py_ssize_t
        if start + 12 + length > self.data.shape[0]:
            return -2
        self.recent0 = _number(self.data, start)
        self.recent1 = _number(self.data, start + 4)
        self.recent2 = _number(self.data, start + 8)
        start += 12
        for index in range(length):
            self.out[self.done + index] = self.data[start + index]
        self.done += length
        self.position = 8 * (start + length)
        if length % 2 and self.done < self.size:
            self.position += 8
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def block(self, stop: cython.Py_ssize_t, aligned: cython.bint) -> cython.Py_ssize_t:
        """Decode a verbatim or an aligned offset block (2.3.2.2, 2.3.2.3, 2.6)."""
        main_bits: cython.Py_ssize_t
        length_bits: cython.Py_ssize_t
        aligned_bits: cython.Py_ssize_t = 0
        result: cython.Py_ssize_t
        index: cython.Py_ssize_t
        if aligned:
            for index in range(8):
                self.aligned_lengths[index] = self.bits(3)
            aligned_bits = self.fill(self.aligned_table, self.aligned_lengths)
            if aligned_bits < 0:
                return aligned_bits
        result = self.read_lengths(self.main_lengths, 0, _LITERALS)
        if result == 0:
            result = self.read_lengths(self.main_lengths, _LITERALS, _MAIN)
        if result == 0:
            result = self.read_lengths(self.length_lengths, 0, _LENGTHS)
        if result < 0:
            return result
        main_bits = self.fill(self.main_table, self.main_lengths)
        if main_bits <= 0:
            return main_bits if main_bits < 0 else -5
        length_bits = self.fill(self.length_table, self.length_lengths)
        if length_bits < 0:
            return length_bits
        return self.symbols(stop, main_bits, length_bits, aligned, aligned_bits)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def symbols(
        self,
        stop: cython.Py_ssize_t,
        main_bits: cython.Py_ssize_t,
        length_bits: cython.Py_ssize_t,
        aligned: cython.bint,
        aligned_bits: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """Decode the content of a block (2.6)."""
        out: cython.uchar[::1] = self.out
        main_table: cython.int[::1] = self.main_table
        length_table: cython.int[::1] = self.length_table
        done: cython.Py_ssize_t = self.done
        recent0: cython.Py_ssize_t = self.recent0
        recent1: cython.Py_ssize_t = self.recent1
        recent2: cython.Py_ssize_t = self.recent2
        code: cython.Py_ssize_t
        found: cython.Py_ssize_t
        length: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        footer: cython.Py_ssize_t
        offset: cython.Py_ssize_t
        start: cython.Py_ssize_t
        while done < stop:
            code = main_table[self.next(main_bits)]
            self.position += code & 31
            code >>= 5
            if code < _LITERALS:
                out[done] = code
                done += 1
                continue
            length = (code & 7) + 2
            if length == 9:
                if length_bits == 0:
                    return -8
                found = length_table[self.next(length_bits)]
                self.position += found & 31
                length += found >> 5
            slot = (code - _LITERALS) >> 3
            if slot > 2:
                footer = 0 if slot < 4 else (slot - 2) >> 1
                # What all slots before it reach, less two: 2**footer for each, in pairs from 4 on.
                offset = slot - 2 if slot < 4 else ((2 + (slot & 1)) << footer) - 2
                if aligned and footer > 2:
                    if aligned_bits == 0:
                        return -8
                    offset += self.bits(footer - 3) << 3
                    found = self.aligned_table[self.next(aligned_bits)]
                    self.position += found & 31
                    offset += found >> 5
                else:
                    offset += self.bits(footer)
                recent2 = recent1
                recent1 = recent0
                recent0 = offset
            elif slot == 1:
                offset = recent1
                recent1 = recent0
                recent0 = offset
            elif slot == 2:
                offset = recent2
                recent2 = recent0
                recent0 = offset
            start = done - recent0
            if start < 0 or start == done or done + length > stop:
                return -9
            length += done
            while done < length:
                out[done] = out[start]
                done += 1
                start += 1
        self.done = done
        self.recent0, self.recent1, self.recent2 = recent0, recent1, recent2
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def next(self, count: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Return the next bits, up to 16, without taking them."""
        word: cython.Py_ssize_t = self.position >> 4
        window: cython.Py_ssize_t = self.words[word]
        window = window << 16 | self.words[word + 1]
        return window >> (32 - count - (self.position & 15)) & ((1 << count) - 1)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def read_lengths(
        self, lengths: cython.uchar[::1], first: cython.Py_ssize_t, stop: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Bring the code lengths of a tree up to date (2.5): each is stored as the difference to
        that of the block before, coded by a tree of its own."""
        index: cython.Py_ssize_t
        behind: cython.Py_ssize_t
        bits: cython.Py_ssize_t
        found: cython.Py_ssize_t
        code: cython.Py_ssize_t
        run: cython.Py_ssize_t
        value: cython.Py_ssize_t
        for index in range(_PRETREE):
            self.pretree_lengths[index] = self.bits(4)
        bits = self.fill(self.pretree_table, self.pretree_lengths)
        if bits <= 0:
            return bits if bits < 0 else -5
        index = first
        while index < stop:
            found = self.pretree_table[self.next(bits)]
            self.position += found & 31
            code = found >> 5
            run = 1
            value = 0
            if code == 17:
                run = 4 + self.bits(4)
            elif code == 18:
                run = 20 + self.bits(5)
            else:
                if code == 19:
                    run = 4 + self.bits(1)
                    found = self.pretree_table[self.next(bits)]
                    self.position += found & 31
                    code = found >> 5
                    if code > 16:
                        return -6
                value = lengths[index] - code
                if value < 0:
                    value += 17
            behind = index + run
            if behind > stop:
                return -6
            while index < behind:
                lengths[index] = value
                index += 1
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def fill(self, table: cython.int[::1], lengths: cython.uchar[::1]) -> cython.Py_ssize_t:
        """Make a table of a canonical code: codes are given out by length, then by symbol (2.5).
        Returns how many bits index it, 0 without any code."""
        places: cython.longlong[::1] = self.places
        symbol: cython.Py_ssize_t
        length: cython.Py_ssize_t
        count: cython.Py_ssize_t
        place: cython.Py_ssize_t
        behind: cython.Py_ssize_t
        longest: cython.Py_ssize_t = 0
        for length in range(_MAX_CODE_LENGTH + 1):
            places[length] = 0
        for symbol in range(lengths.shape[0]):
            length = lengths[symbol]
            places[length] += 1
            longest = max(longest, length)
        if longest == 0:
            return 0
        place = 0
        for length in range(1, longest + 1):
            count = places[length]
            places[length] = place
            place += count << (longest - length)
        if place != 1 << longest:
            return -7
        for symbol in range(lengths.shape[0]):
            length = lengths[symbol]
            if length:
                place = places[length]
                behind = place + (1 << (longest - length))
                places[length] = behind
                while place < behind:
                    table[place] = symbol << 5 | length
                    place += 1
        return longest

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1)
    def undo_call_translation(self) -> cython.Py_ssize_t:
        """Turn the absolute targets of x86 calls back to relative ones (2.2.2)."""
        out: cython.uchar[::1] = self.out
        last: cython.Py_ssize_t = self.size - _NOT_TRANSLATED
        target: cython.Py_ssize_t
        position: cython.Py_ssize_t = 0
        while position < last:
            if out[position] != 0xE8:
                position += 1
                continue
            target = _number(out, position + 1)
            if target > _LARGEST_SIGNED:
                target -= 2 * (_LARGEST_SIGNED + 1)
            if -position <= target < _TRANSLATED_SIZE:
                target += -position if target >= 0 else _TRANSLATED_SIZE
                out[position + 1] = target & 0xFF
                out[position + 2] = target >> 8 & 0xFF
                out[position + 3] = target >> 16 & 0xFF
                out[position + 4] = target >> 24 & 0xFF
            position += 5
        return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(-1)
def _number(
    data: cython.const[cython.uchar][::1], position: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Return the number of 32 bits at a position, without a sign."""
    number: cython.Py_ssize_t = data[position + 3]
    number = number << 8 | data[position + 2]
    number = number << 8 | data[position + 1]
    return number << 8 | data[position]


def _new_table(entries: int) -> memoryview:
    return memoryview(bytearray(4 * entries)).cast("i")
