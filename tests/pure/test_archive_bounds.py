"""What archives and walks keep in memory, however much a guest has of everything."""

import io
import os
import stat
import zipfile
from collections.abc import Callable

import pytest
import trio

from restorefs.control import walking
from restorefs.control.pack_zip import ZipPacker
from restorefs.control.packing import Member, Room
from restorefs.control.unread import Unread
from restorefs.control.walking import Names, Walk
from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId

EMPTY = Attributes(1, stat.S_IFREG | 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0)
MIB = 1 << 20


async def fill(room: Room, files: int, sent: bytearray) -> None:
    """Make a zip of so many empty files."""

    async def put(piece: bytes) -> None:
        assert len(piece) <= MIB, "nothing is held twice as a whole"
        sent.extend(piece)

    with room.shared() as share:
        packer = ZipPacker(put, trio.CapacityLimiter(1), share)
        for number in range(files):
            await packer.begin(Member(b"folder/%08d" % number, EMPTY))
            await packer.end()
        await packer.finish()


async def test_the_directories_of_all_zips_share_their_room() -> None:
    room = Room(4 * MIB)
    sent = bytearray()
    await fill(room, 15_000, sent)
    with zipfile.ZipFile(io.BytesIO(sent)) as packed:
        assert len(packed.namelist()) == 15_000
    assert room.left == 4 * MIB, "it is given back"
    with room.shared() as other:
        assert other.take(3 * MIB)
        with pytest.raises(UnsupportedError, match="too many files for the zips under way"):
            await fill(room, 15_000, bytearray())
        assert room.left == MIB
    assert room.left == 4 * MIB


@pytest.mark.parametrize("path", [b"x" * 60_000, b"\xff" * 60_000])
def test_the_list_of_what_could_not_be_read_is_bounded(path: bytes) -> None:
    unread = Unread()
    for number in range(1000):
        unread.add(b"%d" % number + path, "why")
    text = unread.text()
    assert unread.count == 1000
    assert MIB / 2 < len(text) < 2 * MIB
    _, _, *lines, more = text.decode().splitlines()
    assert all(line.endswith(": why") for line in lines)
    assert more == f"and {1000 - len(lines)} more"


def folders(count: int) -> list[NodeId]:
    return [NodeId(number) for number in range(count)]


def test_a_folder_is_gone_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_MAX_FOLDERS", 10)
    walk = Walk()
    for folder in folders(10):
        walk.enter(folder, ())
    with pytest.raises(DamagedError, match="second place"):
        walk.enter(NodeId(0), ())
    walk.enter(NodeId(10), ())
    with pytest.raises(DamagedError, match="second place"):
        walk.enter(NodeId(0), ())
    walk.enter(NodeId(1), ())  # that is forgotten
    with pytest.raises(DamagedError, match="inside itself"):
        walk.enter(NodeId(2), (NodeId(2), NodeId(3)))


def refused(check: Callable[[], None]) -> str:
    with pytest.raises((DamagedError, UnsupportedError)) as raised:
        check()
    return str(raised.value)


def test_a_name_that_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_MAX_NAMES", 10)
    monkeypatch.setattr(walking, "_MAX_LINKS", 12)
    names = Names()
    names.open()
    for number in range(8):
        names.check(b"%d" % number, is_link=False)
    names.open()
    names.check(b"0", is_link=False)  # of another folder
    names.check(b"1", is_link=False)
    assert "twice" in refused(lambda: names.check(b"1", is_link=True))
    names.check(b"2", is_link=False)  # there is no room for it,
    names.check(b"2", is_link=False)  # so that nobody knows
    names.check(b"link", is_link=True)
    assert "twice" in refused(lambda: names.check(b"link", is_link=False)), "links always are known"
    names.check(os.urandom(8), is_link=True)
    assert "more than 12" in refused(lambda: names.check(b"another", is_link=True))
    names.close()
    names.check(b"another", is_link=True)
    assert "twice" in refused(lambda: names.check(b"7", is_link=False))
