"""Which rights the daemon has: root's at its start, those of an ordinary user for good.

Owns every change of identity. Started by root with `--user`, the daemon first becomes that user
with root's rights still in reach, so that whatever it opens, it opens as that user, and what that
user may not read is an error at the start. One step, the mount, is then done as root, and after it
there is no way back.

Concurrency: the C library changes the identity of all threads together, so nothing else may run
during that step: it does not await. Capabilities and the like belong to a thread, and those that
are started later inherit them.
"""

import ctypes
import errno
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from restorefs.errors import ConfigError

# linux/prctl.h and linux/capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64


class Rights:
    """The rights of this process."""

    def __init__(self, user: str | None) -> None:
        """`user` is who to become; None changes nothing, whatever is called.

        Raises ConfigError when there is no such user, or we cannot become it.
        """
        self._user: pwd.struct_passwd | None = None
        if user is None:
            return
        try:
            found = pwd.getpwnam(user)
        except KeyError:
            raise ConfigError(f"--user: there is no user {user!r} on this machine") from None
        if found.pw_uid == os.geteuid():
            return
        if os.geteuid() != 0:
            raise ConfigError(f"only root can become {user}: start as root, or without --user")
        self._user = found

    @property
    def changing(self) -> bool:
        """Whether we become somebody else at all."""
        return self._user is not None

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that what we make must belong to."""
        if self._user is None:
            return os.geteuid(), os.getegid()
        return self._user.pw_uid, self._user.pw_gid

    def lower(self) -> None:
        """Become the user, with root in reach for as_root_once(). Before any thread is started.

        Raises ConfigError when that user cannot read this program, parts of which are loaded later.
        """
        if self._user is None:
            return
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        os.initgroups(self._user.pw_name, self._user.pw_gid)
        os.setegid(self._user.pw_gid)
        os.seteuid(self._user.pw_uid)
        name, home = self._user.pw_name, self._user.pw_dir
        os.environ.update({"HOME": home, "LOGNAME": name, "USER": name})
        for path in (__file__, sys.executable):
            if not os.access(path, os.R_OK, effective_ids=True):
                raise ConfigError(
                    f"{name} cannot read {path}: install restorefs where every user may read it"
                )

    @contextmanager
    def as_root_once(self) -> Iterator[None]:
        """Do one step as root, without an await in it; then be the user, with no way back."""
        if self._user is None:
            yield
            return
        os.seteuid(0)
        os.setegid(0)
        try:
            yield
        finally:
            self._drop(self._user)

    def _drop(self, user: pwd.struct_passwd) -> None:
        for capability in range(_CAPABILITIES):
            _prctl(_PR_CAPBSET_DROP, capability, ignore=errno.EINVAL)  # no such capability
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        _no_capabilities()
        try:
            os.setuid(0)
        except PermissionError:
            return
        raise RuntimeError("root's rights could not be dropped")


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, ignore: int = 0) -> None:
    """See prctl(2), and the pages PR_...(2const)."""
    numbers = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if _libc.prctl(option, *numbers) != 0 and ctypes.get_errno() != ignore:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _no_capabilities() -> None:
    """Give up what a change of user leaves: the inheritable ones. See capset(2)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")
