"""The API on a real unix socket, asked with an HTTP client, over a real pool."""

import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
import trio
from trio.testing import MockClock

import restorefs
from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.control.app import make_app
from restorefs.control.server import listen_unix, serve
from restorefs.control.status import Status
from restorefs.errors import CatalogError, DamagedError
from restorefs.session.pool import Pool
from restorefs.tree.presentation import Presentation
from restorefs.tree.refresh import Refresher
from restorefs.tree.tree import Tree
from tests.real.attached import MemoryCatalog, qcow2, running_pool, servers, until
from tests.tools import require, run

MIB = 1 << 20
CREATED = datetime(2025, 10, 8, 18, 24, 31, tzinfo=UTC)
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
ODD = "a/b\n c%2F?#ü"


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-nbd", "setpriv", "mke2fs", "sfdisk", "mkswap", "blkid")


class Sample(NamedTuple):
    """full/disk0: a GPT with ext4, swap and an unformatted partition; full/disk7: a missing image;
    ODD/disk0: without anything that is recognised."""

    backups: Sequence[BackupRecord]
    facts: dict[str, str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("control")
    ext4 = folder / "ext4"
    run("mke2fs", "-q", "-t", "ext4", "-L", "data", ext4, "2M")
    swap = folder / "swap"
    swap.write_bytes(bytes(MIB))
    run("mkswap", "-q", swap)
    table = folder / "gpt"
    table.write_bytes(bytes(6 * MIB))
    script = f"size=2M, type={LINUX}, name=root\nsize=1M, type={SWAP}\nsize=1M, type={LINUX}\n"
    run("sfdisk", "-q", table, input=f"label: gpt\n{script}")
    with table.open("r+b") as disk:
        for offset, content in ((1, ext4), (3, swap)):
            disk.seek(offset * MIB)
            disk.write(content.read_bytes())
    facts = {
        "uuid": run("blkid", "-o", "value", "-s", "UUID", ext4).strip(),
        "part_uuid": run("sfdisk", "--part-uuid", table, "1").strip(),
        "table_uuid": run("sfdisk", "--disk-id", table).strip(),
    }
    parted = qcow2(table, folder / "parted.qcow2")
    plain = qcow2(bytes(MIB), folder / "plain.qcow2")
    full = (
        DiskRecord(1, "full", 0, str(parted), vmware_disk_key=2000, size_gb=1),
        DiskRecord(2, "full", 7, str(folder / "missing.qcow2")),
    )
    backups = (
        BackupRecord("full", "web", CREATED, full),
        BackupRecord(ODD, "web", None, (DiskRecord(3, ODD, 0, str(plain)),)),
    )
    return Sample(backups, facts)


class Api(NamedTuple):
    """A served API, a client of it, and what is behind it."""

    client: httpx.AsyncClient
    socket: Path
    pool: Pool
    catalog: MemoryCatalog
    refresher: Refresher

    async def get(self, path: str) -> Any:
        """Return a call's answer, which must be a good one."""
        return self._good(await self.client.get("/api/v1" + path))

    async def put(self, path: str) -> Any:
        return self._good(await self.client.put("/api/v1" + path))

    async def delete(self, path: str) -> Any:
        return self._good(await self.client.delete("/api/v1" + path))

    def _good(self, response: httpx.Response) -> Any:
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        return response.json()

    async def problem(self, method: str, path: str) -> dict[str, Any]:
        """Return the problem document of a call that fails."""
        response = await self.client.request(method, "/api/v1" + path)
        assert response.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = response.json()
        assert document["status"] == response.status_code
        assert document["detail"]
        return document


@asynccontextmanager
async def served(
    backups: Sequence[BackupRecord], *, idle_timeout: float = 3600.0, max_attached: int = 64
) -> AsyncIterator[Api]:
    catalog = MemoryCatalog(*backups)
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        socket = Path(folder) / "control.sock"
        async with (
            running_pool(catalog, idle_timeout=idle_timeout, max_attached=max_attached) as pool,
            trio.open_nursery() as nursery,
        ):
            tree = Tree(pool, Presentation(), 0)
            refresher = Refresher(catalog, tree, pool)
            await refresher.load()
            status = Status(Path("/mnt/restore"), CREATED, refresher, pool)
            await nursery.start(serve, make_app(status, tree, pool), listen_unix(socket))
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://restorefs"
            )
            async with client:
                yield Api(client, socket, pool, catalog, refresher)
            nursery.cancel_scope.cancel()


