"""Mounting, tuning and unmounting.

Owns the mount's options, and what is done to a mountpoint before and after. Must not know what is
served.

Concurrency: one mount in a process; what is done before and after it blocks.
"""

import errno
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import trio

from restorefs.config import Settings
from restorefs.errors import ConfigError, MountError
from restorefs.fuse import device
from restorefs.fuse.mountinfo import Mounted, mount_of, mounted_on
from restorefs.fuse.operations import Operations
from restorefs.fuse.protocol import forget_attributes, forget_name
from restorefs.fuse.server import Server
from restorefs.rights import Rights
from restorefs.tree.namespace import Changes
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_KIND = "fuse.restorefs"
_READ_AHEAD_KIB = 4096
_MAX_BACKGROUND = 512
_FORGET_SECONDS = 10.0


def examine(mountpoint: Path) -> bool:
    """Return whether a crash has left a dead mount of ours on a mountpoint, which prepare() cleans
    away.

    Raises ConfigError when it is no folder, MountError when something else is mounted there.
    """
    refused: OSError | None = None
    is_folder = False
    try:
        is_folder = stat.S_ISDIR(mountpoint.stat().st_mode)
        os.statvfs(mountpoint)  # of a mount that died just now, the kernel still knows the rest
    except OSError as error:
        refused = error
    mounted = mounted_on(mountpoint)
    if refused is not None and refused.errno == errno.ENOTCONN:
        if mounted is not None and mounted.kind == _KIND:
            return True
        dead = mount_of(mountpoint)
        which = f"the mount ({dead.kind}) on {dead.path}" if dead is not None else "a mount above"
        raise MountError(f"cannot mount on {mountpoint}: {which} is dead: unmount it")
    if mounted is not None:
        raise MountError(f"something ({mounted.kind}) is mounted on {mountpoint} already")
    if refused is not None:
        hint = "; make the folder first" if refused.errno == errno.ENOENT else ""
        raise ConfigError(f"cannot mount on {mountpoint}: {refused.strerror}{hint}") from refused
    if not is_folder:
        raise ConfigError(f"cannot mount on {mountpoint}: it is not a folder")
    return False


def prepare(mountpoint: Path) -> None:
    """Make sure that a mountpoint can be mounted on; clean away the dead mount of a crash. Only one
    daemon may do so at a time: what it unmounts could be another one's new mount.

    Raises as examine() does.
    """
    while examine(mountpoint):
        log.warning("cleaning up the dead mount that a crash left on %s", mountpoint)
        unmount(mountpoint)
    with suppress(PermissionError):  # one need not be able to read what one mounts on
        if any(mountpoint.iterdir()):
            log.warning("%s is not empty: what is in it is hidden while we are mounted", mountpoint)


