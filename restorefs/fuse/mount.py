"""Mounting, tuning and unmounting.

Owns the mount's options, and what is done to a mountpoint before and after. Must not know what is
served.

Concurrency: one mount in a process; what is done before and after it blocks.
"""

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from restorefs.config import Settings
from restorefs.errors import ConfigError, StorageError
from restorefs.fuse import device
from restorefs.fuse.operations import Operations
from restorefs.fuse.protocol import forget_attributes, forget_name
from restorefs.fuse.server import Server
from restorefs.rights import Rights
from restorefs.tree.namespace import Changes
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_READ_AHEAD_KIB = 4096
_MAX_BACKGROUND = 512
_FORGET_SECONDS = 10.0


def prepare(mountpoint: Path) -> None:
    """Make sure that a mountpoint can be mounted on; clean away the dead mount of a crash.

    Raises ConfigError when it is no folder, or something is mounted there that is alive.
    """
    try:
        mountpoint.stat()
        os.statvfs(mountpoint)  # of a mount that died just now, the kernel still knows the rest
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise ConfigError(
                f"cannot mount on {mountpoint}: {error.strerror}; make the folder first"
            ) from error
        mounted = _mounted(mountpoint)
        if mounted is not None and mounted.kind != "fuse.restorefs":
            raise ConfigError(
                f"a dead mount ({mounted.kind}) that is not ours is on {mountpoint}: unmount it"
            ) from error
        log.warning("cleaning up the dead mount that a crash left on %s", mountpoint)
        unmount(mountpoint)
        return
    if not os.path.isdir(mountpoint):  # noqa: PTH112
        raise ConfigError(f"cannot mount on {mountpoint}: it is not a folder")
    mounted = _mounted(mountpoint)
    if mounted is not None:
        raise ConfigError(f"something ({mounted.kind}) is mounted on {mountpoint} already")
    if any(mountpoint.iterdir()):
        log.warning("%s is not empty: what is in it is hidden while we are mounted", mountpoint)


def unmount(mountpoint: Path) -> None:
    """Unmount what we, or another daemon of our user, have mounted. Raises ConfigError."""
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]} is not installed")
    result = subprocess.run([*command, mountpoint], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ConfigError(f"cannot unmount {mountpoint}: {result.stderr.strip()}")


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

    async def serve(self, ready: Callable[[], None]) -> None:
        """Mount, drop what rights that needed, call `ready`, and serve until unmounted or stopped
        by stop().

        Unmounts at an end that was asked for. After anything else the mount is left dead on
        purpose: an empty folder in its place could make `rsync --delete` empty somebody's mirror.
        Raises ConfigError when mounting is refused.
        """
        if self._stopping:  # before it began; from here to the server's start there is no await
            return
        with ExitStack() as left:
            with self._rights.as_root_once():
                fd = self._mount()
                left.enter_context(self._left(fd))
                device.agree(fd, _MAX_BACKGROUND)
                _tune(self._mountpoint)
            self._fd = fd
            handlers = Operations(self._tree, self._denied).handlers
            self._server = Server(fd, handlers, self._request_timeout)
            ready()
            if self._stopping:  # it was asked for before there was a server
                self._server.stop()
            await self._server.run()
        if _mounted(self._mountpoint) is not None:
            raise StorageError(f"{self._mountpoint} could not be unmounted: unmount it by hand")

    def _mount(self) -> int:
        """Return the descriptor that requests come from. Raises ConfigError."""
        source = self._source.replace("\\", "\\\\").replace(",", "\\,")
        options = {f"fsname={source}", "subtype=restorefs", "ro", "nosuid", "nodev"}
        options.add("default_permissions")
        if self._noexec:
            options.add("noexec")
        if os.geteuid() == 0:
            options.add("allow_other")
        try:
            return device.mount(self._mountpoint, options)
        except ConfigError as error:
            raise ConfigError(
                f"cannot mount on {self._mountpoint}: {error}; see `restorefs check`"
            ) from error

    @contextmanager
    def _left(self, fd: int) -> Iterator[None]:
        """Unmount at the end if it was asked for, or the kernel refused; close the descriptor."""
        unmounts = False
        try:
            yield
            unmounts = True
        except ConfigError:
            unmounts = True
            raise
        finally:
            try:
                if (unmounts or self._stopping) and _mounted(self._mountpoint) is not None:
                    self._unmount()
            finally:
                self._fd = None
                os.close(fd)

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


def _tune(mountpoint: Path) -> None:
    """Let the kernel ask for large pieces, many at once, where we may say so.

    Many at once is also for calm: with the default of 12 requests in the background, one disk
    whose storage hangs would stop the read-ahead of all others.
    """
    mounted = _mounted(mountpoint)
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


class _Mounted(NamedTuple):
    """What is mounted: "major:minor", and the file system's type."""

    device: str
    kind: str


def _mounted(mountpoint: Path) -> _Mounted | None:
    """Return what is mounted exactly there, without asking the mount itself. See proc(5)."""
    wanted = os.fsencode(os.path.abspath(mountpoint))  # noqa: PTH100
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        _, _, device, _, path, *_ = fields.split(b" ")
        if path.decode("unicode_escape").encode("latin-1") == wanted:
            found = _Mounted(device.decode(), rest.split(b" ")[0].decode())
    return found
