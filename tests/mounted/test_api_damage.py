"""The API over file systems that are damaged, or made to do harm.

Nothing is left out of an answer without a word, and every answer comes to an end. What is wrong
with an image was made with debugfs, or with the kernel; what it still holds is known from the
folder that it was made of.
"""

import io
import os
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.images.ext import debugfs, file_blocks, inode_offset, patch, peek
from tests.mounted.api import Api, api, lines_of, run_bytes
from tests.mounted.disks import MIB, ext, qcow2

DAMAGED, LOOPS = "backup-damaged-1700000000", "backup-loops-1700000000"
TWINS, LONG = "backup-twins-1700000000", "backup-long-1700000000"
LEVELS = 40
LONG_LEVELS = 90


def damaged(folder: Path) -> Path:
    """An ext4 in which the inodes of a folder and of a file have wrong checksums."""
    source = folder / "damaged"
    for name in ("sound", "broken", "other"):
        (source / "nest" / name).mkdir(parents=True)
        (source / "nest" / name / "inside").write_text(f"{name}\n")
    (source / "nest" / "victim").write_text("victim\n")
    (source / "RESTOREFS-ERRORS.txt").write_text("the guest's own\n")
    volume = ext(folder / "damaged.img", "ext4", source, 8 * MIB, "-O", "metadata_csum")
    for path in ("/nest/broken", "/nest/victim"):
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


def twins(folder: Path) -> Path:
    """An ext4 with a link and a folder, and two files, of one name each."""
    source = folder / "twins"
    (source / "in").mkdir(parents=True)
    (source / "in" / "first").write_text("first\n")
    (source / "in" / "twin").symlink_to("/outside")
    second = folder / "second"
    second.write_text("second\n")
    volume = ext(folder / "twins.img", "ext4", source, 8 * MIB, "-O", "^metadata_csum")
    debugfs(
        volume,
        *("mkdir /in/twi2", f"write {second} /in/twi2/passwd", f"write {second} /in/firs2"),
        write=True,
    )
    (block,) = file_blocks(volume, "/in")
    names = peek(volume, block * 1024, 1024)
    patch(volume, block * 1024, names.replace(b"twi2", b"twin").replace(b"firs2", b"first"))
    return volume


def long(folder: Path) -> Path:
    """An ext4 with folders in folders, whose names are not UTF-8: in a zip, a byte takes three."""
    source = folder / "long"
    source.mkdir()
    with ExitStack() as stack:
        here = os.open(source, os.O_RDONLY)
        stack.callback(os.close, here)
        for _ in range(LONG_LEVELS):
            os.mkdir(b"\xff" * 255, dir_fd=here)
            here = os.open(b"\xff" * 255, os.O_RDONLY, dir_fd=here)
            stack.callback(os.close, here)
    (source / "short").write_text("short\n")
    return ext(folder / "long.img", "ext4", source, 8 * MIB)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    for backup, make in ((DAMAGED, damaged), (LOOPS, looped), (TWINS, twins), (LONG, long)):
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
    assert set(matches) == {"/nest/sound/inside", "/nest/other/inside"}
    assert (error["path"], error["errno"]) == ("/nest/broken", "EIO")
    assert "checksum" in error["detail"]
    matches, errors = search(hurt, DAMAGED, "victim")
    assert matches == ["/nest/victim"], "its name is known"
    assert len(errors) == 1, "a file has nothing below it"


def test_a_listing_says_what_attributes_could_not_be_read(hurt: Api) -> None:
    told = hurt.get(f"/restore/{hurt.mount(DAMAGED)}/files", path="/nest")["files"]
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


# Archives


def archive(
    found: Api, backup: str, *paths: str, packed_as: str = "tar.zst", **query: str
) -> tuple[dict[str, str], str]:
    """Return an archive's members, each with its content or "", and the list of what is not in it
    (of the name that comes last)."""
    params = {"path": list(paths), "format": packed_as, "errors": "list"} | query
    url = f"/api/v1/restore/{found.mount(backup)}/archive"
    response = found.client.get(url, params=params)
    assert response.status_code == 200, response.text
    names, contents = [], []
    if packed_as == "zip":
        with zipfile.ZipFile(io.BytesIO(response.content)) as opened:
            assert opened.testzip() is None
            for info in opened.infolist():
                names.append(info.filename.rstrip("/"))
                contents.append(opened.read(info).decode())
    else:
        raw = run_bytes("zstd", "-dc", given=response.content)
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                names.append(member.name)
                content = tar.extractfile(member) if member.isreg() else None
                contents.append(content.read().decode() if content is not None else "")
    assert max(Counter(names).values()) == 1, "no name twice"
    return dict(zip(names, contents, strict=True)), contents[-1]


FORMATS = pytest.mark.parametrize("packed_as", ["zip", "tar.zst"])


@FORMATS
def test_an_archive_of_folders_that_hold_themselves_ends(hurt: Api, packed_as: str) -> None:
    found, unread = archive(hurt, LOOPS, "/loop", packed_as=packed_as)
    assert found.keys() == {"loop", "loop/file", "RESTOREFS-ERRORS.txt"}
    assert "loop/again: this folder is inside itself" in unread
    assert "loop/and-again: this folder is inside itself" in unread
    found, unread = archive(hurt, LOOPS, "/ladder", packed_as=packed_as)
    assert len([name for name in found if name.endswith("/file")]) == 1
    assert unread.count("second place") == LEVELS
    found, unread = archive(hurt, LOOPS, "/ladder", "/ladder/a", packed_as=packed_as)
    assert len([name for name in found if name.endswith("/file")]) == 2, "it was asked for twice"


@FORMATS
def test_a_name_is_once_in_an_archive(hurt: Api, packed_as: str) -> None:
    """The first one: a folder behind a link of its name could be taken out to where that leads."""
    found, unread = archive(hurt, TWINS, "/in", packed_as=packed_as)
    assert found.keys() == {"in", "in/first", "in/twin", "RESTOREFS-ERRORS.txt"}
    assert found["in/first"] == "first\n"
    assert "in/first: its folder has this name twice" in unread
    assert "in/twin: its folder has this name twice" in unread


@FORMATS
def test_a_guests_own_file_is_not_taken_for_the_list(hurt: Api, packed_as: str) -> None:
    paths = ("/nest", "/RESTOREFS-ERRORS.txt")
    found, unread = archive(hurt, DAMAGED, *paths, packed_as=packed_as)
    assert found["RESTOREFS-ERRORS.txt"] == "the guest's own\n"
    assert found["nest/sound/inside"] == "sound\n"
    assert {line.partition(":")[0] for line in unread.splitlines()[2:]} == {
        *("nest/broken", "nest/victim"),
    }
    assert found["RESTOREFS-ERRORS.txt-2"] == unread


def test_a_path_that_is_too_long_for_a_zip(hurt: Api) -> None:
    found, unread = archive(hurt, LONG, "/", packed_as="zip")
    assert found[f"{LONG}-disk0/short"] == "short\n"
    assert "bytes in a zip, and may have 65535" in unread
    assert len(unread.splitlines()) == 3, "nothing is said of what would be in it"
    found, unread = archive(hurt, LONG, "/")
    assert max(name.count("/") for name in found) == LONG_LEVELS