# The socket


async def test_the_socket_is_nobody_elses(sample: Sample) -> None:
    before = os.umask(0o022)
    os.umask(before)
    async with served(sample.backups) as api:
        status = api.socket.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert status.st_mode & 0o077 == 0
        assert status.st_uid == os.geteuid()
        now = os.umask(before)
        assert now == before, "files that are made later are made as before"


async def test_calls_side_by_side_and_one_after_another(sample: Sample) -> None:
    async with served(sample.backups) as api, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(api.get, "/status")
            nursery.start_soon(api.get, "/backups/full/volumes")


# Status and backups


async def test_the_status_of_an_idle_daemon(sample: Sample) -> None:
    async with served(sample.backups) as api:
        assert await api.get("/status") == {
            "version": restorefs.__version__,
            "pid": os.getpid(),
            "mountpoint": "/mnt/restore",
            "started_at": "2025-10-08T18:24:31Z",
            "catalog": "the test's memory",
            "catalog_error": None,
            "catalog_unread": [],
            "backups": 2,
            "disks": 3,
            "max_attached": 64,
            "idle_timeout_seconds": 3600.0,
            "listening": [],
            "cache": {"hits": 0, "misses": 0},
            "attached": [],
            "failures": [],
        }
        assert servers() == []


async def test_the_status_tells_what_is_attached(sample: Sample) -> None:
    async with served(sample.backups) as api:
        await api.put("/backups/full/disks/0/attachment")
        disk = api.pool.find(1)
        assert disk is not None
        (attached,) = (await api.get("/status"))["attached"]
        accessed = datetime.fromisoformat(attached.pop("last_accessed_at"))
        expires = datetime.fromisoformat(attached.pop("expires_at"))
        assert abs((expires - accessed - timedelta(hours=1)).total_seconds()) <= 1
        attached_at = datetime.fromisoformat(attached.pop("attached_at"))
        assert attached_at <= accessed + timedelta(seconds=1)
        assert attached.pop("bytes_read") == disk.device.bytes_read > 0
        assert attached.pop("mount_id").startswith("disk1-")
        client = f"uid {os.getuid()}"
        assert attached == {
            "backup_id": "full",
            "disk_index": 0,
            "filesystems": ["ext4", "swap"],
            "attached_for": {
                "uid": None,
                "pid": None,
                "program": "",
                "client": client,
            },
            "shares_volumes_with": [],
            "socket": str(disk.server.socket_path),
            "qemu_nbd_pid": servers()[0],
            "requests_under_way": 0,
        }
        async with api.pool.use(disk.record):
            (attached,) = (await api.get("/status"))["attached"]
            assert attached["requests_under_way"] == 1


async def test_what_is_never_let_go_does_not_expire(sample: Sample) -> None:
    async with served(sample.backups, idle_timeout=0) as api:
        await api.put("/backups/full/disks/0/attachment")
        (attached,) = (await api.get("/status"))["attached"]
        assert attached["expires_at"] is None


async def test_the_status_tells_what_fails(sample: Sample) -> None:
    async with served(sample.backups) as api:
        await api.problem("PUT", "/backups/full/disks/7/attachment")
        (failure,) = (await api.get("/status"))["failures"]
        assert datetime.fromisoformat(failure.pop("at")).tzinfo is not None
        assert "missing.qcow2" in failure.pop("reason")
        assert failure == {"backup_id": "full", "disk_index": 7, "errno": errno.EIO}
        api.catalog.said = ()
        await api.refresher.load()
        assert (await api.get("/status"))["failures"] == [], "of what is in the catalog"


