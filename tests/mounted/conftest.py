"""Fixtures of the ring of the mounted daemon."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

pytest.register_assert_rewrite("tests.mounted.daemon", "tests.mounted.disks")

from tests.mariadb import MariaDb, mariadb  # noqa: E402
from tests.mounted.daemon import Daemon, Place, restorefs, served  # noqa: E402
from tests.mounted.disks import Sample  # noqa: E402
from tests.tools import require, unavailable  # noqa: E402

__all__ = ["mariadb"]

Serve: TypeAlias = Callable[..., Daemon]


@pytest.fixture(autouse=True, scope="session")
def _can_mount() -> None:
    """Skip everything where nothing can be mounted."""
    require("qemu-nbd", "qemu-img", "setpriv", *([] if os.geteuid() == 0 else ["fusermount3"]))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        unavailable("/dev/fuse is missing, or not for us")


@pytest.fixture
def place() -> Iterator[Place]:
    """A mountpoint and a runtime folder."""
    place = Place()
    yield place
    place.remove()


@pytest.fixture
def serve(place: Place) -> Iterator[Serve]:
    """Start daemons as tests.mounted.daemon.served() does; they are checked when the test ends,
    before the fixture `place` goes, where a test may have one of them."""
    with ExitStack() as stack:
        yield lambda *options, **how: stack.enter_context(served(*options, **how))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    folder = tmp_path_factory.mktemp("sample")
    yield Sample(folder)
    shutil.rmtree(folder)


@pytest.fixture
def catalog(sample: Sample, tmp_path: Path) -> Path:
    """An SQLite catalog of the sample, the test's own."""
    path = tmp_path / "catalog.db"
    done = restorefs("scan", sample.repository, "--catalog", f"sqlite:///{path}")
    assert done.code == 0, done.err
    return path


@pytest.fixture
def mariadb_url(mariadb: MariaDb, sample: Sample) -> Iterator[str]:
    """A catalog of the sample in MariaDB, as the backup product would have it."""
    name = "mounted"
    with mariadb.database(name) as url:
        mariadb.execute(
            "INSERT INTO vm_backup_contexts VALUES ('c1', 'web', 'r1'), ('c2', 'db', 'r1')",
            database=name,
        )
        jobs = ((sample.full, "c1"), (sample.incremental, "c1"), (sample.other, "c2"))
        for job, context in jobs:
            mariadb.execute(
                "INSERT INTO backup_jobs VALUES (%s, %s, 'completed', '2023-11-14 22:13:20')",
                *(job, context),
                database=name,
            )
        disks = [
            *(f"{sample.full}/disk0", f"{sample.full}/disk1", f"{sample.other}/disk0"),
            f"{sample.incremental}/disk0",
        ]
        for disk in disks:
            mariadb.execute(
                "INSERT INTO backup_disks (backup_job_id, disk_index, qcow2_path, status)"
                " VALUES (%s, %s, %s, 'completed')",
                *disk.split("/disk"),
                str(sample.repository / f"{disk}.qcow2"),
                database=name,
            )
        done = restorefs("catalog", "migrate", "--catalog", url)
        assert done.code == 0, done.err
        yield url
