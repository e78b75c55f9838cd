"""Devices whose chunks take turns."""

from collections.abc import Iterator, Sequence

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset
from restorefs.errors import DamagedError
from restorefs.volumes.devices.composed import Composed, Part


class Striped(Composed):
    """Chunk n of the device is chunk n // members of member n % members.

    Source: Linux, Documentation/admin-guide/device-mapper/striped.rst; RAID 0 of equal members is
    the same.
    """

    def __init__(
        self, members: Sequence[BlockDevice], chunk: ByteLength, size: ByteLength | None = None
    ) -> None:
        """Raises DamagedError where `size` bytes do not fit on the members; by default it is all
        whole chunks that the shortest of them allows on each."""
        if not members or chunk <= 0:
            raise DamagedError(f"{len(members)} stripes with chunks of {chunk} bytes")
        rows = min(member.size for member in members) // chunk
        room = rows * chunk * len(members)
        if size is not None and size > room:
            raise DamagedError(f"{size} bytes do not fit on stripes of {room} bytes together")
        self.members = tuple(members)
        self.chunk = chunk
        self.size = room if size is None else size

    def parts(self, offset: ByteOffset, length: ByteLength) -> Iterator[Part]:
        count, chunk = len(self.members), self.chunk
        number, skip = divmod(offset, chunk)
        while length:
            step = min(length, chunk - skip)
            yield Part(self.members[number % count], number // count * chunk + skip, step)
            length -= step
            number += 1
            skip = 0
