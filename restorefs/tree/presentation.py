"""How guests' owners and modes are shown.

Owns the --uid, --gid and --umask overrides. Without them everything is the guest's own truth. With
any of them, POSIX ACLs are not shown: they would contradict what is.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from restorefs.guestfs.base import Attributes

_ACLS = frozenset(
    (
        *(b"system.posix_acl_access", b"system.posix_acl_default"),
        *(b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"),  # the same, as XFS stores them
    )
)


@dataclass(frozen=True, slots=True)
class Presentation:
    """Overrides; None leaves the guest's own. `umask` bits are taken away from every mode but
    a link's."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    @property
    def overrides(self) -> bool:
        return (self.uid, self.gid, self.umask) != (None, None, None)

    def attributes(self, attributes: Attributes) -> Attributes:
        """Return the attributes as they are to be shown."""
        if not self.overrides:
            return attributes
        hidden = 0 if stat.S_ISLNK(attributes.mode) else self.umask or 0
        return attributes._replace(
            uid=attributes.uid if self.uid is None else self.uid,
            gid=attributes.gid if self.gid is None else self.gid,
            mode=attributes.mode & ~hidden,
        )

    def xattrs(self, xattrs: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return the extended attributes as they are to be shown."""
        if not self.overrides:
            return xattrs
        return {name: value for name, value in xattrs.items() if name not in _ACLS}
