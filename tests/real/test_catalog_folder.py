"""The catalog without a database, on folders of images that qemu-img made."""

import logging
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from restorefs.catalog.base import Catalog
from restorefs.catalog.open import open_folder
from restorefs.catalog.records import BackupRecord
from restorefs.catalog.repository import Findings, find_backups
from restorefs.errors import CatalogError
from tests.contracts.catalog import SAMPLE, CatalogContract, Reopen
from tests.images.repository import Repository
from tests.tools import run


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "backups")


@pytest.fixture
def sample(repository: Repository) -> Repository:
    for backup_id, (_, created_at, indexes) in SAMPLE.items():
        for index in indexes:
            name = f"disk{index}.qcow2" if index % 2 == 0 else f"disk-{index}/image.qcow2"
            repository.add(f"{backup_id}/{name}", mtime=created_at.timestamp())
    return repository


@pytest.fixture
def reopen(sample: Repository) -> Reopen:
    return lambda: open_folder(sample.root)


class TestFolderCatalog(CatalogContract):
    pass


def listed(backups: Sequence[BackupRecord]) -> dict[str, dict[int, str]]:
    """Return the file's name of every disk of every backup."""
    return {b.id: {d.disk_index: d.path.name for d in b.disks} for b in backups}


def look(root: Path) -> Findings:
    return find_backups(root, lambda _done, _all: None)


def reasons(findings: Findings) -> dict[str, str]:
    return {str(s.path.relative_to(findings.root)): s.reason for s in findings.skipped}


def test_the_three_layouts(repository: Repository) -> None:
    repository.add("a/disk0.qcow2")
    repository.add("a/disk-1/anything.qcow2")
    repository.add("a/disk-2/backup-a-disk2-20251008-192431.qcow2")
    catalog = open_folder(repository.root)
    (backup,) = catalog.backups()
    assert [str(disk.path.relative_to(repository.root)) for disk in backup.disks] == [
        "a/disk0.qcow2",
        "a/disk-1/anything.qcow2",
        "a/disk-2/backup-a-disk2-20251008-192431.qcow2",
    ]
    assert look(repository.root).skipped == []


def test_name_and_time_come_from_the_backups_name(repository: Repository) -> None:
    for name in ("backup-a-b-1759947871", "backup--1", "backup-a-12345678901234", "weekly"):
        repository.add(f"{name}/disk0.qcow2", mtime=1_000_000_000)
    found = {b.id: (b.vm_name, b.created_at) for b in open_folder(repository.root).backups()}
    then = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert found == {
        "backup-a-b-1759947871": ("a-b", datetime(2025, 10, 8, 18, 24, 31, tzinfo=UTC)),
        "backup--1": ("backup--1", then),
        "backup-a-12345678901234": ("backup-a-12345678901234", then),
        "weekly": ("weekly", then),
    }


def test_the_newest_image_gives_the_time(repository: Repository) -> None:
    repository.add("weekly/disk0.qcow2", mtime=2_000)
    repository.add("weekly/disk1.qcow2", mtime=1_000)
    (backup,) = open_folder(repository.root).backups()
    assert backup.created_at == datetime.fromtimestamp(2_000, UTC)


def test_a_date_in_the_images_name_gives_the_time(repository: Repository) -> None:
    repository.add("weekly/disk-0/w-disk0-20240229-235958.qcow2", mtime=2_000)
    (backup,) = open_folder(repository.root).backups()
    assert backup.created_at == datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)


def test_sizes_are_rounded_up(repository: Repository) -> None:
    path = repository.add("a/disk0.qcow2")
    run("qemu-img", "resize", "-q", path, "1073742336")
    (backup,) = open_folder(repository.root).backups()
    assert backup.disks[0].size_gb == 2


