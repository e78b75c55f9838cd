"""The chain of files behind one qcow2 image.

Owns which files a chain consists of, whether they may be read (all must lie in a repository) and
can be (each is known, whole and not encrypted), and the block graph that is pinned for qemu-nbd:
every file and format by name, so that qemu neither probes a format nor follows a name stored in an
image. Must not know about processes or NBD. Blocks: for a worker thread.

Names are resolved as qemu resolves them, so that what is served is what every other qemu tool
shows: relative to the folder of the name under which the image was opened (not of what a symbolic
link of that name points to), and taken as a protocol where a colon stands before the first slash.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restorefs.errors import RestoreError, StorageError, UnsupportedError
from restorefs.session.qcow2.file import ImageBytes, ImageFile
from restorefs.session.qcow2.layout import MAGIC, Header, cluster_size_of, parse_header
from restorefs.session.qcow2.truncation import check_whole
from restorefs.session.unchanged import Stamp

_MAX_IMAGES = 256
_MAX_ARGUMENT_BYTES = 128 << 10  # Linux: MAX_ARG_STRLEN, with the terminating NUL
_SMALLEST_READ = 64 << 10  # the usual cluster size


class ChainError(StorageError):
    """A chain that is not followed: it leaves the repositories, loops, or is not clear."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a chain; sizes in bytes.

    path: without symbolic links. format: "qcow2" or "raw".
    cluster_size, compression_type ("zlib", "zstd"): None for raw.
    data_file: the external file with the content of a qcow2 image, or None.
    stamps: the states of the file, and of that, when they were looked at.
    """

    path: Path
    format: str
    virtual_size: int
    cluster_size: int | None = None
    compression_type: str | None = None
    data_file: Path | None = None
    stamps: Sequence[Stamp] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A disk's images, the top (its newest state) first."""

    images: Sequence[Image]

    @property
    def virtual_size(self) -> int:
        """The disk's size in bytes."""
        return self.images[0].virtual_size

    @property
    def files(self) -> list[tuple[Path, Stamp]]:
        """All files, each with the state that it was looked at in."""
        return [
            (path, stamp)
            for image in self.images
            for path, stamp in zip((image.path, image.data_file), image.stamps, strict=False)
            if path is not None
        ]

    def blockdev(self) -> str:
        """Return the pseudo filename (`json:{...}`) that makes qemu-nbd open just these files in
        just these formats."""
        node: dict[str, Any] | None = None
        for image in reversed(self.images):
            below = node
            node = {"driver": image.format, "file": _file_node(image.path)}
            if image.format == "qcow2":
                node["backing"] = below
            if image.data_file is not None:
                node["data-file"] = _file_node(image.data_file)
        return "json:" + json.dumps(node, ensure_ascii=False, separators=(",", ":"))


