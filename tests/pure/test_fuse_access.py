"""Who is let in by the access that makes a disk's root known, and who has to look again."""

import errno
import os
import socket
import stat
from collections.abc import Mapping

import pytest

from restorefs.errors import GoneError
from restorefs.fuse import access
from restorefs.fuse.operations import Operations
from restorefs.fuse.protocol import HEADER, REPLY_HEADER, Opcode
from restorefs.fuse.request import Request
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId, above
from restorefs.tree.presentation import Presentation
from restorefs.tree.tree import Batch, Entry, Tree

DISK = above(b"backups/b1/disk0")
NO_PROCESS = 0
PLAIN = Attributes(0, stat.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 0, 0, 0, 0)
ACL = {b"system.posix_acl_access": b"..."}


def root(mode: int, uid: int = 26, gid: int = 27) -> Attributes:
    return PLAIN._replace(mode=stat.S_IFDIR | mode, uid=uid, gid=gid)


class OneDisk(Tree):
    """A disk whose root is known once it was looked into."""

    def __init__(self, known: Attributes | None, xattrs: Mapping[bytes, bytes]) -> None:
        self._known = known
        self._xattrs = xattrs
        self._shown: Attributes | None = PLAIN
        self._presentation = Presentation()

    def check_there(self, node: NodeId) -> None:
        pass

    def may_wait(self, node: NodeId) -> bool:
        return True

    def disk_attributes(self, node: NodeId) -> Attributes | None:
        return self._shown

    async def lookup(self, parent: NodeId, name: bytes) -> Entry:
        self._shown = self._known
        return Entry(NodeId(77), PLAIN, 1)

    async def readdir(self, node: NodeId, cookie: int = 0) -> Batch:
        self._shown = self._known
        return Batch([], complete=True)

    async def parent(self, node: NodeId) -> NodeId:
        return node

    async def xattrs(self, node: NodeId) -> Mapping[bytes, bytes]:
        if self._shown is None:
            raise GoneError("this backup is no longer in the catalog")
        return self._xattrs


async def answer(tree: Tree, opcode: Opcode, who: tuple[int, int, int], body: bytes = b"") -> int:
    """Return the errno that a request gets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        header = HEADER.pack(HEADER.size + len(body), opcode, 5, DISK, *who, 0, 0)
        request = Request(ours.fileno(), header + body, 0)
        answering = Operations(tree).handlers[opcode](request)
        try:
            if answering is not None:
                await answering
        except Exception as error:  # noqa: BLE001 - as the server does
            request.fail_with(error)
        _, number, _ = REPLY_HEADER.unpack_from(theirs.recv(1 << 16))
    return -int(number)


@pytest.mark.parametrize(
    ("mode", "xattrs", "uid", "gid", "searched", "listed"),
    [
        (0o755, {}, 1000, 1000, 0, 0),
        (0o751, {}, 1000, 1000, 0, errno.ESTALE),
        (0o700, {}, 1000, 1000, errno.ESTALE, errno.ESTALE),
        (0o700, {}, 26, 1000, 0, 0),
        (0o100, {}, 26, 1000, 0, errno.ESTALE),
        (0o077, {}, 26, 27, errno.ESTALE, errno.ESTALE),
        (0o750, {}, 1000, 27, 0, 0),
        (0o705, {}, 1000, 27, errno.ESTALE, errno.ESTALE),
        (0o705, {}, 1000, 1000, errno.ESTALE, errno.ESTALE),  # may be in the group, too
        (0o750, {}, 1000, 1000, errno.ESTALE, errno.ESTALE),
        (0o755, ACL, 1000, 1000, errno.ESTALE, errno.ESTALE),
        (0o755, ACL, 26, 1000, 0, 0),  # what the mode says of the owner, the ACL says, too
        (0o700, {}, 0, 0, errno.ESTALE, errno.ESTALE),  # of which nothing is known
    ],
)
async def test_who_looks_first(
    mode: int, xattrs: Mapping[bytes, bytes], uid: int, gid: int, searched: int, listed: int
) -> None:
    who = (uid, gid, NO_PROCESS)
    assert await answer(OneDisk(root(mode), xattrs), Opcode.LOOKUP, who, b"s\0") == searched
    assert await answer(OneDisk(root(mode), xattrs), Opcode.OPENDIR, who) == listed


async def test_root_needs_its_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    who = (0, 0, os.getpid())
    for capabilities, expected in ((1 << 1, 0), (1 << 2, 0), (1 << 3, errno.ESTALE)):
        monkeypatch.setattr(access, "_capabilities", lambda pid, found=capabilities: found)
        assert await answer(OneDisk(root(0o700), {}), Opcode.OPENDIR, who) == expected


def test_capabilities_are_those_of_the_process() -> None:
    with open("/proc/self/status") as status:
        (line,) = [line for line in status if line.startswith("CapEff")]
    assert access._capabilities(os.getpid()) == int(line.split()[1], 16)
    assert access._capabilities(NO_PROCESS) == 0


async def test_nobody_looks_again_where_nothing_has_changed() -> None:
    assert await answer(OneDisk(PLAIN, ACL), Opcode.OPENDIR, (1000, 1000, NO_PROCESS)) == 0


async def test_a_backup_that_went_meanwhile() -> None:
    assert await answer(OneDisk(None, {}), Opcode.OPENDIR, (0, 0, NO_PROCESS)) == errno.ESTALE