def test_dated_images_are_restore_points(repository: Repository) -> None:
    """A full backup and two incrementals of two disks, the disks some seconds apart."""
    for index, second in ((0, 31), (1, 33)):
        folder, previous = f"pg/disk-{index}", None
        for day in (8, 9, 10):
            name = f"backup-pg-disk{index}-202510{day:02}-1924{second}.qcow2"
            repository.add(f"{folder}/{name}", backing=previous)
            previous = name
    backups = open_folder(repository.root).backups()
    assert listed(backups) == {
        f"pg{point}": {
            0: f"backup-pg-disk0-202510{day}-192431.qcow2",
            1: f"backup-pg-disk1-202510{day}-192433.qcow2",
        }
        for point, day in (("@20251008-192431", "08"), ("@20251009-192431", "09"), ("", "10"))
    }
    assert {b.id: (b.vm_name, b.created_at) for b in backups} == {
        "pg@20251008-192431": ("pg", datetime(2025, 10, 8, 19, 24, 31, tzinfo=UTC)),
        "pg@20251009-192431": ("pg", datetime(2025, 10, 9, 19, 24, 31, tzinfo=UTC)),
        "pg": ("pg", datetime(2025, 10, 10, 19, 24, 31, tzinfo=UTC)),
    }
    findings = look(repository.root)
    assert findings.skipped == []
    assert findings.notes == [
        f"pg@202510{day}-192431: an older restore point (disk 0 is a backing file of "
        "backup-pg-disk0-20251010-192431.qcow2, disk 1 is a backing file of "
        "backup-pg-disk1-20251010-192433.qcow2)"
        for day in ("08", "09")
    ]


def test_a_restore_point_keeps_its_disk_id_when_a_newer_one_appears(
    repository: Repository,
) -> None:
    old = repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    catalog = open_folder(repository.root)
    (before,) = catalog.backups()
    new = repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2", backing=old.name)
    for after in (catalog, open_folder(repository.root)):
        ids = {d.path: d.id for b in after.backups() for d in b.disks}
        assert ids[old] == before.disks[0].id
        assert ids[new] != before.disks[0].id


def test_independent_images_are_restore_points_too(repository: Repository) -> None:
    repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2")
    assert set(listed(open_folder(repository.root).backups())) == {"pg", "pg@20251008-000000"}
    assert look(repository.root).notes == [
        "pg@20251008-000000: an older restore point (disk 0 is independent of "
        "x-disk0-20251009-000000.qcow2)"
    ]


def test_a_disk_without_a_newest_image_does_not_pretend(repository: Repository) -> None:
    repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("pg/disk-1/x-disk1-20251008-000002.qcow2")
    repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2")
    repository.add("pg/disk2.qcow2")
    assert listed(open_folder(repository.root).backups()) == {
        "pg@20251008-000000": {
            0: "x-disk0-20251008-000000.qcow2",
            1: "x-disk1-20251008-000002.qcow2",
        },
        "pg": {0: "x-disk0-20251009-000000.qcow2", 2: "disk2.qcow2"},
    }
    assert "pg: disk 1 has images in older restore points only" in look(repository.root).notes


def test_an_older_point_does_not_take_a_folders_name(repository: Repository) -> None:
    repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2")
    repository.add("pg@20251008-000000/disk0.qcow2")
    assert listed(open_folder(repository.root).backups()) == {
        "pg": {0: "x-disk0-20251009-000000.qcow2"},
        "pg@20251008-000000": {0: "disk0.qcow2"},
    }
    assert reasons(look(repository.root)) == {
        "pg/disk-0/x-disk0-20251008-000000.qcow2": (
            "an older restore point, but pg@20251008-000000 is a folder"
        )
    }


def test_a_chain_without_dates_is_one_disk(repository: Repository) -> None:
    repository.add("pg/disk-0/base.qcow2", mtime=3_000)
    repository.add("pg/disk-0/middle.qcow2", backing="base.qcow2", mtime=2_000)
    top = repository.add("pg/disk-0/a-top.qcow2", backing="middle.qcow2", mtime=1_000)
    assert listed(open_folder(repository.root).backups()) == {"pg": {0: top.name}}
    assert reasons(look(repository.root)) == {
        "pg/disk-0/base.qcow2": "the backing file of middle.qcow2",
        "pg/disk-0/middle.qcow2": "the backing file of a-top.qcow2",
    }


def test_a_base_without_a_date_is_part_of_the_chain(repository: Repository) -> None:
    base = repository.add("pg/disk-0/base.qcow2")
    repository.add("pg/disk-0/other.qcow2")
    repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2", backing=str(base))
    assert listed(open_folder(repository.root).backups()) == {
        "pg": {0: "x-disk0-20251008-000000.qcow2"}
    }
    assert reasons(look(repository.root)) == {
        "pg/disk-0/base.qcow2": "the backing file of x-disk0-20251008-000000.qcow2",
        "pg/disk-0/other.qcow2": "no date in its name, beside images that have one",
    }


