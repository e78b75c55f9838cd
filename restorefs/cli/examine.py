"""`restorefs check`: is this machine able to, and are the images whole?

Owns what is examined and how findings are told. Needs no daemon and attaches nothing.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from restorefs.catalog.records import DiskRecord
from restorefs.catalog.repository import find_backups
from restorefs.compiled import uncompiled
from restorefs.errors import RestoreError
from restorefs.fuse import packer
from restorefs.guestfs.decoders import DECODERS
from restorefs.session.qcow2 import inspect_chain
from restorefs.session.uri import SCHEMES, parse


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` is False for what stops restorefs from working; `advice` says what to do then."""

    subject: str
    ok: bool
    detail: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def machine(runtime_dir: Path) -> Iterator[Finding]:
    """Yield what this machine has of what a mount needs."""
    yield _program("qemu-nbd", "install qemu-utils (Debian) or qemu-img (Fedora)")
    yield _program("setpriv", "install util-linux")
    yield _program("fusermount3", "install fuse3")
    yield _module("nbd", "install python3-libnbd; the virtual environment must see system packages")
    yield compiled()
    yield _fuse_device()
    yield _runtime(runtime_dir)


def no_images(folder: Path) -> Iterator[Finding]:
    """Yield what a folder holds under an image's name that cannot be one, or cannot be read."""
    for skipped in find_backups(folder, lambda _done, _all: None).skipped:
        if skipped.is_trouble:
            yield Finding(str(skipped.path), False, skipped.reason)


def image(record: DiskRecord, repositories: tuple[Path, ...]) -> Finding:
    """Examine a disk's image and its whole backing chain, every cluster's place included."""
    subject = record.name
    if record.scheme is not None:
        return _uri(subject, record)
    path = record.path
    try:
        chain = inspect_chain(path, repositories or (path.parent,), deep=True)
    except RestoreError as error:
        return Finding(subject, False, str(error), f"look at {path}")
    count = len(chain.images)
    return Finding(subject, True, f"{path}, {count} image{'s' if count > 1 else ''} in its chain")


def _uri(subject: str, record: DiskRecord) -> Finding:
    """Say whether a URI can be understood; no server is asked."""
    try:
        parse(record.qcow2_path, SCHEMES)
    except RestoreError as error:
        return Finding(subject, False, f"{record.shown_path}: {error}", "correct the catalog")
    needs = f"a mount follows it with --allow-scheme {record.scheme}"
    return Finding(subject, True, f"{record.shown_path}, not examined; {needs}")


def _program(name: str, advice: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "is not installed", advice)
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()
    return Finding(name, result.returncode == 0, lines[0] if lines else path, advice)


def _module(name: str, advice: str) -> Finding:
    try:
        module = import_module(name)
    except ImportError as error:
        return Finding(f"python {name}", False, str(error), advice)
    return Finding(f"python {name}", True, str(getattr(module, "__file__", "")))


def compiled() -> Finding:
    """Say whether all that can be compiled is; it works in either case."""
    names = [name.rpartition(".")[2] for name in uncompiled([*DECODERS, packer])]
    if not names:
        return Finding("compiled modules", True, "are compiled")
    advice = "install gcc and Python's headers, then restorefs again"
    return Finding("compiled modules", True, f"{', '.join(names)} not compiled, so slow: {advice}")


def _fuse_device() -> Finding:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        advice = "modprobe fuse; in a container, give it the device /dev/fuse"
        return Finding("/dev/fuse", False, str(error.strerror), advice)
    return Finding("/dev/fuse", True, "can be opened")


def _runtime(folder: Path) -> Finding:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    ok = os.access(nearest, os.W_OK | os.X_OK)
    detail = "can be written" if ok else f"{nearest} cannot be written"
    return Finding(str(folder), ok, detail, "" if ok else "name another --runtime-dir")
