"""The runtime folders: that of all mounts, and in it that of each mount, with its sockets.

Owns who may enter them, that only one daemon has a mount's, and that it goes with that daemon. The
folder itself is what is locked (flock(2)): so there is no moment in which one is there without the
other. A folder that is not locked was left by a crash, and nothing in it is of use.

Must not know what is in a mount's folder, apart from the file that says whose it is.

Concurrency: blocks, at the start and at the end.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from restorefs.config import Settings, is_ours
from restorefs.errors import ConfigError, MountError
from restorefs.users import our_name

log = logging.getLogger(__name__)
_INSTANCE = "instance.json"
_WAIT_SECONDS = 10.0


@contextmanager
def held(
    settings: Settings, owner: tuple[int, int], meanwhile: Callable[[], object]
) -> Iterator[Path]:
    """Have this mount's folder, which is new and empty, for `owner` and root; remove it at the end,
    unless we may not any more (see unmounter.py).

    Waits for a daemon that ends just now, whose mount is gone by then: so somebody who unmounts and
    mounts again comes here early. `meanwhile` is called then, and raises where waiting is in vain.
    Raises ConfigError when the folders cannot be made, or others can write to them, MountError
    when another daemon does not let go.
    """
    folder = settings.instance_dir
    try:
        _make_common(settings.runtime_dir)
        lock = _take(settings.mountpoint, folder, meanwhile)
        try:
            if os.geteuid() == 0:
                os.fchown(lock, *owner)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise ConfigError(f"cannot use the runtime folder {folder}: {error.strerror}") from error
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError, PermissionError):
            folder.rmdir()
        os.close(lock)


@contextmanager
def introduced(settings: Settings) -> Iterator[None]:
    """Say in the folder, as the user that has it, whose it is; empty it at the end.

    Raises ConfigError when that user cannot.
    """
    folder = settings.instance_dir
    about = {"mountpoint": str(settings.mountpoint), "pid": os.getpid()}
    try:
        try:
            (folder / _INSTANCE).write_text(json.dumps(about))
        except OSError as error:
            reason = _closed_to_us(folder) or error.strerror
            raise ConfigError(f"cannot use the runtime folder {folder}: {reason}") from error
        yield
    finally:
        with suppress(PermissionError):  # of a folder that we could not enter either
            for path in (*folder.glob("*.sock"), folder / _INSTANCE):
                path.unlink(missing_ok=True)


def _make_common(folder: Path) -> None:
    """Make the folder of all mounts. Everybody may look into it when it is root's, for its daemons
    may be different users."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o755 if os.geteuid() == 0 else 0o700)
    if not is_ours(folder):
        raise ConfigError(f"{folder} is not a folder that only we can write to; see --runtime-dir")


def _take(mountpoint: Path, folder: Path, meanwhile: Callable[[], object]) -> int:
    """Return the descriptor that holds a folder which was made just now."""
    deadline = time.monotonic() + _WAIT_SECONDS
    told = False
    while True:
        is_new = True
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            is_new = False
        lock = _locked(folder)
        if lock is not None:
            if is_new:
                return lock
            _remove(folder)
            os.close(lock)
            continue
        meanwhile()
        holder = _holder(folder)
        if time.monotonic() > deadline:
            raise MountError(
                f"{holder} has not let go of {mountpoint}, though nothing is mounted there: is a"
                " file of it still open? Close it, or end that process"
            )
        if not told:
            log.info("waiting until %s has let go of %s", holder, mountpoint)
            told = True
        time.sleep(0.05)


def _locked(folder: Path) -> int | None:
    """Return the descriptor that holds a folder, None when somebody else holds or removes it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    taken = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = os.path.samestat(os.fstat(lock), folder.lstat())  # else it was removed meanwhile
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not taken:
            os.close(lock)
    return lock if taken else None


def _remove(folder: Path) -> None:
    """Remove what a crash left; it may be another user's, and then root needs no more than this."""
    if os.geteuid() == 0:
        os.lchown(folder, 0, 0)
    shutil.rmtree(folder)


def _holder(folder: Path) -> str:
    """Name who has a folder, for people."""
    try:
        # The folder may belong to somebody whom we need not trust: this could be anything.
        fd = os.open(folder / _INSTANCE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return f"process {int(json.loads(file.read(4096))['pid'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another restorefs"


def _closed_to_us(folder: Path) -> str | None:
    """Say which of the folders above one our user cannot enter."""
    for above in reversed(folder.parents):
        if not os.access(above, os.X_OK, effective_ids=True):
            return f"{our_name()} cannot enter {above}: `chmod 755 {above}`"
    return None
