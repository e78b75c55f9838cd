"""Unmounting as root, for a daemon that is root no more.

Only root may unmount what root has mounted. So a child that stays root is started before root's
rights are dropped: a shell that waits on a pipe for the word, unmounts this one mountpoint, and
removes the one folder that the daemon had its sockets in. It can be asked for nothing else. That is
simpler than a parent that stays root: the daemon is the process that systemd and people know, and
nothing has to be passed on to it. It does not depend on systemd, as `ExecStopPost=` would.

When the daemon is killed, the pipe ends without the word, and so does the child: the mount is left
dead on purpose, and the next start, as root, cleans it away.

Concurrency: blocks, at the start and at the end.
"""

import logging
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restorefs.errors import ConfigError, MountError

log = logging.getLogger(__name__)
# Signals that end the daemon, sent to all of a service's processes, are not for the child.
_SCRIPT = """
trap '' HUP INT TERM
while read -r word; do
    case $word in
    unmount)
        said=$(umount --lazy -- "$1" 2>&1) && said=done  # whatever it warns of
        echo "${said:-umount failed}" ;;
    end) exec rmdir -- "$2" ;;
    esac
done
"""
_SECONDS = 10.0


class Unmounter:
    """The child that unmounts."""

    def __init__(self, process: subprocess.Popen[bytes], mountpoint: Path) -> None:
        self._process = process
        self._mountpoint = mountpoint

    def unmount(self) -> None:
        """Have it unmounted. Raises MountError with the reason when that fails."""
        assert self._process.stdout is not None
        answer = ""
        if self._tell(b"unmount\n"):
            if not select.select([self._process.stdout], [], [], _SECONDS)[0]:
                raise MountError(f"unmounting {self._mountpoint} takes more than {_SECONDS:g} s")
            answer = os.read(self._process.stdout.fileno(), 4096).decode(errors="replace").strip()
        if answer != "done":
            reason = answer or "the process of root's that could has ended"
            raise MountError(f"cannot unmount {self._mountpoint}: {reason}")

    def end(self) -> None:
        """Have the folder removed, and wait for the child's end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tell(b"end\n")
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:  # we may not kill it
            log.warning("process %d, which unmounts, does not end", self._process.pid)
        self._process.stdout.close()

    def _tell(self, words: bytes) -> bool:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), words)
        except BrokenPipeError:
            return False
        return True


@contextmanager
def unmounter(mountpoint: Path, folder: Path) -> Iterator[Unmounter]:
    """Start, as root, what can unmount a mountpoint later; `folder` is removed at the end if it is
    empty by then. Raises ConfigError when a program is missing."""
    programs = [shutil.which(name) for name in ("setpriv", "sh", "umount")]
    if None in programs:
        raise ConfigError("setpriv, sh or umount is not installed; see `restorefs check`")
    setpriv, shell = [str(path) for path in programs[:2]]
    kept = "-all,+sys_admin,+dac_read_search"  # to unmount, and to get to the mountpoint
    process = subprocess.Popen(
        [
            *(setpriv, "--no-new-privs", "--bounding-set", kept, "--inh-caps", "-all", "--"),
            *(shell, "-c", _SCRIPT, "restorefs-unmount", str(mountpoint), str(folder)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath + ":/usr/sbin:/sbin", "LANG": "C"},
        start_new_session=True,  # Ctrl-C is not for it
    )
    child = Unmounter(process, mountpoint)
    try:
        yield child
    finally:
        child.end()
