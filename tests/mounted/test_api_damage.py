"""The API over file systems that are damaged, or made to do harm.

Nothing is left out of an answer without a word, and every answer comes to an end. What is wrong
with an image was made with debugfs, or with the kernel; what it still holds is known from the
folder that it was made of.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.ext import debugfs, inode_offset, patch
from tests.mounted.api import Api, api, lines_of
from tests.mounted.disks import MIB, ext, qcow2

DAMAGED, LOOPS = "backup-damaged-1700000000", "backup-loops-1700000000"
LEVELS = 40


def damaged(folder: Path) -> Path:
    """An ext4 in which the inodes of a folder, a file and a link's folder have wrong checksums."""
    source = folder / "damaged"
    for name in ("sound", "broken", "other"):
        (source / name).mkdir(parents=True)
        (source / name / "inside").write_text(f"{name}\n")
    (source / "victim").write_text("victim\n")
    volume = ext(folder / "damaged.img", "ext4", source, 8 * MIB, "-O", "metadata_csum")
    for path in ("/broken", "/victim"):
        patch(volume, inode_offset(volume, path) + 24, b"\xff\xff")  # its owners' group
    return volume


def looped(folder: Path) -> Path:
    """An ext4 in which a folder holds itself, twice, and others lie in two places each."""
    source = folder / "looped"
    (source / "loop").mkdir(parents=True)
    (source / "loop" / "file").write_text("in a loop\n")
    below = source / "ladder"
    below.mkdir()
    for _ in range(LEVELS):
        below /= "a"
        below.mkdir()
    (below / "file").write_text("at the end\n")
    volume = ext(folder / "looped.img", "ext4", source, 8 * MIB)
    changes = ["ln /loop /loop/again", "ln /loop /loop/and-again"]
    path = "/ladder"
    for _ in range(LEVELS):
        changes.append(f"ln {path}/a {path}/b")
        path += "/a"
    debugfs(volume, *changes, write=True)
    return volume


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    for backup, make in ((DAMAGED, damaged), (LOOPS, looped)):
        qcow2(make(folder), folder / "repository" / backup / "disk0.qcow2")
    return folder / "repository"


@pytest.fixture(scope="module", params=["posix", "samba"])
def hurt(request: pytest.FixtureRequest, repository: Path) -> Iterator[Api]:
    with (
        tempfile.TemporaryDirectory() as folder,
        api(Path(folder), "--images", repository, "--profile", request.param) as found,
    ):
        found.daemon.expect(f"ERROR {DAMAGED}/disk0: inode .* wrong checksum")
        search(found, DAMAGED, "inside")
        yield found


def search(found: Api, backup: str, pattern: str, path: str = "/") -> tuple[list[Any], list[Any]]:
    """Return the paths that match, and the errors; the end must count them."""
    query = {"pattern": pattern}
    *records, end = lines_of(found.raw(found.mount(backup), "search", path, query=query))
    errors = [each for each in records if each["record"] == "error"]
    assert end["record"] == "end"
    assert (end["errors"], end["complete"]) == (len(errors), not errors)
    return [each["path"] for each in records if each["record"] == "match"], errors


def test_a_search_says_what_folder_it_could_not_look_into(hurt: Api) -> None:
    matches, (error,) = search(hurt, DAMAGED, "inside")
    assert set(matches) == {"/sound/inside", "/other/inside"}
    assert (error["path"], error["errno"]) == ("/broken", "EIO")
    assert "checksum" in error["detail"]
    matches, errors = search(hurt, DAMAGED, "victim")
    assert matches == ["/victim"], "its name is known"
    assert len(errors) == 1, "a file has nothing below it"


def test_a_listing_says_what_attributes_could_not_be_read(hurt: Api) -> None:
    told = hurt.get(f"/restore/{hurt.mount(DAMAGED)}/files")["files"]
    errors = {each["name"] for each in told if "error" in each}
    assert errors == {"broken", "victim"}
    for each in told:
        if each["name"] in errors:
            assert (each["size"], each["mode"], each["modified_time"]) == (0, "0000", None)
    types = {each["name"]: each["type"] for each in told}
    assert types["broken"] == "directory"
    assert types["victim"] == "file"


def test_a_search_of_folders_that_hold_themselves_ends(hurt: Api) -> None:
    matches, errors = search(hurt, LOOPS, "file", "/loop")
    assert matches == ["/loop/file"]
    assert {each["path"] for each in errors} == {"/loop/again", "/loop/and-again"}
    assert all("inside itself" in each["detail"] for each in errors)


def test_a_search_of_folders_that_lie_in_two_places_ends(hurt: Api) -> None:
    matches, errors = search(hurt, LOOPS, "file", "/ladder")
    assert len(matches) == 1
    assert len(errors) == LEVELS
    assert all("second place" in each["detail"] for each in errors)