async def test_the_status_tells_that_the_catalog_is_down(sample: Sample) -> None:
    async with served(sample.backups) as api, trio.open_nursery() as nursery:
        api.catalog.error = CatalogError("no route to host")
        nursery.start_soon(api.refresher.run)
        api.refresher.wake()
        await until(lambda: api.refresher.error)
        assert (await api.get("/status"))["catalog_error"] == "no route to host"
        assert len((await api.get("/backups"))["backups"]) == 2
        nursery.cancel_scope.cancel()


async def test_the_backups_as_the_catalog_has_them(sample: Sample) -> None:
    async with served(sample.backups) as api:
        assert await api.get("/backups") == {
            "backups": [
                {
                    "backup_id": "full",
                    "vm_name": "web",
                    "created_at": "2025-10-08T18:24:31Z",
                    "disk_indexes": [0, 7],
                },
                {"backup_id": ODD, "vm_name": "web", "created_at": None, "disk_indexes": [0]},
            ],
            "total_count": 2,
            "offset": 0,
        }
        assert servers() == []


# Volumes


async def test_everything_on_every_disk_of_a_backup(sample: Sample) -> None:
    async with served(sample.backups) as api:
        answer = await api.get("/backups/full/volumes")
        assert answer["backup_id"] == "full"
        first, missing = answer["disks"]
        assert first["id"] == 1
        assert first["vmware_disk_key"] == 2000
        assert first["size"] == 6 * MIB
        assert first["table"] == "gpt"
        assert first["sector_size"] == 512
        assert first["table_uuid"].upper() == sample.facts["table_uuid"].upper()
        assert first["error"] is None
        ext4, swap, empty = first["volumes"]
        assert ext4["part_uuid"].upper() == sample.facts["part_uuid"].upper()
        assert {key: ext4[key] for key in ("name", "index", "folder", "start", "size")} == {
            "name": "part1",
            "index": 1,
            "folder": True,
            "start": MIB,
            "size": 2 * MIB,
        }
        assert {key: ext4[key] for key in ("filesystem", "readable", "label", "uuid", "clean")} == {
            "filesystem": "ext4",
            "readable": True,
            "label": "data",
            "uuid": sample.facts["uuid"],
            "clean": True,
        }
        assert ext4["part_label"] == "root"
        assert ext4["type_code"].upper() == LINUX
        assert (swap["filesystem"], swap["folder"], swap["readable"]) == ("swap", False, False)
        assert (empty["filesystem"], empty["folder"], empty["size"]) == (None, False, MIB)
        assert [volume["error"] for volume in first["volumes"]] == [None, None, None]
        assert missing["disk_index"] == 7
        assert "missing.qcow2" in missing["error"]
        assert "volumes" not in missing
        assert missing["qcow2_path"].endswith("missing.qcow2")


# Attaching and detaching


async def test_attaching_and_detaching(sample: Sample) -> None:
    async with served(sample.backups) as api:
        path = "/backups/full/disks/0/attachment"
        answer = await api.put(path)
        assert answer["table"] == "gpt"
        pid = servers()[0]
        assert await api.put(path) == answer
        assert servers() == [pid], "attached once"
        told = {"backup_id": "full", "disk_index": 0}
        assert await api.delete(path) == told | {"detached": True}
        assert servers() == []
        assert await api.delete(path) == told | {"detached": False}


async def test_odd_ids(sample: Sample) -> None:
    async with served(sample.backups) as api:
        path = "/backups/" + quote(ODD, safe="")
        assert (await api.get(path + "/volumes"))["backup_id"] == ODD
        assert (await api.put(path + "/disks/0/attachment"))["table"] == "none"
        assert (await api.delete(path + "/disks/0/attachment"))["backup_id"] == ODD


async def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    image = tmp_path / odd
    backup = BackupRecord(odd, odd, None, (DiskRecord(1, odd, 0, str(image)),))
    async with served([backup]) as api:
        api.pool.note_failure(backup.disks[0], DamagedError(f"{image} is damaged"))
        (found,) = (await api.get("/backups"))["backups"]
        assert (found["backup_id"], found["vm_name"]) == (odd, odd)
        (failure,) = (await api.get("/status"))["failures"]
        assert failure["reason"] == f"{image} is damaged"


