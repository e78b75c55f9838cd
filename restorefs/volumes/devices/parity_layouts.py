"""Where RAID 4, 5 and 6 put data and parity.

Pure: numbers in, numbers out. Sources: Linux, Documentation/admin-guide/device-mapper/dm-raid.rst
(the names); md(4) and SNIA's "Common RAID Disk Data Format", section 4.2 (the rotations).

A layout says, of a row of chunks on `count` members: which members hold P and Q, and which ones the
data chunks, in order; and in which order Q's calculation counts the data, for the coefficient of
the chunk with number n there is 2**n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from restorefs.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Row:
    """One row. p, q: member numbers; q is None without a second parity. data: the members of the
    data chunks in order. powers: for each member its exponent in Q, None for P and Q."""

    p: int
    q: int | None
    data: tuple[int, ...]
    powers: tuple[int | None, ...]


Placing = Callable[[int, int], tuple[int, int | None, list[int]]]
"""From the row's number modulo the count, and the count: p, q, data."""


def _from(start: int, count: int, without: set[int | None]) -> list[int]:
    """Return all members from `start` on, around, but some."""
    around = [(start + n) % count for n in range(count)]
    return [member for member in around if member not in without]


def _left(row: int, count: int) -> int:
    return count - 1 - row % count


def _right(row: int, count: int) -> int:
    return row % count


def _asymmetric5(p_of: Callable[[int, int], int]) -> Placing:
    def place(row: int, count: int) -> tuple[int, int | None, list[int]]:
        p = p_of(row, count)
        return p, None, _from(0, count, {p})

    return place


def _symmetric5(p_of: Callable[[int, int], int]) -> Placing:
    def place(row: int, count: int) -> tuple[int, int | None, list[int]]:
        p = p_of(row, count)
        return p, None, _from(p + 1, count, {p})

    return place


def _last5(row: int, count: int) -> tuple[int, int | None, list[int]]:
    return count - 1, None, list(range(count - 1))


def _asymmetric6(p_of: Callable[[int, int], int]) -> Placing:
    """Q follows P; data takes what is left, from member 0."""

    def place(row: int, count: int) -> tuple[int, int | None, list[int]]:
        p = p_of(row, count)
        q = (p + 1) % count
        return p, q, _from(0, count, {p, q})

    return place


def _symmetric6(p_of: Callable[[int, int], int]) -> Placing:
    """Q follows P, and data Q."""

    def place(row: int, count: int) -> tuple[int, int | None, list[int]]:
        p = p_of(row, count)
        q = (p + 1) % count
        return p, q, _from(q + 1, count, {p, q})

    return place


def _continued6(row: int, count: int) -> tuple[int, int | None, list[int]]:
    """P follows Q, and data P."""
    p = _left(row, count)
    q = (p - 1) % count
    return p, q, _from(p + 1, count, {p, q})


def _q_last(placing: Placing) -> Placing:
    """RAID 5 on all but the last member, which holds Q only."""

    def place(row: int, count: int) -> tuple[int, int | None, list[int]]:
        p, _, data = placing(row, count - 1)
        return p, count - 1, data

    return place


def _n_restart(row: int, count: int) -> int:
    return _left(row + 1, count)


def _first5(row: int, count: int) -> tuple[int, int | None, list[int]]:
    return 0, None, list(range(1, count))


LAYOUTS: dict[str, Placing] = {
    "raid4": _last5,
    "raid5_0": _first5,
    "raid5_n": _last5,
    "raid5_la": _asymmetric5(_left),
    "raid5_ra": _asymmetric5(_right),
    "raid5_ls": _symmetric5(_left),
    "raid5_rs": _symmetric5(_right),
    "raid6_zr": _asymmetric6(_right),
    "raid6_nr": _asymmetric6(_n_restart),
    "raid6_nc": _continued6,
    "raid6_la": _asymmetric6(_left),
    "raid6_ra": _asymmetric6(_right),
    "raid6_ls": _symmetric6(_left),
    "raid6_rs": _symmetric6(_right),
    "raid6_n_6": _q_last(_last5),
    "raid6_la_6": _q_last(_asymmetric5(_left)),
    "raid6_ra_6": _q_last(_asymmetric5(_right)),
    "raid6_ls_6": _q_last(_symmetric5(_left)),
    "raid6_rs_6": _q_last(_symmetric5(_right)),
}
"""By the names of dm-raid; raid6_la, _ra, _ls and _rs are MD's own."""

_COUNTS_MEMBERS = {"raid6_zr", "raid6_nr", "raid6_nc"}
"""Layouts whose Q gives every member, also those of P and Q, a number of its own."""


@lru_cache(maxsize=4096)
def row_of(layout: str, row: int, count: int) -> Row:
    """Return a row; rows repeat after `count` at the latest, so ask with row % period().

    Raises DamagedError where there are too few members for the layout.
    """
    # Two members, and three, are what conversions from and to RAID 1 and 5 pass through.
    if count < (3 if layout.startswith("raid6") else 2):
        raise DamagedError(f"{layout} on {count} members")
    p, q, data = LAYOUTS[layout](row, count)
    powers: list[int | None] = [None] * count
    if q is not None:
        order = range(count) if layout in _COUNTS_MEMBERS else _from(q + 1, count, {p, q})
        for power, member in enumerate(order):
            if member not in (p, q):
                powers[member] = power
    return Row(p, q, tuple(data), tuple(powers))


def period(layout: str, count: int) -> int:
    """Return after how many rows a layout repeats itself."""
    return count - 1 if layout.endswith("_6") else count
