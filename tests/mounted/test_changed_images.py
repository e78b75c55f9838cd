"""Images that somebody changes: nothing of the old state is ever mixed with the new one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import tree
from tests.mounted.conftest import Serve
from tests.mounted.daemon import Daemon, restorefs
from tests.mounted.disks import MIB, Sample, copy_of, ext, qcow2
from tests.mounted.reading import digests, error_of, reading
from tests.tools import run, wait_until

WEB1 = f"{Sample.full}/disk1"


@pytest.fixture
def image(sample: Sample, tmp_path: Path) -> Path:
    """A disk's image that may be changed: an ext4 with `big` and `small`."""
    return copy_of(sample.repository, tmp_path) / f"{WEB1}.qcow2"


@pytest.fixture
def daemon(serve: Serve, image: Path, tmp_path: Path) -> Daemon:
    """One with a database, which says nothing of an image but where it is."""
    url = f"sqlite:///{tmp_path}/catalog.db"
    repository = image.parent.parent
    done = restorefs("scan", repository, "--catalog", url)
    assert done.code == 0, done.err
    return serve("--catalog", url, "--repository", repository)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """The image of a file system like the first one, but with other content."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "big").write_bytes(tree.content("other big", 24 * MIB))
    (folder / "small").write_text("other\n")
    (folder / "more").write_text("more\n")
    raw = ext(tmp_path / "raw", "ext4", folder, 40 * MIB, "-L", "data", "-m", "0")
    yield qcow2(raw, tmp_path / "other.qcow2")
    shutil.rmtree(folder)


def assert_other(folder: Path, tmp_path: Path) -> None:
    wait_until(lambda: error_of(os.listdir, folder) == "", "it is looked at afresh")
    run("diff", "-r", "--exclude", "lost+found", tmp_path / "other", folder)


def test_truncated(daemon: Daemon, image: Path, sample: Sample) -> None:
    disk = daemon.backups / WEB1
    assert (disk / "small").read_text() == "small\n"
    daemon.expect(f"ERROR {WEB1}: .*disk1.qcow2 was changed while", "ERROR .*truncated")
    with (disk / "big").open("rb") as big:
        os.truncate(image, 3 * MIB)
        for offset in (12 * MIB, 20 * MIB):
            assert error_of(os.pread, big.fileno(), 4096, offset) == "EIO"
    wait_until(lambda: daemon.attached() == {}, "the disk is let go")
    daemon.wait_logged(f"detached {WEB1}: its image was changed")
    assert error_of(os.listdir, disk) == "EIO"
    (failure,) = daemon.status()["failures"]
    assert "truncated" in failure["reason"]


def test_overwritten(daemon: Daemon, image: Path, other: Path, tmp_path: Path) -> None:
    disk = daemon.backups / WEB1
    assert sorted(each.name for each in disk.iterdir()) == ["big", "lost+found", "small"]
    assert (disk / "small").read_text() == "small\n"
    daemon.expect(f"{WEB1}: .*disk1.qcow2 was changed while", f"{WEB1}: .* not the same as before")
    with (disk / "big").open("rb") as old:
        old.read(4096)
        with other.open("rb") as new, image.open("r+b") as over:
            shutil.copyfileobj(new, over)
            over.truncate()
        assert error_of(os.pread, old.fileno(), 4096, 20 * MIB) in ("EIO", "ESTALE")
        assert_other(disk, tmp_path)
        assert error_of(os.pread, old.fileno(), 4096, 22 * MIB) == "ESTALE", "and not other content"


@pytest.mark.parametrize("how", ["renamed", "written"])
def test_replaced_while_nobody_looks(
    daemon: Daemon, image: Path, other: Path, tmp_path: Path, how: str
) -> None:
    """What the kernel keeps of the old one is not shown as the new one's."""
    disk = daemon.backups / WEB1
    assert (disk / "small").read_text() == "small\n"
    small = (disk / "small").stat()
    assert daemon.cli("detach", Sample.full, "1").code == 0
    daemon.expect(f"{WEB1}: .* not the same as before")
    if how == "renamed":
        other.rename(image)
    else:
        image.write_bytes(other.read_bytes())
    assert_other(disk, tmp_path)
    assert (disk / "small").stat().st_ino != small.st_ino


def test_removed(daemon: Daemon, image: Path, sample: Sample) -> None:
    """Who reads it goes on doing so."""
    disk = daemon.backups / WEB1
    assert (disk / "small").read_text() == "small\n"
    image.unlink()
    offsets = [12 * MIB, 20 * MIB]
    with reading(disk / "big", *offsets) as reader:
        assert reader.results() == digests(sample.sources.data / "big", *offsets)
    assert daemon.cli("detach", Sample.full, "1").code == 0
    daemon.expect(f"ERROR {WEB1}: .*disk1.qcow2")
    assert error_of(os.listdir, disk) == "EIO"


def test_a_backing_file_is_changed(daemon: Daemon, image: Path) -> None:
    """As when an incremental is merged into what it is based on."""
    later = f"{Sample.incremental}/disk0"
    folder = daemon.backups / later / "part3"
    assert (folder / "etc" / "hostname").read_text() == "web-renamed\n"
    base = image.with_name("disk0.qcow2")
    daemon.expect(f"ERROR {later}: .*{Sample.full}/disk0.qcow2 was changed while", "not the same")
    with base.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(bytes(65536))
    wait_until(lambda: daemon.attached() == {}, "the disk is let go")
    wait_until(lambda: error_of(os.listdir, folder) == "", "it is looked at afresh")
    assert (folder / "etc" / "hostname").read_text() == "web-renamed\n"
