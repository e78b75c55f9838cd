"""What is mounted on a folder, as the kernel shows it to whoever looks there: stat(2)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import require, require_root

# In a mount namespace of its own, where nothing is anybody else's.
_SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from restorefs.fuse.mountinfo import mount_of, mounted_on

top = Path(sys.argv[1])

def mount(where, kind="tmpfs"):
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, "none", where], check=True)

def check(path, mounted=True):
    about = path.stat()
    device = f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
    assert mount_of(path).device == device, (path, mount_of(path), device)
    found = mounted_on(path)
    assert (found is not None) == mounted == os.path.ismount(path), (path, found)
    assert found is None or found == mount_of(path), (path, found)

"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("check(top, mounted=False); mount(top); check(top)", id="one"),
        pytest.param("mount(top); mount(top); check(top)", id="a-stack"),
        pytest.param("mount(top); mount(top, 'proc'); check(top)", id="another-kind"),
        pytest.param(
            """
elder, younger = top / "elder", top / "younger"
mount(elder)
mount(younger)
subprocess.run(["mount", "--move", elder, younger], check=True)
check(younger)
check(elder, mounted=False)
""",
            id="an-elder-one-on-top",
        ),
        pytest.param(
            """
above, below = top / "above", top / "above" / "below"
above.mkdir()
mount(below)
mount(above)
below.mkdir()
check(below, mounted=False)
mount(below)
check(below)
subprocess.run(["umount", below], check=True)
check(below, mounted=False)
""",
            id="hidden",
        ),
        pytest.param(
            "odd = top / 'a b\\\\040\\n\\tc\\udcff\\xe9'; mount(odd); check(odd)",
            id="odd-names",
        ),
        pytest.param(
            "mount(top); (top / 'in').mkdir(); check(top / 'in', mounted=False); check(Path('/'))",
            id="inside",
        ),
    ],
)
def test_what_is_mounted(script: str, tmp_path: Path) -> None:
    require_root()
    require("unshare")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _SCRIPT + script, str(tmp_path.resolve())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
