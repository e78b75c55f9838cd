"""What a mount's settings make of themselves, and which of them cannot work."""

from pathlib import Path
from typing import Any

import pytest

from restorefs import config
from restorefs.config import PROFILES, Settings, default_runtime_dir, real_mountpoint
from restorefs.errors import ConfigError
from restorefs.tree.presentation import Profile

MOUNTPOINT = Path("/mnt/restore")
RUNTIME = Path("/run/restorefs")


def settings(mountpoint: Path = MOUNTPOINT, **more: Any) -> Settings:
    where = {} if {"catalog_url", "images"} & set(more) else {"catalog_url": "sqlite:///c.db"}
    return Settings(mountpoint=mountpoint, **{"runtime_dir": RUNTIME, **where, **more})


def refusal(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.check()
    return str(caught.value)


def test_either_a_catalog_or_a_folder_of_images() -> None:
    settings(catalog_url="sqlite:///c.db").check()
    settings(images=Path("/srv/backups")).check()
    assert "--catalog" in refusal(settings(catalog_url=None))
    assert "--images" in refusal(settings(catalog_url="sqlite:///c.db", images=Path("/srv")))


def test_a_profile_is_one_that_there_is() -> None:
    assert {str(profile) for profile in Profile} == set(PROFILES)
    for profile in PROFILES:
        settings(profile=profile).check()
    assert "posix, samba, plain" in refusal(settings(profile="windows"))


def test_a_mountpoint_that_would_hide_the_images_is_refused() -> None:
    for mountpoint in ("/", "/srv", "/srv/backups"):
        for where in (
            {"images": Path("/srv/backups")},
            {"repositories": (Path("/srv/backups"),)},
        ):
            message = refusal(settings(Path(mountpoint), **where))
            assert "/srv/backups" in message
            assert mountpoint in message
    settings(Path("/srv/backups2"), images=Path("/srv/backups")).check()
    settings(Path("/srv/back"), images=Path("/srv/backups")).check()
    one_of_two = settings(Path("/data"), repositories=(Path("/srv"), Path("/data/backups")))
    assert "/data/backups" in refusal(one_of_two)


def test_a_mountpoint_among_the_images_is_refused() -> None:
    message = refusal(settings(Path("/srv/backups/mnt"), images=Path("/srv/backups")))
    assert "inside" in message
    # but a repository may hold more than images
    settings(Path("/srv/backups/mnt"), repositories=(Path("/srv/backups"),)).check()


def test_links_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "real" / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/images")
    images = tmp_path / "link"
    assert "contains" in refusal(settings(tmp_path / "real", images=images))
    assert "contains" in refusal(settings(tmp_path / "real" / "images", images=images))
    other = settings(tmp_path / "real")
    with pytest.raises(ConfigError, match="contains"):
        other.check_outside([tmp_path / "elsewhere", images])


def test_the_real_mountpoint(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to("mnt")
    (tmp_path / "up").symlink_to(tmp_path)
    assert real_mountpoint(tmp_path / "mnt") == tmp_path / "mnt"
    assert real_mountpoint(tmp_path / "link") == tmp_path / "mnt"
    assert real_mountpoint(tmp_path / "up" / "mnt") == tmp_path / "mnt"
    assert real_mountpoint(tmp_path / "mnt" / ".." / "mnt" / ".") == tmp_path / "mnt"
    assert real_mountpoint(tmp_path / "mnt" / "..") == tmp_path
    assert real_mountpoint(tmp_path / "not-there") == tmp_path / "not-there"
    assert real_mountpoint(Path("/")) == Path("/")


def test_a_relative_mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert real_mountpoint(Path("mnt")) == tmp_path.resolve() / "mnt"
    assert real_mountpoint(Path()) == tmp_path.resolve()


def test_images_must_lie_in_the_repositories_or_else_in_the_folder_of_images() -> None:
    one, two = Path("/srv/one"), Path("/srv/two")
    assert settings().allowed_folders == ()
    assert settings(images=one).allowed_folders == (one,)
    assert settings(images=one, repositories=(two,)).allowed_folders == (two,)
    assert settings(repositories=(one, two)).allowed_folders == (one, two)


def test_each_mountpoint_has_a_runtime_folder_of_its_own() -> None:
    one = settings(Path("/mnt/one")).instance_dir
    assert one.parent == RUNTIME
    assert one == settings(Path("/mnt/one"), images=Path("/srv")).instance_dir
    assert one != settings(Path("/mnt/two")).instance_dir


def test_a_runtime_folder_too_long_for_sockets_is_refused() -> None:
    assert "--runtime-dir" in refusal(settings(runtime_dir=Path("/run/" + "x" * 80)))
    long = settings(runtime_dir=Path("/run/" + "x" * 62))
    long.check()
    longest = long.instance_dir / "disk2097151-99999.sock"
    assert len(bytes(longest)) <= 107, "unix(7): sun_path has 108 bytes with the final zero"


def test_the_default_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_runtime_dir() == Path("/run/restorefs")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_runtime_dir() == Path("/run/user/1000/restorefs")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_runtime_dir() == Path("/tmp/restorefs-1000")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 60.0),
        ({"default_request_timeout": "0\n", "max_request_timeout": "0\n"}, 60.0),
        ({"default_request_timeout": "30\n"}, 24.0),
        ({"default_request_timeout": "0\n", "max_request_timeout": "50\n"}, 40.0),
        ({"default_request_timeout": "30\n", "max_request_timeout": "20\n"}, 16.0),
        ({"max_request_timeout": "3600\n"}, 60.0),
        ({"max_request_timeout": "soon\n"}, 60.0),
    ],
)
def test_timeouts_end_before_the_kernels(
    files: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(config, "_REQUEST_TIMEOUTS", tmp_path)
    assert settings().bounded(60.0) == expected
