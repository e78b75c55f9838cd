"""Folders of qcow2 images, as a backup product lays them out.

Owns the making of (empty) images by qemu-img. Knows nothing of restorefs.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import require, run, unavailable


class Repository:
    """A folder of images that tests add to."""

    def __init__(self, root: Path) -> None:
        require("qemu-img")
        self.root = root
        root.mkdir()
        self._template = root.with_name(f"{root.name}-template.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", self._template, "1G")

    def add(self, name: str, *, backing: str | None = None, mtime: float | None = None) -> Path:
        """Make an image of 1 GiB; `backing` is the backing file's name as the image gives it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if backing is None:
            shutil.copyfile(self._template, path)
        else:
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", path)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def file(self, name: str, content: bytes = b"") -> Path:
        """Make a file that is no image."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    @contextmanager
    def as_nobody(self) -> Iterator[None]:
        """Be a user for whom permissions count, and who gets as far as this folder."""
        if os.geteuid() != 0:
            unavailable("needs root, to become another user")
        for folder in self.root.resolve().parents:
            if folder.stat().st_uid == 0 and folder.name.startswith(("pytest-", "test_")):
                folder.chmod(0o755)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
