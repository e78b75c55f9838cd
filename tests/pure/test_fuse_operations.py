"""What the request handlers do about walks: what is read when, and what is told where."""

import errno
import os
import socket
import struct

import pytest
import trio

from restorefs.errors import StorageError
from restorefs.fuse.operations import Operations
from restorefs.fuse.protocol import HEADER, REPLY_HEADER, Opcode
from restorefs.fuse.request import Request
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId, is_above
from restorefs.tree.presentation import Presentation, Profile
from restorefs.tree.tree import Batch, Entry, Listed, Tree

BELOW = {1: (2, 5, 8), 2: (3, 4), 3: (), 4: (), 5: (6, 7), 6: (), 7: (), 8: (9,), 9: ()}
FOLDERS = {100 + node: [100 + n for n in nodes] for node, nodes in BELOW.items()}
"""What is in each, numbered in the order of a walk."""
ABOVE = 1
FOLDER = Attributes(0, 0o040755, 2, 0, 0, 0, 0, 0, 0, 0, 0)
WALKER = 100


class Folders(Tree):
    """Lists FOLDERS."""

    def __init__(self, presentation: Presentation) -> None:
        self._presentation = presentation
        self.listed: list[int] = []
        self.broken: set[int] = set()

    def check_there(self, node: NodeId) -> None:
        pass

    def may_wait(self, node: NodeId) -> bool:
        return not is_above(node)

    def disk_attributes(self, node: NodeId) -> Attributes | None:
        return None

    async def readdir(self, node: NodeId, cookie: int = 0, *, stand_ins: bool = True) -> Batch:
        if is_above(node):
            return Batch([], complete=True)
        await trio.lowlevel.checkpoint()
        if node in self.broken:
            raise StorageError("a bad sector")
        self.listed.append(node)
        items = [Listed(b"%d" % n, Entry(NodeId(n), FOLDER, 1), n) for n in FOLDERS[node]]
        return Batch([item for item in items if item.cookie > cookie], complete=True)

    async def parent(self, node: NodeId) -> NodeId:
        return node


class Kernel:
    """Asks as the kernel does for a process that walks."""

    def __init__(self, presentation: Presentation | None = None) -> None:
        self.folders = Folders(presentation or Presentation())
        self._handlers = Operations(self.folders).handlers
        self.at_once = False
        """Whether the last request was answered without any wait."""

    async def _ask(self, opcode: Opcode, node: int, body: bytes) -> bytes:
        """Return the answer. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            header = HEADER.pack(HEADER.size + len(body), opcode, 1, node, 0, 0, WALKER, 0, 0)
            request = Request(theirs.fileno(), header + body, 0)
            answering = self._handlers[opcode](request)
            self.at_once = request.answered
            if answering is not None:
                try:
                    await answering
                except StorageError as error:
                    request.fail_with(error)
            answer = ours.recv(1 << 20)
        _, error, _ = REPLY_HEADER.unpack_from(answer)
        if error:
            raise OSError(-error, os.strerror(-error))
        return answer[REPLY_HEADER.size :]

    async def open(self, node: int) -> int:
        answer = await self._ask(Opcode.OPENDIR, node, struct.pack("=II", os.O_DIRECTORY, 0))
        (handle,) = struct.unpack_from("=Q", answer)
        return int(handle)

    async def names(self, node: int, handle: int) -> bytes:
        body = struct.pack("=QQIIQII", handle, 0, 32 << 10, 0, 0, 0, 0)
        return await self._ask(Opcode.READDIRPLUS, node, body)

    async def walk(self, *nodes: int, names: bool = True) -> list[bool]:
        """Visit folders; return for each whether it was open at once."""
        ready = []
        for node in nodes:
            handle = await self.open(node)
            ready.append(self.at_once)
            if names:
                await self.names(node, handle)
            await self._ask(Opcode.RELEASEDIR, node, struct.pack("=QIIQ", handle, 0, 0, 0))
        return ready


@pytest.mark.parametrize("names", [True, False], ids=["from us", "from the kernel's memory"])
async def test_a_walk_is_foreseen_wherever_the_names_come_from(names: bool) -> None:
    kernel = Kernel()
    assert await kernel.walk(*FOLDERS, names=names) == [False] * 3 + [True] * 6
    assert kernel.folders.listed == list(FOLDERS), "each once"


async def test_nothing_is_made_ready_before_the_names_are_told() -> None:
    kernel = Kernel()
    await kernel.walk(101, 102, 103)
    assert kernel.folders.listed == [101, 102, 103, 104, 105]
    handle = await kernel.open(104)
    assert kernel.folders.listed[5:] == []
    await kernel.names(104, handle)
    assert kernel.folders.listed[5:] == [106]


async def test_a_folder_above_that_broke_is_told_when_it_is_listed() -> None:
    kernel = Kernel()
    await kernel.walk(101, 102, 103, 104)
    kernel.folders.broken.add(101)
    handle = await kernel.open(101)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await kernel.names(101, handle)


async def test_who_hears_of_errors_in_opening_alone_has_a_folder_above_read_again() -> None:
    kernel = Kernel(Presentation(profile=Profile.SAMBA))
    await kernel.walk(101, 102, 103, 104)
    kernel.folders.broken.add(101)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await kernel.open(101)


async def test_what_is_above_the_disks_is_opened_at_once_also_in_a_walk() -> None:
    """There, no request may wait for a disk."""
    kernel = Kernel()
    kernel.folders.broken.add(104)
    await kernel.walk(101, 102, 103, names=False)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await kernel.open(104)
    assert await kernel.walk(ABOVE) == [True]
