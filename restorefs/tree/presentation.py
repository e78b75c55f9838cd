"""How what guests say of their files is shown: to whom they belong, and as what to Samba.

Owns the profiles and the --uid, --gid and --umask overrides:

- POSIX: everything is the guest's own truth.
- SAMBA: that too, but what NTFS has in excess is shown where Samba's modules look for it: a named
  stream X as vfs_streams_xattr keeps it, user.DosStream.X:$DATA with a byte more, and the
  security descriptor as vfs_acl_xattr does (guestfs/ntacl.py). Source: the manual pages of
  these modules, and what they do (tests). And names that are not UTF-8 are shown as ones that
  are, for Samba leaves the others out of a listing without a word, and so what has no
  attributes, as it cannot be read. And folders are read to their end first, for it takes an error
  on the way for the end.
- PLAIN: folders 0755, everything else 0644, all of one owner.

Overrides go on top. Where owners or modes are not the guest's, POSIX ACLs are not shown: they would
contradict what is. PLAIN also hides every other attribute by which the guest's kernel, or Samba,
would let somebody in or keep somebody out.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from restorefs.guestfs import dosattrib, ntacl
from restorefs.guestfs.base import Attributes

_ACLS = (
    *(b"system.posix_acl_access", b"system.posix_acl_default"),
    *(b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"),  # the same, as XFS stores them
)
_PLAIN_HIDES = (*_ACLS, b"security.", b"trusted.")
_DESCRIPTOR = b"system.ntfs_acl"
_USER = b"user."
_LARGEST_VALUE = 64 << 10  # of what Linux has room for, XATTR_SIZE_MAX and XATTR_NAME_MAX
_LARGEST_NAME = 255
_PLAIN_FOLDER, _PLAIN_FILE = 0o755, 0o644
_LONGEST_NAME = 1024  # that FUSE has room for
# A byte from 0x80 on that is not part of any character is U+DC80 and so on to Python (PEP 383). It
# is shown as U+EF80 and so on, which are for private use, and which MirBSD has for the same.
_SHOWN_BYTES = {0xDC00 + byte: 0xEF00 + byte for byte in range(0x80, 0x100)}
_STORED_BYTES = {shown: stored for stored, shown in _SHOWN_BYTES.items()}


class Profile(StrEnum):
    """What a mount is for."""

    POSIX = "posix"
    SAMBA = "samba"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Presentation:
    """A profile and its overrides; None leaves what the profile says. `umask` bits are taken away
    from every mode but a link's. PLAIN needs `uid` and `gid`."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    profile: Profile = Profile.POSIX

    @property
    def overrides(self) -> bool:
        """Whether attributes() ever changes anything."""
        plain = self.profile is Profile.PLAIN
        return plain or (self.uid, self.gid, self.umask) != (None, None, None)

    def attributes(self, attributes: Attributes) -> Attributes:
        """Return the attributes as they are to be shown."""
        if not self.overrides:
            return attributes
        mode = attributes.mode
        if not stat.S_ISLNK(mode):
            if self.profile is Profile.PLAIN:
                allowed = _PLAIN_FOLDER if stat.S_ISDIR(mode) else _PLAIN_FILE
                mode = stat.S_IFMT(mode) | allowed
            mode &= ~(self.umask or 0)
        return attributes._replace(
            uid=attributes.uid if self.uid is None else self.uid,
            gid=attributes.gid if self.gid is None else self.gid,
            mode=mode,
        )

    @property
    def lists_whole(self) -> bool:
        """Folders are to be read to their end before the first name is given away."""
        return self.profile is Profile.SAMBA

    @property
    def stands_in(self) -> bool:
        """What cannot be read is to be listed with attributes all the same."""
        return self.profile is Profile.SAMBA

    @property
    def renames(self) -> bool:
        """Whether name() ever changes anything."""
        return self.profile is Profile.SAMBA

    def name(self, name: bytes) -> bytes:
        """Return the name under which a file is shown."""
        if not self.renames or name.isascii():
            return name
        shown = name.decode("utf-8", "surrogateescape").translate(_SHOWN_BYTES).encode()
        return shown if len(shown) <= _LONGEST_NAME else name

    def stored_name(self, name: bytes) -> bytes | None:
        """Return another name that a shown one may stand for, where no file has this one."""
        if not self.renames or name.isascii():
            return None
        shown = name.decode("utf-8", "surrogateescape")
        stored = shown.translate(_STORED_BYTES).encode("utf-8", "surrogateescape")
        return stored if stored != name else None

    def xattrs(self, xattrs: Mapping[bytes, bytes], has_streams: bool) -> Mapping[bytes, bytes]:
        """Return the extended attributes as they are to be shown.

        has_streams: as GuestFilesystem says. Raises DamagedError for a security descriptor that
        cannot be one, where it must be shown.
        """
        hidden = _PLAIN_HIDES if self.profile is Profile.PLAIN else _ACLS if self.overrides else ()
        if hidden:
            xattrs = {n: value for n, value in xattrs.items() if not n.startswith(hidden)}
        if self.profile is Profile.SAMBA and has_streams:
            return _for_samba(xattrs)
        return xattrs


def _for_samba(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Streams whose name or value Linux has no room for in this form are left out: never cut."""
    shown = {}
    for name, value in xattrs.items():
        if name.startswith(_USER) and name != dosattrib.NAME:
            name = b"user.DosStream." + name[len(_USER) :] + b":$DATA"
            value += b"\0"
            if len(name) > _LARGEST_NAME or len(value) > _LARGEST_VALUE:
                continue
        shown[name] = value
    descriptor = xattrs.get(_DESCRIPTOR)
    if descriptor is not None:
        shown[ntacl.NAME] = ntacl.encode(descriptor)
    return shown
