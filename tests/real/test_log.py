"""What becomes of the log when nobody reads it, in a process of its own."""

import fcntl
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = """
import logging, sys
from restorefs.cli.log import Stderr
stderr = Stderr()
stderr.log("info")
log = logging.getLogger()
"""
LINES = 25_000  # more than are kept, twice


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds little."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        os.close(end)


def started(program: str, stderr: int) -> "subprocess.Popen[str]":
    """Start a program that has `stderr` and `log`; what it prints can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
    )


def test_nobody_waits_and_what_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    program = f"""
        log.info("before the start")
        stderr.start()
        for number in range({LINES}):
            log.info("line %d of\\nmany", number)
        print("all is said", flush=True)
        sys.stdin.readline()
        log.info("after")
        stderr.end()
    """
    read, write = pipe
    with started(program, write) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "all is said\n"
        said = b""
        while b"are lost" not in said:
            said += os.read(read, 65536)
        process.stdin.write("go on\n")
        process.stdin.close()
        while not said.endswith(b"after\n"):
            said += os.read(read, 65536)
        assert process.wait() == 0
    first, *lines, about, last = said.decode().splitlines()
    assert first.endswith(" INFO before the start")
    numbers = [int(re.findall(r" INFO line (\d+) of\ufffdmany$", line)[0]) for line in lines]
    assert numbers == list(range(len(numbers)))
    (lost,) = re.findall(r"^\S+ \S+ WARNING stderr .* (\d+) lines of the log are lost$", about)
    assert int(lost) == LINES - len(numbers) > 0
    assert last.endswith(" INFO after")


def test_it_ends_though_nobody_reads(pipe: tuple[int, int]) -> None:
    program = """
        stderr.start()
        for number in range(1000):
            log.info("line %d", number)
        stderr.end()
        sys.stderr.write("lost" * 10_000)
    """
    with started(program, pipe[1]) as process:
        assert process.wait() == 0


def test_a_full_disk(pipe: tuple[int, int]) -> None:
    """Ends nothing; when there is room again, the log says what it has not."""
    program = """
        import os
        log.info("lost")
        log.info("lost, too")
        print("all is said", flush=True)
        os.dup2(os.open(sys.stdin.readline().strip(), os.O_WRONLY), 2)
        stderr.start()
        log.info("written")
        stderr.end()
    """
    read, write = pipe
    with Path("/dev/full").open("wb") as full, started(program, full.fileno()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "all is said\n"
        process.stdin.write(f"/proc/{os.getpid()}/fd/{write}\n")
        process.stdin.close()
        assert process.wait() == 0
    written, about = os.read(read, 4096).decode().splitlines()
    assert written.endswith(" INFO written")
    assert about.endswith(": 2 lines of the log are lost")


@pytest.mark.parametrize("where", ["/dev/full", None])
def test_it_ends_well_though_nothing_can_be_written(where: str | None) -> None:
    """As of a disk that is full until the end, and of a program without a stderr."""
    program = "stderr.start(); log.info('lost'); stderr.end()"
    how = f"exec 2>{where or '&-'}"
    command = ["/bin/sh", "-c", f'{how}; exec "$@"', "sh", sys.executable, "-c", HEAD + program]
    done = subprocess.run(command, check=False, cwd=ROOT)
    assert done.returncode == 0
