"""Names above the guests that come to mean something else, while people look."""

import signal
from pathlib import Path

import pytest

from tests.mounted import disks
from tests.mounted.conftest import Serve
from tests.mounted.disks import MIB
from tests.mounted.reading import error_of
from tests.tools import require, run, wait_until


def image(folder: Path, shape: str, name: str, text: str) -> Path:
    """Make a qcow2 disk whose file system holds `who` with the text, in a partition or alone."""
    source = folder / f"source-{text}"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "who").write_text(text)
    (source / f"only-{text}").write_text(text)
    raw = disks.ext(folder / f"{text}.raw", "ext4", source, 8 * MIB)
    if shape == "part1":
        disks.gpt(folder / f"{text}.disk", (disks.LINUX, raw))
        raw = folder / f"{text}.disk"
    return disks.qcow2(raw, folder / name)


@pytest.mark.parametrize("shape", ["part1", "."])
def test_a_newer_restore_point_takes_over_its_name(
    serve: Serve, tmp_path: Path, shape: str
) -> None:
    repository = tmp_path / "repository"
    disk = repository / "b1" / "disk-0"
    disk.mkdir(parents=True)
    (image(tmp_path, shape, "1.qcow2", "old")).rename(disk / "b1-disk0-20250101-000000.qcow2")
    daemon = serve("--images", repository)
    root = daemon.backups / "b1" / "disk0" / shape
    assert (root / "etc" / "who").read_text() == "old"
    assert not (root / "only-new").exists()
    (image(tmp_path, shape, "2.qcow2", "new")).rename(disk / "b1-disk0-20250201-000000.qcow2")
    daemon.send(signal.SIGHUP)
    earlier = daemon.backups / "b1@20250101-000000"
    wait_until(earlier.exists, "the older restore point has a name of its own")
    wait_until((root / "only-new").exists, "the newer one has taken over", seconds=20)
    # What was found by a name above the guests is kept for a second.
    wait_until(lambda: (root / "etc" / "who").read_text() == "new", "its folders too", seconds=20)
    assert not (root / "only-old").exists()
    assert (earlier / "disk0" / shape / "etc" / "who").read_text() == "old"


def test_an_image_that_is_replaced_is_another_disk(serve: Serve, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "b1").mkdir(parents=True)
    path = repository / "b1" / "disk0.qcow2"
    image(tmp_path, "part1", "1.qcow2", "old").rename(path)
    daemon = serve("--images", repository)
    root = daemon.backups / "b1" / "disk0" / "part1"
    assert (root / "etc" / "who").read_text() == "old"
    image(tmp_path, "part1", "2.qcow2", "new").rename(path)
    daemon.send(signal.SIGHUP)
    wait_until((root / "only-new").exists, "the new image is shown", seconds=20)
    assert (root / "etc" / "who").read_text() == "new"


def test_a_name_of_an_unused_inode_is_damage_not_absence(serve: Serve, tmp_path: Path) -> None:
    require("debugfs")
    source = tmp_path / "source"
    source.mkdir()
    (source / "sound").write_text("sound")
    (source / "cleared").write_text("cleared")
    raw = disks.ext(tmp_path / "raw", "ext4", source, 8 * MIB)
    run("debugfs", "-w", "-R", "clri cleared", raw)
    (tmp_path / "repository" / "b1").mkdir(parents=True)
    disks.qcow2(raw, tmp_path / "repository" / "b1" / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    daemon.expect("cleared")
    root = daemon.backups / "b1" / "disk0"
    assert {"sound", "cleared"} <= {path.name for path in root.iterdir()}
    assert error_of((root / "cleared").stat) == "EIO"
    assert (root / "sound").read_text() == "sound"