def test_images_among_which_nothing_decides_are_not_guessed(repository: Repository) -> None:
    repository.add("pg/disk-0/a.qcow2", mtime=1_000)
    repository.add("pg/disk-0/b.qcow2", mtime=2_000)
    repository.add("pg/disk-1/c.qcow2")
    assert listed(open_folder(repository.root).backups()) == {"pg": {1: "c.qcow2"}}
    assert set(reasons(look(repository.root))) == {"pg/disk-0/a.qcow2", "pg/disk-0/b.qcow2"}


def test_a_circle_of_backing_files_ends(repository: Repository) -> None:
    a = repository.add("pg/disk-0/x-disk0-20251008-000000.qcow2")
    b = repository.add("pg/disk-0/x-disk0-20251009-000000.qcow2", backing=a.name)
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", b.name, a)
    assert set(listed(open_folder(repository.root).backups())) == {"pg", "pg@20251008-000000"}
    for index, (one, other) in ((1, ("a", "b")), (2, ("c", "d"))):
        repository.add(f"pg/disk-{index}/{one}.qcow2")
        repository.add(f"pg/disk-{index}/{other}.qcow2", backing=f"{one}.qcow2")
        path = repository.root / f"pg/disk-{index}/{one}.qcow2"
        run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", f"{other}.qcow2", path)
    backups = listed(open_folder(repository.root).backups())
    assert set(backups["pg"]) == {0}


def test_what_is_skipped_is_said(repository: Repository, tmp_path: Path) -> None:
    root = repository.root
    good = repository.add("good/disk0.qcow2")
    repository.file("readme.txt")
    repository.file("good/notes.txt")
    repository.file("good/disk-4/notes.txt")
    repository.file("good/disk-3")
    repository.add("good/disk01.qcow2")
    repository.add("good/disk-0/second.qcow2")
    repository.add("good/disk-5/x-disk6-20251008-000000.qcow2")
    repository.add("good/disk-7/x-disk7-20251399-000000.qcow2")
    repository.add("good/disk-8/x-disk8-20251008-000000.qcow2")
    repository.add("good/disk-8/y-disk8-20251008-000000.qcow2")
    repository.file("raw/disk0.qcow2", b"\0" * 4096)
    repository.file("raw/disk1.qcow2", good.read_bytes()[:31])
    repository.file("raw/disk2.qcow2", good.read_bytes()[:7] + b"\4" + good.read_bytes()[8:])
    (root / "raw" / "disk3.qcow2").mkdir()
    os.mkfifo(root / "raw" / "disk4.qcow2")
    with socket.socket(socket.AF_UNIX) as listener:
        (root / "s").mkdir()
        os.chdir(root / "s")  # a unix socket's path must be short
        try:
            listener.bind("disk0.qcow2")
        finally:
            os.chdir("/")
    (root / "empty").mkdir()
    outside = tmp_path / "outside.qcow2"
    outside.write_bytes(good.read_bytes())
    (root / "links").mkdir()
    (root / "links" / "disk0.qcow2").symlink_to(outside)
    (root / "links" / "disk1.qcow2").symlink_to("nowhere")
    (root / "links" / "disk2.qcow2").symlink_to("disk2.qcow2")
    (root / "links" / "disk3.qcow2").symlink_to("../good/disk0.qcow2")
    (root / "links" / "disk-4").symlink_to("../good/disk-8")
    (root / "latest").symlink_to("good")

    findings = look(root)
    assert {b.id: [i.disk_index for i in b.images] for b in findings.backups} == {
        "good": [0, 7, 8],
        "links": [3],
    }
    assert findings.backups[1].images[0].path == good
    said = reasons(findings)
    expected = {
        "empty": "an empty folder",
        "good/disk-0": "disk 0 is the file disk0.qcow2",
        "good/disk-3": "not a folder",
        "good/disk-4/notes.txt": "not named .qcow2",
        "good/disk-5/x-disk6-20251008-000000.qcow2": "its name says disk 6, its folder disk 5",
        "good/disk-8/y-disk8-20251008-000000.qcow2": (
            "has the same date as x-disk8-20251008-000000.qcow2"
        ),
        "good/disk01.qcow2": "neither disk<N>.qcow2 nor a folder disk-<N>",
        "good/notes.txt": "neither disk<N>.qcow2 nor a folder disk-<N>",
        "latest": "a link to a folder; these are not followed",
        "links/disk-4": "a link to a folder; these are not followed",
        "links/disk0.qcow2": f"a link that leaves the folder, to {outside}",
        "links/disk1.qcow2": "No such file or directory",
        "raw": "no disk image in it",
        "raw/disk0.qcow2": "not a qcow2 image",
        "raw/disk1.qcow2": "not a qcow2 image",
        "raw/disk2.qcow2": "qcow2 version 4; known are 2 and 3",
        "raw/disk3.qcow2": "not a file",
        "raw/disk4.qcow2": "not a file",
        "readme.txt": "not a folder: expected <backup_id>/disk<N>.qcow2",
        "s": "no disk image in it",
        "s/disk0.qcow2": "not a file",
    }
    assert "links/disk2.qcow2" in said  # a link to itself; the words are Python's
    del said["links/disk2.qcow2"]
    assert said == expected


