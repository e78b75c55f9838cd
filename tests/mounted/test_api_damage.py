"""The API over file systems that are damaged, or made to do harm.

Nothing is left out of an answer without a word, and every answer comes to an end. What the images
still hold is known from the folders that they were made of (damaged_disks.py).
"""

import io
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.api import Api, api, lines_of, run_bytes
from tests.mounted.damaged_disks import LEVELS, LONG_LEVELS, damaged, long, looped, twins
from tests.mounted.disks import qcow2

DAMAGED, LOOPS = "backup-damaged-1700000000", "backup-loops-1700000000"
TWINS, LONG = "backup-twins-1700000000", "backup-long-1700000000"


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
        found.daemon.expect(f"ERROR {TWINS}/disk0: ")
        found.get(f"/restore/{found.mount(TWINS)}/files", path="/links")
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


def test_a_link_to_what_cannot_be_read_leads_somewhere(hurt: Api) -> None:
    told = hurt.get(f"/restore/{hurt.mount(DAMAGED)}/files", path="/links")["files"]
    links = {each["name"]: each for each in told}
    assert links["good"]["target_type"] == "directory"
    assert (links["none"]["target"], links["none"]["target_type"]) == ("nothing", None)
    assert "error" not in links["none"]
    bad = links["bad"]
    assert (bad["target"], bad["target_type"]) == ("../nest/broken/inside", None)
    assert "checksum" in bad["error"]
    (far,) = hurt.get(f"/restore/{hurt.mount(TWINS)}/files", path="/links")["files"]
    assert (far["type"], far["size"]) == ("symlink", 100)
    assert far["error"]
    assert "target" not in far


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
