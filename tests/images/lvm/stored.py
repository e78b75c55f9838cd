"""The images that make.py made, and what the kernel said of them."""

import json
import tarfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def disks(name: str) -> tuple[bytes, ...]:
    """Return the content of each disk of a set, in order."""
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        files = {info.name: archive.extractfile(info) for info in archive.getmembers()}
        return tuple(file.read() for _, file in sorted(files.items()) if file is not None)


@cache
def said(name: str) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each volume, "group/volume", as the kernel read it."""
    text = (HERE / f"{name}.json").read_text()
    return {key: (value["size"], value["sha256"]) for key, value in json.loads(text).items()}
