"""The process that unmounts, with the machine's own umount(8) and with one that complains."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import require, require_root

# In a mount namespace of its own, in which umount(8) may be another one.
_SCRIPT = """
import os, shutil, subprocess, sys
from pathlib import Path
from restorefs.errors import RestoreError
from restorefs.fuse.unmounter import unmounter

folder, complaint, status = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
mountpoint, removed = folder / "mnt", folder / "removed"
mountpoint.mkdir()
removed.mkdir()
real = os.path.realpath(shutil.which("umount"))
own, other = folder / "umount", folder / "other"
shutil.copy(real, own)
own.chmod(0o755)
body = f"echo {complaint} >&2" if complaint else ":"
other.write_text(f"#!/bin/sh\\n{body}\\n" + (f"exec {own} $*" if not status else f"exit {status}"))
other.chmod(0o755)
subprocess.run(["mount", "--bind", other, real], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", mountpoint], check=True)
with unmounter(mountpoint, removed) as child:
    try:
        child.unmount()
        print("unmounted")
    except RestoreError as error:
        print(error)
assert os.path.ismount(mountpoint) == bool(status)
assert not removed.exists()
"""


@pytest.mark.parametrize(
    ("complaint", "status", "said"),
    [
        ("", 0, "unmounted"),
        ("umount: a line of fstab is odd", 0, "unmounted"),
        ("umount: target is odd", 32, "cannot unmount {}: umount: target is odd"),
        ("", 1, "cannot unmount {}: umount failed"),
    ],
)
def test_what_umount_says(complaint: str, status: int, said: str, tmp_path: Path) -> None:
    require_root()
    require("unshare", "setpriv")
    done = subprocess.run(
        [
            *("unshare", "--mount", sys.executable, "-c", _SCRIPT),
            *(str(tmp_path), complaint, str(status)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said.format(tmp_path / "mnt") + "\n"