def unmount(mountpoint: Path) -> None:
    """Unmount what we, or another daemon of our user, have mounted. Raises MountError."""
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    if shutil.which(command[0]) is None:
        raise MountError(f"{command[0]} is not installed")
    result = subprocess.run([*command, mountpoint], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MountError(f"cannot unmount {mountpoint}: {result.stderr.strip()}")


class Mount:
    """One mount."""

    def __init__(
        self, tree: Tree, settings: Settings, rights: Rights, unmount: Callable[[], None]
    ) -> None:
        """`unmount` must still do so when `rights` are dropped."""
        self._denied = settings.deny_comm
        self._tree = tree
        self._mountpoint = settings.mountpoint
        self._source = settings.source
        self._noexec = settings.noexec
        self._request_timeout = settings.request_timeout
        self._rights = rights
        self._unmount = unmount
        self._server: Server | None = None
        self._fd: int | None = None
        self._stopping = False

    async def serve(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Mount, drop what rights that needed, await `ready`, and serve until unmounted or stopped
        by stop().

        Unmounts at an end that was asked for. After anything else the mount is left dead on
        purpose: an empty folder in its place could make `rsync --delete` empty somebody's mirror.
        Raises MountError when mounting is refused, or the mount is still there at the end.
        """
        if self._stopping:  # before it began; from here to the server's start there is no await
            return
        with ExitStack() as left:
            with self._rights.as_root_once():
                fd = self._mount()
                ours = mounted_on(self._mountpoint)
                left.enter_context(self._left(fd, ours))
                device.agree(fd, _MAX_BACKGROUND)
                _tune(ours)
            self._fd = fd
            handlers = Operations(self._tree, self._denied).handlers
            self._server = Server(fd, handlers, self._request_timeout)
            await ready()
            await self._server.run()
        # Its number may be another one's by now, but that one answers.
        if _is_there(ours, mounted_on(self._mountpoint)) and not _answers(self._mountpoint):
            raise MountError(
                f"{self._mountpoint} is still mounted, and dead: unmount it, or start again"
            )

    def _mount(self) -> int:
        """Return the descriptor that requests come from. Raises MountError."""
        source = self._source.replace("\\", "\\\\").replace(",", "\\,")
        options = {f"fsname={source}", "subtype=restorefs", "ro", "nosuid", "nodev"}
        options.add("default_permissions")
        if self._noexec:
            options.add("noexec")
        if os.geteuid() == 0:
            options.add("allow_other")
        try:
            return device.mount(self._mountpoint, options)
        except MountError as error:
            raise MountError(
                f"cannot mount on {self._mountpoint}: {error}; see `restorefs check`"
            ) from error

    @contextmanager
    def _left(self, fd: int, ours: Mounted | None) -> Iterator[None]:
        """Unmount at the end if it was asked for, or the kernel refused; close the descriptor."""
        unmounts = False
        try:
            yield
            unmounts = True
        except MountError:
            unmounts = True
            raise
        finally:
            try:
                # Where the kernel has ended it, all that is left there is somebody else's.
                if (unmounts or self._stopping) and not device.ended(fd):
                    self._unmount_ours(ours)
            finally:
                self._fd = None
                os.close(fd)

    def _unmount_ours(self, ours: Mounted | None) -> None:
        found = mounted_on(self._mountpoint)
        if _is_there(ours, found):
            self._unmount()
        elif found is not None:
            log.warning(
                "not unmounting %s: something else (%s) is mounted there now",
                *(self._mountpoint, found.kind),
            )

    async def forget(self, changes: Changes) -> None:
        """Have the kernel forget what has changed above the guests, and with it all that it keeps
        of what was below. In a thread: the kernel may wait for somebody who waits for us."""
        if self._fd is None:
            return
        messages = [forget_name(parent, name) for parent, name in changes.names]
        messages += [forget_attributes(node) for node in changes.folders]
        await trio.lowlevel.checkpoint()  # from here to the thread's start nothing is cancelled
        try:
            own = os.dup(self._fd)  # the number of the other may come to mean another file
        except OSError as error:
            log.warning("the kernel keeps what has changed: %s", error.strerror)
            return
        alone = trio.CapacityLimiter(1)
        with trio.move_on_after(_FORGET_SECONDS):
            await trio.to_thread.run_sync(
                _send, own, messages, abandon_on_cancel=True, limiter=alone
            )

    def stop(self) -> None:
        """Take no more requests; serve() returns when those under way are answered."""
        self._stopping = True
        if self._server is not None:
            self._server.stop()


def _send(fd: int, messages: Iterable[bytes]) -> None:
    """Send messages to the kernel, and close the descriptor."""
    try:
        for message in messages:
            try:
                os.write(fd, message)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENOTCONN):
                    return  # unmounted
                if error.errno != errno.ENOENT:  # the kernel knows nothing of it
                    log.warning("the kernel keeps what has changed: %s", error.strerror)
    finally:
        os.close(fd)


def _is_there(ours: Mounted | None, found: Mounted | None) -> bool:
    """Whether what is found on the mountpoint is the file system that we have mounted."""
    return ours is not None and found is not None and found.device == ours.device


def _answers(mountpoint: Path) -> bool:
    try:
        os.statvfs(mountpoint)
    except OSError:
        return False
    return True


def _tune(mounted: Mounted | None) -> None:
    """Let the kernel ask for large pieces, many at once, where we may say so.

    Many at once is also for calm: with the default of 12 requests in the background, one disk
    whose storage hangs would stop the read-ahead of all others.
    """
    if mounted is None:
        return
    device = mounted.device
    _mount_fusectl()
    minor = device.partition(":")[2]
    values = {
        Path(f"/sys/class/bdi/{device}/read_ahead_kb"): _READ_AHEAD_KIB,
        Path(f"/sys/fs/fuse/connections/{minor}/max_background"): _MAX_BACKGROUND,
        Path(f"/sys/fs/fuse/connections/{minor}/congestion_threshold"): _MAX_BACKGROUND * 3 // 4,
    }
    for path, value in values.items():
        try:
            path.write_text(str(value))
        except OSError as error:
            log.debug("not tuned: %s: %s", path, error.strerror)


def _mount_fusectl() -> None:
    """Have /sys/fs/fuse/connections, which systemd mounts, also where there is no systemd."""
    folder = Path("/sys/fs/fuse/connections")
    if os.geteuid() == 0 and folder.is_dir() and not any(folder.iterdir()):
        command = ["mount", "-t", "fusectl", "fusectl", str(folder)]
        subprocess.run(command, capture_output=True, check=False)
