"""Notices that an image is changed while its disk is attached.

Backups are not changed, but retention merges them, people copy over them, and disks fill up. What
was read of an image before and what is read afterwards do not belong together: old metadata and
new content would be handed out as one file.

Owns how a file's state is told (Stamp), and how a change is noticed: at once, by inotify, for what
is written through this host's kernel; else by the file's size and time, whenever somebody looks.
A file that was removed is no changed one: qemu has it open, and goes on reading what it was. Must
not know what is done about a change.

Concurrency: an object belongs to the loop, where nothing of it waits. What touches the files is for
worker threads, because their storage may hang: watch() and changed().
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import trio
from inotify_simple import INotify, flags, parse_events

from restorefs.errors import StorageError

log = logging.getLogger(__name__)
_EVENTS_BYTES = 4096


class ChangedError(StorageError):
    """An image is not what it was."""

    @classmethod
    def of(cls, path: Path) -> Self:
        return cls(
            f"{path} was changed while its disk was attached: what was read of it before does not"
            " fit it any more"
        )


class Stamp(NamedTuple):
    """A state of a file; size in bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Unchanged:
    """The files of an attached disk, each with the state that it was inspected in."""

    def __init__(self) -> None:
        self._files: Sequence[tuple[Path, Stamp]] = ()
        self._written: Path | None = None
        self._watches: dict[int, Path] = {}
        self._inotify: INotify | None = None
        with _telling("every image"):
            self._inotify = INotify(nonblocking=True)

    def watch(self, files: Sequence[tuple[Path, Stamp]]) -> None:
        """Begin to watch, once. What happened to a file between its inspection and now is not
        noticed: ask changed()."""
        self._files = files
        inotify = self._inotify
        if inotify is not None:
            with _telling(str(files[0][0])), suppress(ValueError):  # given up meanwhile
                for path, _ in files:
                    self._watches[inotify.add_watch(path, flags.MODIFY)] = path

    def generation(self, of_record: int) -> int:
        """Return a number like DiskRecord.generation, which is another one for other images; the
        same on every host that sees the same files."""
        about = [f"{of_record}", *(f"{each.size} {each.mtime_ns}" for _, each in self._files)]
        digest = blake2b("\0".join(about).encode(), digest_size=4).digest()
        return int.from_bytes(digest) >> 1 or 1

    def written(self) -> Path | None:
        """Return a file that somebody wrote to. To be asked behind every read: does not wait."""
        if self._written is None and self._inotify is not None:
            try:
                raw = os.read(self._inotify.fileno(), _EVENTS_BYTES)
            except BlockingIOError:  # nearly always
                return None
            # An overflow of the queue is of no file: any may be meant.
            found = [self._watches.get(event.wd, self._files[0][0]) for event in parse_events(raw)]
            self._written = found[0] if found else None
        return self._written

    async def wait_written(self) -> Path | None:
        """Wait until somebody writes to a file, and return that; None after end(). For ever where
        it cannot be noticed."""
        if self._inotify is None:
            await trio.sleep_forever()
        while self._inotify is not None and self.written() is None:
            with suppress(trio.ClosedResourceError):  # by end()
                await trio.lowlevel.wait_readable(self._inotify.fileno())
        return self._written

    def changed(self) -> Path | None:
        """Return a file that is not in its state any more."""
        for path, before in self._files:
            try:
                now = stamp(path.stat())
            except OSError:  # removed; or whoever reads it gets that error
                continue
            if now != before:
                return path
        return None

    def end(self) -> None:
        """Watch no more."""
        if self._inotify is not None:
            trio.lowlevel.notify_closing(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Say where a change will be noticed late: without inotify, that is all there is to it."""
    try:
        yield
    except OSError as error:
        log.warning("a change of %s would be noticed late: inotify: %s", what, error.strerror)
