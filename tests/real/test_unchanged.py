"""How a change of an image's files is noticed."""

import logging
import mmap
import os
import resource
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from restorefs.session.unchanged import Unchanged, stamp


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    return path


def watching(file: Path) -> Unchanged:
    unchanged = Unchanged()
    unchanged.watch([(file, stamp(file.stat()))])
    return unchanged


async def test_writing_is_noticed_at_once(file: Path) -> None:
    unchanged = watching(file)
    assert file.read_bytes() == bytes(8192)
    file.chmod(0o600)
    assert unchanged.written() is None
    with file.open("r+b") as opened:
        opened.write(b"x")
    assert unchanged.written() == file
    assert await unchanged.wait_written() == file
    unchanged.end()


async def test_cutting_is_writing(file: Path) -> None:
    unchanged = watching(file)
    os.truncate(file, 100)
    assert unchanged.written() == file
    unchanged.end()


async def test_what_inotify_does_not_see(file: Path) -> None:
    unchanged = watching(file)
    assert unchanged.changed() is None
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        os.utime(file, (1, 1))  # the kernel's clock for files may stand still meanwhile
        mapped[0] = 1
        mapped.flush()
    assert unchanged.changed() == file
    unchanged.end()


async def test_another_file_in_its_place(file: Path, tmp_path: Path) -> None:
    unchanged = watching(file)
    other = tmp_path / "other"
    other.write_bytes(bytes(8192))
    before = file.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)
    assert unchanged.changed() == file
    file.unlink()
    assert unchanged.changed() is None, "who has it open can go on"
    unchanged.end()


async def test_who_waits_is_told_of_the_end(file: Path, autojump_clock: MockClock) -> None:
    unchanged = watching(file)
    found: list[Path | None] = []

    async def wait() -> None:
        found.append(await unchanged.wait_written())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        unchanged.end()
    assert found == [None]


async def test_without_inotify(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        unchanged = Unchanged()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Too many open files" in record.message
    unchanged.watch([(file, stamp(file.stat()))])
    os.truncate(file, 100)
    assert unchanged.written() is None
    assert unchanged.changed() == file
    unchanged.end()


async def test_the_generation_is_of_what_every_host_sees(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(file.read_bytes())
    before = file.stat()
    os.utime(copy, ns=(0, before.st_mtime_ns))
    first, second = watching(file), watching(copy)
    assert first.generation(1) == second.generation(1) != first.generation(2)
    os.utime(copy, ns=(0, before.st_mtime_ns + 1))
    third = watching(copy)
    assert third.generation(1) != first.generation(1)
    assert 0 < third.generation(1) < 1 << 31
    for each in (first, second, third):
        each.end()
