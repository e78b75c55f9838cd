"""How owners, modes and attributes are shown."""

import stat

from restorefs.guestfs.base import Attributes
from restorefs.tree.presentation import Presentation

FILE = Attributes(12, stat.S_IFREG | 0o6755, 1, 1000, 1001, 0, 5, 8, 1, 2, 3)
LINK = FILE._replace(mode=stat.S_IFLNK | 0o777)
XATTRS = {
    b"user.note": b"n",
    b"security.capability": b"c",
    b"system.posix_acl_access": b"a",
    b"system.posix_acl_default": b"d",
}


def test_everything_is_the_guests_own_without_overrides() -> None:
    plain = Presentation()
    assert plain.attributes(FILE) == FILE
    assert plain.attributes(LINK) == LINK
    assert plain.xattrs(XATTRS) == XATTRS


def test_owners_are_overridden_also_by_root() -> None:
    assert Presentation(uid=0).attributes(FILE) == FILE._replace(uid=0)
    assert Presentation(gid=0).attributes(FILE) == FILE._replace(gid=0)
    assert Presentation(uid=7, gid=8).attributes(FILE) == FILE._replace(uid=7, gid=8)


def test_the_umask_takes_bits_away_from_every_mode_but_a_links() -> None:
    shown = Presentation(umask=0o4027)
    assert shown.attributes(FILE).mode == stat.S_IFREG | 0o2750
    assert shown.attributes(LINK) == LINK
    folder = FILE._replace(mode=stat.S_IFDIR | 0o777)
    assert shown.attributes(folder).mode == stat.S_IFDIR | 0o750


def test_acls_are_hidden_where_they_would_contradict_what_is_shown() -> None:
    for shown in (Presentation(uid=0), Presentation(gid=0), Presentation(umask=0)):
        assert set(shown.xattrs(XATTRS)) == {b"user.note", b"security.capability"}
