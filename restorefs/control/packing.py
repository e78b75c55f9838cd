"""What an archive format is to whoever fills one.

Owns the seam between archive.py, which walks folders, and the formats. Must not know either.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple

from restorefs.guestfs.base import Attributes

Put = Callable[[bytes], Awaitable[None]]


class Member(NamedTuple):
    """A file of an archive; `name` without a slash at its begin or end."""

    name: bytes
    attributes: Attributes


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
    async def begin(self, member: Member, target: bytes = b"", hard: bool = False) -> None:
        """Begin a member, of which attributes.size bytes follow if it is a file. `target`: where a
        link leads; `hard`: it is another name of the member `target`."""

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
