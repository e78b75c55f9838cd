"""Mounting, tuning and unmounting.

Owns the mount's options, and what is done to a mountpoint before and after. Must not know what is
served.
"""

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from restorefs.errors import ConfigError
from restorefs.fuse.operations import Operations
from restorefs.tree.tree import Tree

log = logging.getLogger(__name__)
_MIN_TASKS = 64  # idle ones that are kept: starting one costs as much as answering
_MAX_TASKS = 4096
_READ_AHEAD_KIB = 4096
_MAX_BACKGROUND = 512


def prepare(mountpoint: Path) -> None:
    """Make sure that a mountpoint can be mounted on; clean away the dead mount of a crash.

    Raises ConfigError when it is no folder, or something is mounted there that is alive.
    """
    try:
        mode = mountpoint.stat()
        os.statvfs(mountpoint)  # of a mount that died just now, the kernel still knows the rest
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise ConfigError(
                f"cannot mount on {mountpoint}: {error.strerror}; make the folder first"
            ) from error
        log.warning("cleaning up the dead mount that a crash left on %s", mountpoint)
        _unmount(mountpoint)
        return
    if not os.path.isdir(mountpoint):  # noqa: PTH112
        raise ConfigError(f"cannot mount on {mountpoint}: it is not a folder")
    if _device(mountpoint) is not None:
        raise ConfigError(f"something is mounted on {mountpoint} already (device {mode.st_dev})")


def _unmount(mountpoint: Path) -> None:
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]} is not installed")
    result = subprocess.run([*command, mountpoint], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ConfigError(f"cannot unmount {mountpoint}: {result.stderr.strip()}")


async def serve(tree: Tree, mountpoint: Path, ready: Callable[[], None]) -> None:
    """Mount, call `ready`, and serve until unmounted, stopped by stop(), or cancelled.

    Unmounts at a proper end. After an unexpected error the mount is left dead on purpose: an empty
    folder in its place could make `rsync --delete` empty somebody's mirror. Raises ConfigError
    when mounting is refused.
    """
    options = {"fsname=restorefs", "subtype=restorefs", "ro", "nosuid", "nodev"}
    options.add("default_permissions")
    if os.geteuid() == 0:
        options.add("allow_other")
    try:
        pyfuse3.init(Operations(tree), str(mountpoint), options)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot mount on {mountpoint}: {error}; see `restorefs check`"
        ) from error
    unmount = True
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(pyfuse3.main, min_tasks=_MIN_TASKS, max_tasks=_MAX_TASKS), name="fuse"
            )
            # Answered after the kernel's first request, which would undo the tuning.
            await trio.to_thread.run_sync(os.stat, mountpoint, abandon_on_cancel=True)
            _tune(mountpoint)
            ready()
    except Exception:
        unmount = False
        raise
    finally:
        pyfuse3.close(unmount=unmount)


def stop() -> None:
    """Take no more requests; serve() returns when those under way are answered."""
    pyfuse3.terminate()


def _tune(mountpoint: Path) -> None:
    """Let the kernel ask for large pieces, many at once, where we may say so.

    Many at once is also for calm: with the default of 12 requests in the background, one disk
    whose storage hangs would stop the read-ahead of all others.
    """
    device = _device(mountpoint)
    if device is None:
        return
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


def _device(mountpoint: Path) -> str | None:
    """Return "major:minor" of what is mounted exactly there, without asking the mount itself."""
    wanted = os.fsencode(os.path.abspath(mountpoint))  # noqa: PTH100
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        path = fields[4].decode("unicode_escape").encode("latin-1")
        if path == wanted:
            found = fields[2].decode()
    return found