def test_what_may_not_be_read_is_skipped(repository: Repository) -> None:
    repository.add("a/disk0.qcow2").chmod(0)
    (repository.root / "b").mkdir(mode=0)
    repository.add("c/disk0.qcow2")
    with repository.as_nobody():
        findings = look(repository.root)
    assert [backup.id for backup in findings.backups] == ["c"]
    assert reasons(findings) == {
        "a": "no disk image in it",
        "a/disk0.qcow2": "Permission denied",
        "b": "Permission denied",
    }
    assert [skipped.path.name for skipped in findings.skipped if skipped.unread] == [
        *("disk0.qcow2", "b"),
    ]


def test_what_cannot_be_read_for_a_while_has_not_gone(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    root = repository.root
    old = repository.add("a/disk-0/x-disk0-20251008-000000.qcow2")
    repository.add("a/disk-0/x-disk0-20251009-000000.qcow2", backing=old.name)
    alone = repository.add("a/disk1.qcow2")
    other = repository.add("b/disk0.qcow2")
    catalog = open_folder(root)
    before = list(catalog.backups())
    assert set(listed(before)) == {"a", "a@20251008-000000", "b"}
    assert list(catalog.unread) == []
    with repository.as_nobody():
        # Each alone, and the folders above it: also when it is the next look that finds less.
        for path in (alone, old, old.parent, old.parent.parent, old.parent, old):
            os.seteuid(0)
            mode = path.stat().st_mode
            path.chmod(0)
            os.seteuid(65534)
            for _ in range(2):
                assert list(catalog.backups()) == before
                assert list(catalog.unread) == [f"{path}: Permission denied"]
            os.seteuid(0)
            path.chmod(mode)
            os.seteuid(65534)
        # What is new beside it is seen, and what is gone is gone.
        os.seteuid(0)
        (root / "a").chmod(0)
        new = repository.add("c/disk0.qcow2")
        other.unlink()
        os.seteuid(65534)
        assert set(listed(catalog.backups())) == {"a", "a@20251008-000000", "c"}
        os.seteuid(0)
        new.unlink()
        repository.add("c/disk1.qcow2").chmod(0)
        (root / "a").rename(root / "moved")
        os.seteuid(65534)
        assert listed(catalog.backups()) == {}
        assert set(catalog.unread) == {
            f"{root}/c/disk1.qcow2: Permission denied",
            f"{root}/moved: Permission denied",
        }
    (root / "moved").chmod(0o755)
    assert set(listed(catalog.backups())) == {"moved", "moved@20251008-000000", "c"}
    assert list(catalog.unread) == []
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [  # once for each time
        f"cannot read {path}: Permission denied"
        for path in (
            *(alone, old, old.parent, root / "a", old.parent, old),
            *(root / "a", root / "c/disk1.qcow2", root / "moved"),
        )
    ]


def test_skipped_images_are_logged_once(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "restorefs")
    repository.file("a/disk0.qcow2", b"raw")
    repository.file("a/notes.txt")
    catalog = open_folder(repository.root)
    assert list(catalog.backups()) == []
    assert list(catalog.backups()) == []
    said = [(record.levelname, record.getMessage().split(": ", 1)) for record in caplog.records]
    root = repository.root
    assert said == [
        ("WARNING", [f"skipped {root}/a/disk0.qcow2", "not a qcow2 image"]),
        ("INFO", [f"skipped {root}/a/notes.txt", "neither disk<N>.qcow2 nor a folder disk-<N>"]),
        ("INFO", [f"skipped {root}/a", "no disk image in it"]),
    ]


def test_names_that_are_not_utf8_are_passed_through(repository: Repository) -> None:
    name = os.fsdecode(b"b\xe4ckup")
    repository.add(f"{name}/disk0.qcow2")
    catalog = open_folder(repository.root)
    (backup,) = catalog.backups()
    assert os.fsencode(backup.id) == b"b\xe4ckup"
    assert list(catalog.backups()) == list(open_folder(repository.root).backups())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nothing: No such file"):
        open_folder(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(CatalogError, match=r"file: not a folder"):
        open_folder(tmp_path / "file")


def test_a_folder_that_goes_is_an_error_and_not_an_empty_catalog(sample: Repository) -> None:
    catalog = open_folder(sample.root)
    before = list(catalog.backups())
    away = sample.root.rename(sample.root.with_name("away"))
    with pytest.raises(CatalogError, match="No such file"):
        catalog.backups()
    away.rename(sample.root)
    assert list(catalog.backups()) == before


def test_a_link_to_the_folder_serves_as_well(sample: Repository) -> None:
    link = sample.root.with_name("link")
    link.symlink_to(sample.root)
    assert list(open_folder(link).backups()) == list(open_folder(sample.root).backups())


def ids(catalog: Catalog) -> dict[tuple[str, int], int]:
    return {(b.id, d.disk_index): d.id for b in catalog.backups() for d in b.disks}


def test_ids_do_not_depend_on_what_else_there_is(repository: Repository) -> None:
    image = repository.add("backup-vm-1700001000/disk0.qcow2")
    catalog = open_folder(repository.root)
    before = ids(catalog)
    for time in [*range(1600000000, 1600000020), *range(1800000000, 1800000020)]:
        folder = repository.root / f"backup-vm-{time}"
        folder.mkdir()
        (folder / "disk0.qcow2").hardlink_to(image)
    for after in (ids(catalog), ids(open_folder(repository.root))):
        assert len(after) == 41
        assert len(set(after.values())) == 41
        assert all(1 <= number < 2**21 for number in after.values())
        assert before.items() <= after.items()


# Two backups whose disks 0 have the same number when each is alone.
EARLIER, LATER = "backup-vm-1700000009", "backup-vm-1700000261"


@pytest.mark.parametrize("order", [[EARLIER, LATER], [LATER, EARLIER]], ids=["early", "late"])
def test_of_two_with_the_same_number_the_earlier_keeps_it(
    repository: Repository, tmp_path: Path, order: list[str]
) -> None:
    alone = {}
    for name in (EARLIER, LATER):
        single = Repository(tmp_path / name)
        single.add(f"{name}/disk0.qcow2")
        alone[name] = ids(open_folder(single.root))[name, 0]
    assert alone[EARLIER] == alone[LATER]
    for name in order:
        repository.add(f"{name}/disk0.qcow2")
    found = ids(open_folder(repository.root))
    assert found == {(EARLIER, 0): alone[EARLIER], (LATER, 0): alone[EARLIER] + 1}


def test_in_one_process_a_number_never_means_another_disk(repository: Repository) -> None:
    later = repository.add(f"{LATER}/disk0.qcow2")
    catalog = open_folder(repository.root)
    number = ids(catalog)[LATER, 0]
    # The number is not taken over by an earlier one, nor when its disk has gone.
    repository.add(f"{EARLIER}/disk0.qcow2")
    assert ids(catalog) == {(LATER, 0): number, (EARLIER, 0): number + 1}
    later.unlink()
    assert ids(catalog) == {(EARLIER, 0): number + 1}
    # Another image in its place is another disk.
    repository.add(f"{LATER}/disk0.qcow2")
    assert ids(catalog) == {(LATER, 0): number + 2, (EARLIER, 0): number + 1}
