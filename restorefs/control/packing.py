"""What an archive format is to whoever fills one.

Owns the seam between archive.py, which walks folders, and the formats, and what formats keep in
memory until an archive's end. Must not know either side.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import trio

from restorefs.guestfs.base import Attributes

Put = Callable[[bytes], Awaitable[None]]


class Member(NamedTuple):
    """A file of an archive; `name` without a slash at its begin or end."""

    name: bytes
    attributes: Attributes


class Room:
    """The memory, in bytes, that all archives under way may keep until their end, together."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextmanager
    def shared(self) -> "Iterator[Share]":
        """Have a share of it, which grows by what is taken; it is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.left += share.taken


class Share:
    """What one archive has taken."""

    def __init__(self, room: Room) -> None:
        self.taken = 0
        self._room = room

    def take(self, size: int) -> bool:
        """Take some more; say whether there is so much."""
        if size > self._room.left:
            return False
        self._room.left -= size
        self.taken += size
        return True


class Packer(ABC):
    """Makes an archive, piece by piece; gives them to a `put`.

    For each member: begin(), data() as often as need be, end(). At the end: finish(). What was put
    then goes through encode() in the order it came, which may be done while others are put; behind
    it comes encode_end(). An archive that is to be seen as an incomplete one, by whatever way it
    came, has no finish(), and encode_cut() instead of encode_end().
    """

    media_type: ClassVar[str]
    suffix: ClassVar[str]
    has_hard_links: ClassVar[bool]
    """Whether a file with several names is stored once; begin() then gets them with `hard`."""

    @abstractmethod
    def __init__(self, put: Put, threads: trio.CapacityLimiter, share: Share) -> None:
        """`threads`: for what takes one; `share`: for what is kept until the end."""

    @abstractmethod
    async def begin(self, member: Member, target: bytes = b"", hard: bool = False) -> None:
        """Begin a member, of which attributes.size bytes follow if it is a file. `target`: where a
        link leads; `hard`: it is another name of the member `target`. Raises UnsupportedError,
        and has put nothing then, for a member that the format cannot have."""

    @abstractmethod
    async def data(self, piece: bytes) -> None:
        """Put some content."""

    @abstractmethod
    async def end(self) -> None:
        """End a member."""

    @abstractmethod
    async def finish(self) -> None:
        """Put what comes behind the last member."""

    async def encode(self, piece: bytes) -> bytes:
        """Return what is sent for what was put."""
        return piece

    def encode_end(self) -> bytes:
        """Return what is sent behind everything."""
        return b""

    def encode_cut(self) -> bytes:
        """Return what is held back of what was put, where the archive is cut off behind it."""
        return b""