def inspect_chain(path: Path, repositories: Sequence[Path], *, deep: bool = False) -> Chain:
    """Follow the backing chain of a qcow2 image and return it, if all of it can be served.

    Every file must lie in one of the folders `repositories`, symbolic links resolved. `deep` looks
    at the place of every cluster instead of relying on refcounts (see truncation.py).

    Raises ChainError for a chain that is not followed, StorageError for a file that is missing,
    unreadable, damaged or truncated, UnsupportedError for a feature or format that is not known,
    KeyNeededError for an encrypted image; each names the file.
    """
    folders = [os.path.realpath(folder) for folder in repositories]
    name = Path.cwd() / path
    image_format: str | None = "qcow2"
    label = _shown(name)
    images: list[Image] = []
    seen: set[tuple[int, int]] = set()
    while len(images) < _MAX_IMAGES:
        with _naming(label), _open(name, folders) as file:
            if file.identity in seen:
                raise ChainError("its backing chain comes back to this file")
            seen.add(file.identity)
            if image_format is None:
                image_format = _recognise(file)
            if image_format == "raw":
                size = -(-file.size // 512) * 512
                images.append(Image(Path(file.path), "raw", size, stamps=(file.stamp,)))
                return _checked(Chain(tuple(images)))
            header = _read_header(file)
            images.append(_inspect(file, header, name, folders, deep=deep))
            if header.backing_name is None:
                return _checked(Chain(tuple(images)))
            backing, image_format = _resolve(header.backing_name, name), header.backing_format
            if image_format not in ("qcow2", "raw", None):
                raise UnsupportedError(
                    f"its backing file {_shown(backing)} has the format {image_format};"
                    " only qcow2 and raw are read"
                )
            label = f"{_shown(backing)} (backing file of {_shown(name)})"
            name = backing
    raise ChainError(f"{_shown(path)}: its backing chain has more than {_MAX_IMAGES} images")


def check_alone(image: ImageBytes) -> None:
    """Check that a qcow2 image that is no file can be served: it is whole, and needs nothing else.

    Raises ChainError for one that refers to a backing or data file, and else as inspect_chain.
    """
    header = _read_header(image)
    if header.backing_name is not None:
        backing = _shown(os.fsdecode(header.backing_name))
        raise ChainError(f"it has a backing file, {backing}; only images that are files may")
    if header.external_data:
        raise ChainError(
            "its content lies in an external data file; only images that are files may"
        )
    check_whole(image, header, None, deep=False)


def _inspect(
    file: ImageFile, header: Header, name: Path, folders: Sequence[str], *, deep: bool
) -> Image:
    """Check that one qcow2 image is whole, its external data file included."""
    with _data_file(header, name, folders) as data:
        check_whole(file, header, data, deep=deep)
        return Image(
            Path(file.path),
            "qcow2",
            header.virtual_size,
            header.cluster_size,
            header.compression_type,
            Path(data.path) if data else None,
            (file.stamp, data.stamp) if data else (file.stamp,),
        )


@contextmanager
def _data_file(header: Header, name: Path, folders: Sequence[str]) -> Iterator[ImageFile | None]:
    if not header.external_data:
        yield None
        return
    if header.data_file is None:
        raise ChainError("its content lies in an external data file whose name is not recorded")
    # qemu looks for a relative name from its working folder: sensible only in the image's own.
    data_name = _resolve(header.data_file, name)
    with _naming(f"external data file {_shown(data_name)}"):
        data = _open(data_name, folders)
    with data:
        yield data


def _read_header(file: ImageBytes) -> Header:
    start = file.read_upto(0, _SMALLEST_READ)
    cluster_size = cluster_size_of(start)
    if cluster_size > len(start):
        start = file.read_upto(0, cluster_size)
    return parse_header(start)


def _recognise(file: ImageFile) -> str:
    """Return the format of a backing file of which none is recorded.

    Only qcow2 shows what it is; that a file is raw is nothing to guess.
    """
    if file.read_upto(0, len(MAGIC)) == MAGIC:
        return "qcow2"
    raise ChainError(
        "not qcow2, and its format is not recorded in the image above; if it is raw, record that:"
        " qemu-img rebase -u -F raw -b BACKING_FILE IMAGE"
    )


def _resolve(recorded: bytes, name: Path) -> Path:
    """Return the name under which qemu would open what the image `name` records."""
    target = os.fsdecode(recorded)
    protocol, colon, rest = target.partition(":")
    if colon and "/" not in protocol:
        if protocol != "file" or not rest.startswith("/"):
            raise ChainError(
                f"it refers to {_shown(target)}, in which qemu sees the protocol"
                f" {_shown(protocol)}; only files are followed"
            )
        return Path(rest)
    return name.parent / target


def _open(name: Path, folders: Sequence[str]) -> ImageFile:
    """Open a file of a chain. Raises OSError, StorageError, ChainError when it lies elsewhere."""
    try:
        path = os.path.realpath(name, strict=True)
        path.encode()
    except ValueError as error:
        raise ChainError("qemu-nbd cannot be given its name (not UTF-8, or with a NUL)") from error
    if not any(Path(path).is_relative_to(folder) for folder in folders):
        listed = ", ".join(map(_shown, folders)) or "none"
        raise ChainError(
            f"it lies at {_shown(path)}, outside of the repository folders ({listed});"
            " if it may be read, give its folder with --repository"
        )
    return ImageFile(path)


def _file_node(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path)}


def _checked(chain: Chain) -> Chain:
    """Raise ChainError where the description of a chain is too long for a program's argument."""
    if len(chain.blockdev().encode()) >= _MAX_ARGUMENT_BYTES:
        raise ChainError(
            f"{_shown(chain.images[0].path)}: the names of the {len(chain.images)} images in its"
            " backing chain are too long for qemu-nbd; merge some with qemu-img commit or rebase"
        )
    return chain


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Put a file's name before the reason of any failure with it."""
    try:
        yield
    except RestoreError as error:
        raise type(error)(f"{label}: {error}") from error
    except OSError as error:
        raise StorageError(f"{label}: {error.strerror}") from error


def _shown(path: str | Path) -> str:
    """Return a name for a message: as it is, or escaped where it would not print on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)
