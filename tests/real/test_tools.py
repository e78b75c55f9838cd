"""The test tools themselves: nothing stays attached or mounted, whatever happens in between."""

from pathlib import Path

import pytest

from tests.images.ext import Images
from tests.tools import loop_device, loop_mount, require, run


def backing_files() -> str:
    return run("losetup", "--noheadings", "--output", "BACK-FILE")


def test_a_failing_program_is_an_error_with_its_output() -> None:
    with pytest.raises(AssertionError, match="no-such-file"):
        run("ls", "/no-such-file")
    assert run("echo", "said") == "said\n"


def test_a_missing_program_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREFS_REQUIRE_ALL", "0")
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("sh", "no-such-program")
    monkeypatch.setenv("RESTOREFS_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("sh", "no-such-program")
    require("sh")


def test_a_mount_ends_with_its_block_also_on_failure(ext_images: Images) -> None:
    image = ext_images("ext4_small_plain")

    def fail_inside() -> None:
        with loop_mount(image, "ext4") as root:
            roots.append(root)
            assert (root / "sound").read_bytes() == b"a sound file"
            assert str(image) in backing_files()
            raise ZeroDivisionError

    roots: list[Path] = []
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    (root,) = roots
    assert not root.exists()
    assert str(image) not in backing_files()


def test_a_mount_that_is_still_in_use_is_taken_away_and_said(ext_images: Images) -> None:
    image = ext_images("ext4_small_plain")
    with pytest.raises(AssertionError, match="busy"), loop_mount(image, "ext4") as root:
        opened = (root / "sound").open("rb")
    opened.close()
    assert not root.exists()
    assert str(image) not in backing_files()


def test_what_cannot_be_mounted_leaves_nothing(tmp_path: Path) -> None:
    image = tmp_path / "zeros.img"
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(AssertionError), loop_mount(image, "ext4"):
        pass
    assert str(image) not in backing_files()


def test_a_part_of_an_image_can_be_attached(ext_images: Images, tmp_path: Path) -> None:
    content = ext_images("ext4_small_plain").read_bytes()
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20) + content + b"behind")
    with loop_device(image, offset=1 << 20, size=len(content)) as device:
        assert int(run("blockdev", "--getsize64", device)) == len(content)
        assert run("blockdev", "--getro", device).strip() == "1"
    with loop_mount(image, "ext4", offset=1 << 20, size=len(content)) as root:
        assert (root / "sound").exists()
    assert str(image) not in backing_files()
