"""RAID 4, 5 and 6: data with one parity or two.

Owns reading data where it lies, and computing it from the rest where its member cannot be read.
Must not know whose RAID it is. Concurrency: as BlockDevice asks; nothing is kept.

Only a StorageError makes a member count as missing. What is out of date in a member must not be
readable there: whoever makes the array puts a Missing in its place.
"""

from collections.abc import Callable, Iterator, Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece
from restorefs.errors import DamagedError, StorageError
from restorefs.volumes.devices.composed import Composed, Part
from restorefs.volumes.devices.galois import inverse, power, scaled, summed
from restorefs.volumes.devices.mirrored import Mirrored
from restorefs.volumes.devices.parity_layouts import Row, period, row_of

MAX_MEMBERS = 253
"""What dm-raid allows; Q has 255 different coefficients."""


Consistent = Callable[[ByteOffset, ByteLength], bool]


def _always(offset: ByteOffset, length: ByteLength) -> bool:
    return True


class Parity(Composed):
    """The data of an array; `layout` is a name in parity_layouts.

    consistent: whether parity fits the data in a range of the members. Where it may not (it was
    never made, or a write was going on) nothing is computed from it.
    """

    def __init__(
        self,
        members: Sequence[BlockDevice],
        chunk: ByteLength,
        layout: str,
        size: ByteLength | None = None,
        consistent: Consistent = _always,
    ) -> None:
        """Raises DamagedError where `size` bytes do not fit, or the layout needs more members."""
        if not 2 <= len(members) <= MAX_MEMBERS or chunk <= 0:
            raise DamagedError(f"{layout} on {len(members)} members with chunks of {chunk} bytes")
        self.layout = layout
        self.chunk = chunk
        self.raw = tuple(members)
        self.consistent = consistent
        self._period = period(layout, len(members))
        self._data_count = len(self.row(0).data)
        rows = min(member.size for member in members) // chunk
        room = rows * chunk * self._data_count
        if size is not None and size > room:
            raise DamagedError(f"{size} bytes do not fit on an array of {room} bytes")
        self.size = room if size is None else size
        self._members = [
            Mirrored([member, Rebuilt(self, index)], rows * chunk)
            for index, member in enumerate(members)
        ]

    def row(self, number: int) -> Row:
        """Return what lies where in a row of chunks."""
        return row_of(self.layout, number % self._period, len(self.raw))

    def parts(self, offset: ByteOffset, length: ByteLength) -> Iterator[Part]:
        chunk = self.chunk
        number, skip = divmod(offset, chunk)
        while length:
            step = min(length, chunk - skip)
            row, index = divmod(number, self._data_count)
            yield Part(self._members[self.row(row).data[index]], row * chunk + skip, step)
            length -= step
            number += 1
            skip = 0


class Rebuilt(BlockDevice):
    """What a member of an array should hold, computed from the others."""

    def __init__(self, array: Parity, index: int) -> None:
        self._array = array
        self._index = index
        self.size = array.raw[index].size

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        """Say that the range is computed; StorageError where too many members are missing."""
        self.check_range(offset, length)
        for row, start, count in self._rows(offset, length):
            missing = (
                self._index,
                *[
                    number
                    for number, member in enumerate(self._array.raw)
                    if number != self._index and not await _is_there(member, start, count)
                ],
            )
            self._check(row, missing)
        return [Piece(self, offset, length)]

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        for number, member in enumerate(self._array.raw):
            if number != self._index:
                member.expect(offset, length)
        return b"".join([await self._rebuild(*place) for place in self._rows(offset, length)])

    def _rows(
        self, offset: ByteOffset, length: ByteLength
    ) -> Iterator[tuple[Row, ByteOffset, ByteLength]]:
        """Yield the rows that a range of a member touches, each with its part of the range."""
        chunk = self._array.chunk
        if not self._array.consistent(offset, length):
            raise StorageError(
                f"the parity of a {self._array.layout} array is not up to date where it is needed"
                " in place of a missing member"
            )
        if self._array.row(0).q is None:  # P is the sum of the rest, wherever in the row it is
            yield self._array.row(0), offset, length
            return
        while length:
            step = min(length, chunk - offset % chunk)
            yield self._array.row(offset // chunk), offset, step
            offset += step
            length -= step

    def _check(self, row: Row, missing: Sequence[int]) -> None:
        """Raise StorageError where more is missing than the parity replaces."""
        if len(missing) > (1 if row.q is None else 2):
            raise StorageError(
                f"{len(missing)} of the {len(self._array.raw)} members of a {self._array.layout}"
                " array are missing or not up to date"
            )

    async def _rebuild(self, row: Row, offset: ByteOffset, length: ByteLength) -> bytes:
        chunks: dict[int, bytes] = {}
        missing = [self._index]
        # Q is read only if something else is missing too.
        numbers = [number for number in range(len(self._array.raw)) if number != self._index]
        for number in sorted(numbers, key=lambda number: number == row.q):
            if number == row.q and missing == [self._index]:
                break
            try:
                chunks[number] = await self._array.raw[number].read(offset, length)
            except StorageError:
                missing.append(number)
                self._check(row, missing)
        if missing == [self._index] and self._index != row.q:
            return summed(chunks.values(), length)
        return _by_q(row, chunks, missing, length)


def _by_q(row: Row, chunks: dict[int, bytes], missing: Sequence[int], length: int) -> bytes:
    """Return the first of two missing chunks, or Q, which never holds data itself."""
    wanted, *others = missing
    data = {number: chunk for number, chunk in chunks.items() if number not in (row.p, row.q)}
    if wanted == row.q or row.q in others or row.q not in chunks:
        raise DamagedError("a chunk of an array is wanted that nothing asks for")
    own = row.powers[wanted]
    weighed = [scaled(chunk, power(row.powers[number] or 0)) for number, chunk in data.items()]
    q_rest = summed([chunks[row.q], *weighed], length)
    if others == [row.p]:
        assert own is not None
        return scaled(q_rest, inverse(power(own)))
    # Two of data: with a and b their coefficients, x + y = p_rest and a*x + b*y = q_rest.
    other = row.powers[others[0]]
    assert own is not None
    assert other is not None
    p_rest = summed([chunks[row.p], *data.values()], length)
    total = summed([q_rest, scaled(p_rest, power(other))], length)
    return scaled(total, inverse(power(own) ^ power(other)))


async def _is_there(member: BlockDevice, offset: ByteOffset, length: ByteLength) -> bool:
    try:
        await member.map(offset, length)
    except StorageError:
        return False
    return True
