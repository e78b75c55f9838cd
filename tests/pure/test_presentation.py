"""How owners, modes and attributes are shown."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs import ntacl
from restorefs.guestfs.base import Attributes
from restorefs.tree.presentation import Presentation, Profile
from tests.images.ntfs import security_descriptor

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
    assert plain.xattrs(XATTRS, has_streams=False) == XATTRS


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
        assert set(shown.xattrs(XATTRS, False)) == {b"user.note", b"security.capability"}


# Profiles

NTFS = {
    b"system.ntfs_attrib_be": b"\0\0\0\x20",
    b"user.DOSATTRIB": b"0x20\0",
    b"user.Zone.Identifier": b"[ZoneTransfer]\r\n",
    b"user.empty": b"",
}
SAMBA = Presentation(profile=Profile.SAMBA)
PLAIN = Presentation(uid=7, gid=8, profile=Profile.PLAIN)


def test_streams_are_shown_where_samba_looks_for_them_and_there_alone() -> None:
    assert SAMBA.xattrs(NTFS, has_streams=True) == {
        b"system.ntfs_attrib_be": b"\0\0\0\x20",
        b"user.DOSATTRIB": b"0x20\0",
        b"user.DosStream.Zone.Identifier:$DATA": b"[ZoneTransfer]\r\n\0",
        b"user.DosStream.empty:$DATA": b"\0",
    }
    assert Presentation().xattrs(NTFS, has_streams=True) == NTFS


def test_a_linux_guests_attributes_are_its_own_in_the_samba_profile() -> None:
    guest = XATTRS | {b"security.NTACL": b"a server's own", b"user.DosStream.x:$DATA": b"y\0"}
    assert SAMBA.xattrs(guest, has_streams=False) == guest
    assert not SAMBA.overrides
    assert SAMBA.attributes(FILE) == FILE


def test_a_stream_too_large_for_an_attribute_is_left_out_and_never_cut() -> None:
    sizes = {b"user.fits": bytes(65_535), b"user.not": bytes(65_536)}
    names = {b"user." + b"n" * 234: b"", b"user." + b"m" * 235: b""}
    shown = SAMBA.xattrs(sizes | names, has_streams=True)
    assert {name: len(value) for name, value in shown.items()} == {
        b"user.DosStream.fits:$DATA": 65_536,
        b"user.DosStream." + b"n" * 234 + b":$DATA": 1,
    }
    assert max(map(len, shown)) == 255


def test_the_descriptor_is_shown_as_samba_keeps_it_also_with_an_owner_of_ours() -> None:
    descriptor = security_descriptor(3)
    for shown in (SAMBA, Presentation(uid=1, umask=0o77, profile=Profile.SAMBA)):
        found = shown.xattrs({b"system.ntfs_acl": descriptor}, has_streams=True)
        assert found[b"security.NTACL"] == ntacl.encode(descriptor)
        assert found[b"system.ntfs_acl"] == descriptor
    for shown in (Presentation(), PLAIN):
        assert set(shown.xattrs({b"system.ntfs_acl": b"d"}, True)) == {b"system.ntfs_acl"}


def test_nobody_is_let_in_by_a_descriptor_that_cannot_be_shown() -> None:
    with pytest.raises(DamagedError):
        SAMBA.xattrs({b"system.ntfs_acl": b"short"}, has_streams=True)


def test_plain_is_one_owner_and_one_mode() -> None:
    assert PLAIN.overrides
    assert PLAIN.attributes(FILE) == FILE._replace(uid=7, gid=8, mode=stat.S_IFREG | 0o644)
    assert PLAIN.attributes(LINK) == LINK._replace(uid=7, gid=8)
    for kind, mode in ((stat.S_IFDIR, 0o755), (stat.S_IFBLK, 0o644), (stat.S_IFSOCK, 0o644)):
        for own in (0, 0o7777):
            assert PLAIN.attributes(FILE._replace(mode=kind | own)).mode == kind | mode


def test_a_umask_goes_on_top_of_plain() -> None:
    shown = Presentation(uid=7, gid=8, umask=0o77, profile=Profile.PLAIN)
    assert shown.attributes(FILE).mode == stat.S_IFREG | 0o600
    assert shown.attributes(FILE._replace(mode=stat.S_IFDIR)).mode == stat.S_IFDIR | 0o700


def test_plain_has_nothing_that_lets_in_or_keeps_out() -> None:
    more = {b"trusted.overlay.opaque": b"y", b"security.selinux": b"s", b"security.NTACL": b"n"}
    assert PLAIN.xattrs(XATTRS | more | NTFS, has_streams=False) == {b"user.note": b"n"} | NTFS


# Names

NOT_UTF8 = {
    b"\xff\xfe.txt": "\uefff\ueffe.txt",
    "Größe".encode("latin-1"): "Gr\ueff6\uefdfe",
    b"\xed\xa0\x80 alone": "\uefed\uefa0\uef80 alone",
    "日本".encode("shift_jis"): "\uef93\ueffa\uef96{",
    "日".encode()[:2]: "\uefe6\uef97",
}


@pytest.mark.parametrize("name", NOT_UTF8)
def test_a_name_that_is_not_utf8_is_shown_to_samba_as_one_that_is(name: bytes) -> None:
    shown = SAMBA.name(name)
    assert shown.decode() == NOT_UTF8[name]
    assert SAMBA.stored_name(shown) == name
    for other in (Presentation(), PLAIN):
        assert other.name(name) == name
        assert other.stored_name(shown) is None


@pytest.mark.parametrize("name", ["plain", "Größe", "日本語 🙂", "\ue000", "\uef7f\uf000"])
def test_any_other_name_is_its_own(name: str) -> None:
    assert SAMBA.name(name.encode()) == name.encode()
    assert SAMBA.stored_name(name.encode()) is None


@given(st.binary(min_size=1, max_size=255))
def test_each_name_is_shown_as_utf8_and_found_again(name: bytes) -> None:
    shown = SAMBA.name(name)
    shown.decode()
    assert len(shown) <= 1024
    assert shown == name or SAMBA.stored_name(shown) == name or not _without_ours(name)


def _without_ours(name: bytes) -> bool:
    """A name that has characters of ours, and also bytes that are none, cannot be found again."""
    text = name.decode("utf-8", "surrogateescape")
    return not any(0xEF80 <= ord(character) <= 0xEFFF for character in text)


def test_a_name_that_would_be_too_long_is_left_as_it_is() -> None:
    name = b"\xed\xa0\x80" * 200
    assert SAMBA.name(name) == name