# Problems


async def test_what_is_not_there(sample: Sample) -> None:
    async with served(sample.backups) as api:
        for method, path, said in (
            ("GET", "/backups/nope/volumes", "'nope'"),
            ("PUT", "/backups/nope/disks/0/attachment", "'nope'"),
            ("PUT", "/backups/full/disks/1/attachment", "full has no disk 1; it has 0, 7"),
            ("DELETE", "/backups/full/disks/99999999999/attachment", "it has 0, 7"),
        ):
            document = await api.problem(method, path)
            assert (document["status"], document["errno"]) == (404, "ENOENT")
            assert said in document["detail"]
        for path in ("", "/", "/nope", "/backups/full", "/backups/full/disks/x/attachment"):
            document = await api.problem("GET", path)
            assert (document["status"], document["errno"]) == (404, None)
        assert servers() == []


async def test_methods_that_are_not_allowed(sample: Sample) -> None:
    async with served(sample.backups) as api:
        for method, path in (
            ("POST", "/status"),
            ("DELETE", "/backups"),
            ("GET", "/backups/full/disks/0/attachment"),
        ):
            document = await api.problem(method, path)
            assert (document["status"], document["errno"]) == (405, None)
        assert servers() == []


def unknown_feature(path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    with path.open("r+b") as file:
        file.seek(72)  # incompatible_features
        file.write((1 << 62).to_bytes(8))


def encrypted(path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    with path.open("r+b") as file:
        file.seek(32)  # crypt_method
        file.write((2).to_bytes(4))


def missing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "status", "name"),
    [
        (missing, 502, "EIO"),
        (unknown_feature, 501, "EOPNOTSUPP"),
        (encrypted, 423, "ENOKEY"),
    ],
)
async def test_each_kind_of_failure_has_its_status(
    make: Any, status: int, name: str, tmp_path: Path
) -> None:
    image = tmp_path / "disk.qcow2"
    make(image)
    backup = BackupRecord("b", "vm", None, (DiskRecord(1, "b", 0, str(image)),))
    async with served([backup]) as api:
        document = await api.problem("PUT", "/backups/b/disks/0/attachment")
        assert document["status"] == status
        assert document["errno"] == name
        assert str(image) in document["detail"]
        (disk,) = (await api.get("/backups/b/volumes"))["disks"]
        assert disk["error"] == document["detail"]


async def test_all_slots_in_use_is_a_conflict(sample: Sample) -> None:
    async with served(sample.backups, max_attached=1) as api:
        async with api.pool.use(sample.backups[0].disks[0]):
            path = "/backups/" + quote(ODD, safe="") + "/disks/0/attachment"
            document = await api.problem("PUT", path)
            assert (document["status"], document["errno"]) == (409, "EBUSY")
        await api.put(path)


async def test_attaching_that_takes_too_long_times_out(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    script = tmp_path / "qemu-nbd"
    script.write_text("#!/bin/sh\nkill -STOP $$\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with served(sample.backups) as api:
        api.client.timeout = httpx.Timeout(None)
        documents: list[dict[str, Any]] = []

        async def attach() -> None:
            documents.append(await api.problem("PUT", "/backups/full/disks/0/attachment"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach)
            await until(servers)
            mock_clock.jump(21)
        (document,) = documents
        assert (document["status"], document["errno"]) == (504, "ETIMEDOUT")


async def test_a_bug_is_a_problem_for_its_caller_only_and_is_logged(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def oops(*_: object) -> None:
        raise ZeroDivisionError("oops")

    async with served(sample.backups) as api:
        monkeypatch.setattr(Status, "describe", oops)
        document = await api.problem("GET", "/status")
        assert (document["status"], document["errno"]) == (500, None)
        assert "log" in document["detail"]
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "ZeroDivisionError" in caplog.text
        assert len((await api.get("/backups"))["backups"]) == 2
