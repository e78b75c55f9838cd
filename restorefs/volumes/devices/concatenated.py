"""Devices one behind the other."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.volumes.devices.composed import Composed, Part


class Concatenated(Composed):
    """The bytes of its parts, one part behind the other; a part without bytes counts for none."""

    def __init__(self, members: Sequence[BlockDevice]) -> None:
        self.members = tuple(member for member in members if member.size)
        self._ends = list(accumulate(member.size for member in self.members))
        self.size = self._ends[-1] if self._ends else 0

    def parts(self, offset: ByteOffset, length: ByteLength) -> Iterator[Part]:
        index = bisect_right(self._ends, offset)
        while length:
            member, end = self.members[index], self._ends[index]
            step = min(length, end - offset)
            yield Part(member, member.size - (end - offset), step)
            offset += step
            length -= step
            index += 1


def concatenated(members: Sequence[BlockDevice]) -> BlockDevice:
    """Return the members as one device: itself where it is only one."""
    return members[0] if len(members) == 1 else Concatenated(members)
