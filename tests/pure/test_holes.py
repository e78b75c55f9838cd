"""Finding holes and data by a map, against a plain walk over the same layout."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import NoDataError
from restorefs.guestfs.base import Extent
from restorefs.tree.holes import find_data, find_hole

MIB = 1 << 20


class File:
    """A file that is data ("d"), hole ("h") or encoded ("e") in runs; counts what is asked."""

    def __init__(self, *runs: tuple[str, int]) -> None:
        self.runs = runs
        self.size = sum(length for _, length in runs)
        self.asked: list[tuple[int, int]] = []

    async def extents(self, offset: int, length: int) -> list[Extent]:
        assert 0 <= offset < offset + length <= self.size
        self.asked.append((offset, length))
        found, begin = [], 0
        for kind, size in self.runs:
            low, high = max(offset, begin), min(offset + length, begin + size)
            if low < high:
                found.append(Extent(2 * low if kind == "d" else None, high - low, kind == "e"))
            begin += size
        return found

    def expected(self, start: int, kinds: str) -> int | None:
        begin = 0
        for kind, size in self.runs:
            if start < begin + size and kind in kinds:
                return max(start, begin)
            begin += size
        return None


@given(
    st.lists(
        st.tuples(st.sampled_from("dhe"), st.sampled_from([1, 4096, 70_000, MIB, 700 * MIB])),
        max_size=8,
    ),
    st.integers(-3, 3),
)
async def test_any_layout(runs: list[tuple[str, int]], near: int) -> None:
    file = File(*runs)
    for end in itertools.accumulate((size for _, size in runs), initial=0):
        start = end + near
        inside = 0 <= start < file.size
        data = file.expected(start, "de") if inside else None
        if data is None:
            with pytest.raises(NoDataError):
                await find_data(file.extents, file.size, start)
        else:
            assert await find_data(file.extents, file.size, start) == data
        if inside:
            hole = file.expected(start, "h")
            expected = file.size if hole is None else hole
            assert await find_hole(file.extents, file.size, start) == expected
        else:
            with pytest.raises(NoDataError):
                await find_hole(file.extents, file.size, start)


@pytest.mark.parametrize("size", [1 << 30, 1 << 40, (1 << 63) - 1])
async def test_a_hole_of_any_size_takes_few_steps(size: int) -> None:
    file = File(("h", size - 1), ("d", 1))
    assert await find_data(file.extents, size, 0) == size - 1
    assert len(file.asked) < 3000


async def test_what_is_near_is_found_by_looking_near() -> None:
    """A file in pieces is not walked to its end for each of them."""
    file = File(*[("d", 4096), ("h", 4096)] * 100, ("d", 1 << 40))
    assert await find_hole(file.extents, file.size, 0) == 4096
    assert file.asked == [(0, MIB)]
