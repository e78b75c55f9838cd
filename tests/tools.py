"""Programs, loop devices and kernel mounts for tests.

Owns that a missing tool skips (or, with RESTOREFS_REQUIRE_ALL=1, fails) a test, and that nothing
a test attached or mounted stays behind, also after a failure. Knows no format and no part of
restorefs. Concurrency: plain blocking calls; use outside of a running trio loop or in short steps.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def require(*programs: str) -> None:
    """Skip the calling test unless every program is installed; fail it when all are required."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        unavailable(f"not installed: {', '.join(missing)}")


def require_root() -> None:
    """Skip the calling test unless it may mount."""
    if os.geteuid() != 0:
        unavailable("needs root for loop devices and mounts")


def unavailable(reason: str) -> None:
    """Skip the calling test with a reason; fail it when RESTOREFS_REQUIRE_ALL is 1."""
    if os.environ.get("RESTOREFS_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*argv: str | Path, **options: Any) -> str:
    """Run a program and return what it printed; `options` go to subprocess.run.

    Raises AssertionError with the program's output when it fails.
    """
    done = subprocess.run(
        [str(arg) for arg in argv],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
        **options,
    )
    output: str = done.stdout
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{output}{done.stderr}"
        )
    return output


def wait_until(condition: Callable[[], T], what: str, seconds: float = 60) -> T:
    """Return the condition's value as soon as it is true; AssertionError after so many seconds.

    For what another process does and cannot be waited for otherwise; a pidfd, a line of a log or
    a pipe's end is better.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.01)
    return value


@contextmanager
def loop_device(
    image: Path, *, writable: bool = False, offset: int = 0, size: int | None = None
) -> Iterator[str]:
    """Attach a raw image, or `size` bytes of it from `offset`, to a free loop device.

    Yields the device's path. losetup finds the free device itself and tries another when
    somebody else was faster, so that tests may run side by side.
    """
    require_root()
    window = ["--offset", str(offset)]
    if size is not None:
        window += ["--sizelimit", str(size)]
    if not writable:
        window.append("--read-only")
    device = run("losetup", "--find", "--show", *window, image).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def loop_mount(
    image: Path,
    fstype: str,
    options: str = "ro,noload,noatime",
    offset: int = 0,
    size: int | None = None,
) -> Iterator[Path]:
    """Mount a raw image, or `size` bytes of it from `offset`, by the kernel; yields the folder.

    The loop device is read-only unless `options` contains "rw". The mount and the device are gone
    afterwards; a mount that is still in use is taken away lazily and then reported.
    """
    require_root()
    folder = Path(tempfile.mkdtemp(prefix="restorefs-mount-"))
    try:
        writable = "rw" in options.split(",")
        with loop_device(image, writable=writable, offset=offset, size=size) as device:
            run("mount", "-t", fstype, "-o", options, device, folder)
            try:
                yield folder
            finally:
                unmount(folder)
    finally:
        folder.rmdir()


def unmount(folder: Path) -> None:
    """Unmount a folder; one that is in use goes lazily, and AssertionError says so."""
    try:
        run("umount", folder)
    except AssertionError:
        run("umount", "--lazy", folder)
        raise


@contextmanager
def fuse2fs_mount(image: Path, options: str = "ro") -> Iterator[Path]:
    """Mount an ext2/3/4 image by fuse2fs: for what the running kernel cannot mount."""
    require("fuse2fs", "fusermount3")
    folder = Path(tempfile.mkdtemp(prefix="restorefs-fuse2fs-"))
    try:
        run("fuse2fs", image, folder, "-o", options)
        try:
            yield folder
        finally:
            unmount(folder)
    finally:
        folder.rmdir()
