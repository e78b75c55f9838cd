"""The runtime folder: of one daemon at a time, and gone with it."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from restorefs import runtime
from restorefs.config import Settings
from restorefs.errors import ConfigError, MountError
from tests.tools import require_root

ME = (os.geteuid(), os.getegid())
NOBODY = (pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)

_HOLDING = """
import sys
from pathlib import Path
from restorefs.config import Settings
from restorefs.runtime import held, introduced

mountpoint, runtime_dir, uid, gid = sys.argv[1:]
settings = Settings(mountpoint=Path(mountpoint), runtime_dir=Path(runtime_dir))
with held(settings, (int(uid), int(gid)), lambda: None) as folder, introduced(settings):
    (folder / "a.sock").touch()
    print("held", flush=True)
    sys.stdin.read()
"""
_TURNS = """
import sys
from pathlib import Path
from restorefs.config import Settings
from restorefs.runtime import held

settings = Settings(mountpoint=Path(sys.argv[1]), runtime_dir=Path(sys.argv[2]))
for _ in range(40):
    with held(settings, (0, 0), lambda: None) as folder:
        alone = folder / "alone"
        alone.open("x").close()
        alone.unlink()
"""


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="restorefs-"))
    yield Settings(mountpoint=folder / "mnt", runtime_dir=folder / "run")
    shutil.rmtree(folder)


@contextmanager
def holding(settings: Settings, owner: tuple[int, int] = ME) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the folder, which ends with its input."""
    places = (str(settings.mountpoint), str(settings.runtime_dir), *map(str, owner))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def nothing() -> None:
    pass


def test_it_is_there_while_it_is_held(settings: Settings) -> None:
    with runtime.held(settings, ME, nothing) as folder, runtime.introduced(settings):
        assert folder == settings.instance_dir
        assert folder.stat().st_mode & 0o777 == 0o700
        about = json.loads((folder / "instance.json").read_text())
        assert about == {"mountpoint": str(settings.mountpoint), "pid": os.getpid()}
        (folder / "some.sock").touch()
    assert list(settings.runtime_dir.iterdir()) == []


def test_it_goes_with_a_start_that_fails(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="refused"), runtime.held(settings, ME, nothing):
        raise ConfigError("refused")
    assert list(settings.runtime_dir.iterdir()) == []


@pytest.mark.parametrize("owner", [ME, NOBODY], ids=["the-same-user", "another-user"])
def test_who_lives_keeps_it(
    owner: tuple[int, int], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if owner != ME:
        require_root()
    monkeypatch.setattr(runtime, "_WAIT_SECONDS", 0.0)
    with holding(settings, owner) as process:
        before = sorted(settings.instance_dir.iterdir())
        assert len(before) == 2
        said = f"process {process.pid} has not let go of {settings.mountpoint}"
        with pytest.raises(MountError, match=said), runtime.held(settings, ME, nothing):
            pass
        assert sorted(settings.instance_dir.iterdir()) == before
        assert settings.instance_dir.stat().st_uid == owner[0]


def test_waiting_may_be_in_vain(settings: Settings) -> None:
    def mounted() -> None:
        raise MountError("something is mounted there already")

    with (
        holding(settings),
        pytest.raises(MountError, match="mounted there already"),
        runtime.held(settings, ME, mounted),
    ):
        pass


def test_who_ends_is_waited_for(settings: Settings) -> None:
    with holding(settings) as process:

        def end() -> None:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()

        with runtime.held(settings, ME, end) as folder:
            assert list(folder.iterdir()) == []
            assert process.wait() == 0  # it let go, and what it had there was gone by then
            assert folder.exists()


@pytest.mark.parametrize("owner", [ME, NOBODY], ids=["the-same-user", "another-user"])
def test_what_a_crash_left_is_removed(owner: tuple[int, int], settings: Settings) -> None:
    if owner != ME:
        require_root()
    with holding(settings, owner) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(settings.instance_dir.iterdir())) == 2
    for new_owner in (ME, owner):
        with runtime.held(settings, new_owner, nothing) as folder:
            assert list(folder.iterdir()) == []
            assert folder.stat().st_uid == new_owner[0]


def test_of_many_one_has_it(settings: Settings) -> None:
    places = (str(settings.mountpoint), str(settings.runtime_dir))
    script = _TURNS.replace("(0, 0)", repr(ME))
    processes = [
        subprocess.Popen([sys.executable, "-c", script, *places], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert all(code == 0 for _, code in ends), ends
    assert list(settings.runtime_dir.iterdir()) == []


def test_what_is_no_folder_of_ours(settings: Settings) -> None:
    settings.runtime_dir.mkdir()
    target = settings.runtime_dir / "target"
    target.mkdir()
    settings.instance_dir.symlink_to(target)
    with (
        pytest.raises(ConfigError, match="cannot use the runtime folder"),
        runtime.held(settings, ME, nothing),
    ):
        pass
    settings.runtime_dir.chmod(0o777)
    with pytest.raises(ConfigError, match="only we can write"):
        runtime.held(settings, ME, nothing).__enter__()
