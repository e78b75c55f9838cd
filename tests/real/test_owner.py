"""Who attached a disk: real processes, living, ended, and with names that mislead."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restorefs.catalog.owner import Owner, process_start
from tests.tools import require


@contextmanager
def sleeper(program: Path | str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([program, "1000"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def owner_of(pid: int) -> Owner:
    start = process_start(pid)
    assert start is not None
    return Owner("host", pid, start)


def test_a_process_is_gone_once_it_has_ended() -> None:
    with sleeper("sleep") as process:
        owner = owner_of(process.pid)
        assert not owner.is_gone()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.is_gone()
        process.wait()
        assert owner.is_gone()
        assert process_start(process.pid) is None


def test_a_process_of_another_start_is_gone() -> None:
    own = Owner.of_this_process()
    assert not own.is_gone()
    assert Owner(own.host, own.pid, own.pid_start + "0").is_gone()
    assert Owner(own.host, own.pid, "0" + own.pid_start).is_gone()


def test_two_processes_never_look_the_same() -> None:
    with sleeper("sleep") as one, sleeper("sleep") as other:
        assert owner_of(one.pid) != owner_of(other.pid)


def test_a_programs_name_does_not_mislead(tmp_path: Path) -> None:
    require("sleep")
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(str(shutil.which("sleep")), program)
    with sleeper(program) as process:
        owner = owner_of(process.pid)
        ticks = Path(f"/proc/{process.pid}/stat").read_text().split()[-31]
        assert owner.pid_start.endswith(f"/{ticks}")
        assert not owner.is_gone()
