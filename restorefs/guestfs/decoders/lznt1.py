"""The LZNT1 decoder, for the compression units of NTFS.

Owns the format and the rules for what a unit leaves out. Pure: bytes in, bytes out. Must not know
where the bytes lie: finding out that a unit is compressed (fewer clusters are allocated than it
has), plain (all of them) or a hole (none) is the run list's business.

Every access is bounds-checked, compiled or not: what leaves its chunk is an IndexError. No index
can be negative, which the two forms would take differently.

Format: MS-XCA 2.5 (LZNT1) and the linux-ntfs documentation, "Compression".

Concurrency: keeps nothing. Compiled, it lets other threads run while it decodes.
"""

from array import array
from collections.abc import Sequence

import cython

from restorefs.errors import DamagedError

__all__ = ["CHUNK", "COMPILED", "decode"]

CHUNK = 4096
COMPILED: bool = cython.compiled

_CHUNK = cython.declare(cython.Py_ssize_t, CHUNK)
_REASONS = (
    "",
    "",  # -1 is an exception
    "there is no chunk where one should be",
    "a plain chunk is too short",
    "a reference leads out of its chunk",
    "nothing follows a byte of flags",
)


def decode(stored: bytes, bounds: Sequence[int], unit_size: int, size: int) -> bytearray:
    """Decode compression units that follow each other in a file.

    stored: the clusters that are allocated for them, fewer than the units have. What lies behind
    the end of the compressed data in a unit's clusters is not looked at.
    bounds: where each unit begins in `stored`, and where the last one ends.
    unit_size: the bytes that a unit stands for.
    size: the bytes that are wanted, at most those inside the file's valid data: all of each unit
    but the last. Exactly as many are returned.

    A chunk stands for 4096 bytes, or for what is left of `size`; a compressed one that holds fewer
    is filled up with zeros, and so is what comes after a marker of the end (a header of zero). A
    unit that begins with that marker holds nothing and is damaged: one of zeros only is a hole on
    NTFS. Raises DamagedError, also when a unit ends before its bytes without a marker.
    """
    if not 0 <= size <= (len(bounds) - 1) * unit_size:
        raise ValueError(f"{size} bytes of {len(bounds) - 1} units")
    out = bytearray(size + CHUNK)  # a chunk is decoded whole, though it be cut then
    try:
        places = memoryview(array("q", bounds))
        reason = _decode(memoryview(stored), places, unit_size, size, memoryview(out))
    except IndexError:
        reason = "a chunk ends early, or holds too much"
    if reason:
        raise DamagedError(f"compressed data (LZNT1) is damaged: {reason}")
    del out[size:]
    return out


@cython.cfunc
def _decode(
    stored: cython.const[cython.uchar][::1],
    bounds: cython.longlong[::1],
    unit_size: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    out: cython.uchar[::1],
) -> str:
    """Let other threads run, and decode. Returns what is wrong."""
    result: cython.Py_ssize_t
    with cython.nogil:
        result = _units(stored, bounds, unit_size, size, out)
    return _REASONS[-result]


@cython.cfunc
@cython.nogil
@cython.exceptval(-1)
def _units(
    stored: cython.const[cython.uchar][::1],
    bounds: cython.longlong[::1],
    unit_size: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    out: cython.uchar[::1],
) -> cython.Py_ssize_t:
    """Decode all units. Returns as _unit()."""
    result: cython.Py_ssize_t
    unit: cython.Py_ssize_t = 0
    done: cython.Py_ssize_t = 0
    while done < size:
        result = _unit(
            stored[bounds[unit] : bounds[unit + 1]],
            out[done:],
            min(unit_size, size - done),
        )
        if result < 0:
            return result
        unit += 1
        done += unit_size
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(-1)
def _unit(
    stored: cython.const[cython.uchar][::1], out: cython.uchar[::1], size: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Decode one unit. Returns 0, or the reason why not (less than -1).

    out: has room for a whole chunk behind the unit.
    """
    length: cython.Py_ssize_t = stored.shape[0]
    result: cython.Py_ssize_t
    header: cython.Py_ssize_t
    start: cython.Py_ssize_t
    end: cython.Py_ssize_t
    position: cython.Py_ssize_t = 0
    done: cython.Py_ssize_t = 0
    while done < size:
        start = position + 2
        if start > length:
            return -2
        header = stored[position] | stored[position + 1] << 8  # MS-XCA 2.5.1.2
        if header == 0 and done > 0:
            while done < size:
                out[done] = 0
                done += 1
            break
        end = start + (header & 0x0FFF) + 1
        if header & 0x7000 != 0x3000 or end > length:
            return -2
        if header & 0x8000:
            result = _chunk(stored[start:end], out[done : done + _CHUNK])
            if result < 0:
                return result
        elif end - start < min(_CHUNK, size - done):
            return -3
        else:
            out[done : done + end - start] = stored[start:end]
        done += _CHUNK
        position = end
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(-1)
def _chunk(stored: cython.const[cython.uchar][::1], out: cython.uchar[::1]) -> cython.Py_ssize_t:
    """Decode the data of one compressed chunk, and fill up with zeros (MS-XCA 2.5.1.3, 2.5.1.4).

    Groups of eight follow a byte of flags, the lowest first: clear for a byte as it is, set for a
    reference of 16 bits. The further the chunk, the more of these are how far back it leads (less
    one), four at first; the others are its length (less three).
    """
    end: cython.Py_ssize_t = stored.shape[0]
    room: cython.Py_ssize_t = out.shape[0]
    start: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    flags: cython.uint
    word: cython.uint
    position: cython.Py_ssize_t = 0
    done: cython.Py_ssize_t = 0
    length_bits: cython.uint = 12
    reach: cython.Py_ssize_t = 16
    while position < end:
        flags = 0x100 | stored[position]  # the bit above them tells when they are used up
        position += 1
        if position == end:
            return -5
        while flags > 1 and position < end:
            if not flags & 1:
                out[done] = stored[position]
                done += 1
                position += 1
            else:
                word = stored[position] | stored[position + 1] << 8
                position += 2
                while reach < done:
                    reach += reach
                    length_bits -= 1
                start = done - 1 - (word >> length_bits)
                stop = done + 3 + (word & ((1 << length_bits) - 1))
                if start < 0 or stop > room:
                    return -4
                if done + 8 <= room:
                    # Most are short: eight at once cost less than guessing where to stop. What is
                    # too much is written over by what follows, or by the zeros at the end.
                    out[done] = out[start]
                    out[done + 1] = out[start + 1]
                    out[done + 2] = out[start + 2]
                    out[done + 3] = out[start + 3]
                    out[done + 4] = out[start + 4]
                    out[done + 5] = out[start + 5]
                    out[done + 6] = out[start + 6]
                    out[done + 7] = out[start + 7]
                    done += 8
                    start += 8
                while done < stop:
                    out[done] = out[start]
                    done += 1
                    start += 1
                done = stop
            flags >>= 1
    while done < room:
        out[done] = 0
        done += 1
    return 0
