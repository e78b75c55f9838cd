"""The folders above the guests, from records as a catalog gives them."""

import logging
import posixpath
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.catalog.records import BackupRecord, DiskRecord
from restorefs.tree.namespace import Above, Namespace, safe_name
from restorefs.tree.nodeid import ROOT, above

STARTED_NS = 4_000_000_000_000_000_000
NOON = datetime(2025, 10, 8, 12, 0, 0, tzinfo=UTC)
_numbers = iter(range(1, 1 << 62))


def backup(
    name: str, vm: str = "vm", time: datetime | None = NOON, disks: Iterable[int] = (0,)
) -> BackupRecord:
    return BackupRecord(
        name,
        vm,
        time,
        tuple(DiskRecord(next(_numbers), name, index, f"/srv/{index}.qcow2") for index in disks),
    )


def namespace(*backups: BackupRecord) -> Namespace:
    return Namespace(backups, STARTED_NS)


def get(ns: Namespace, node: int) -> Above:
    found = ns.get(node)  # type: ignore[arg-type]
    assert found is not None
    return found


def children(ns: Namespace, path: bytes) -> dict[bytes, Above]:
    """List a folder as one would who walks from the root."""
    here = get(ns, ROOT)
    for name in path.split(b"/") if path else ():
        assert here.children is not None
        here = get(ns, here.children[name])
    assert here.children is not None
    return {name: get(ns, node) for name, node in here.children.items()}


def follow(ns: Namespace, path: bytes) -> Above:
    """Follow a link from where it lies."""
    folder, _, name = path.rpartition(b"/")
    target = children(ns, folder)[name].target
    assert target is not None
    there = posixpath.normpath(posixpath.join(folder, target))
    assert not there.startswith((b"..", b"/"))
    parent, _, last = there.rpartition(b"/")
    return children(ns, parent)[last]


def check(ns: Namespace) -> None:
    """Assert what holds for every namespace."""
    nodes = {node.node: node for node in ns}
    assert len(nodes) == len(list(ns))
    reached = {ROOT}
    for node in nodes.values():
        kinds = (node.children is not None, node.target is not None, node.disk is not None)
        assert sum(kinds) == 1
        assert get(ns, node.parent).children is not None
        for name, child in (node.children or {}).items():
            assert 0 < len(name) <= 255
            assert b"/" not in name
            assert b"\0" not in name
            assert name not in (b".", b"..")
            assert nodes[child].parent == node.node
            assert nodes[child].name == name
            reached.add(child)
    assert reached == set(nodes)
    for disk_id, folder in ns.disk_folders.items():
        assert get(ns, folder).disk is ns.disks[disk_id]
    for vm in children(ns, b"vms"):
        for name in children(ns, b"vms/" + vm):
            shown = follow(ns, b"vms/" + vm + b"/" + name)
            assert shown.children is not None
            owners = {get(ns, node).disk for node in shown.children.values()}
            assert all(disk is not None for disk in owners)


def test_an_empty_catalog() -> None:
    ns = namespace()
    check(ns)
    assert set(children(ns, b"")) == {b"backups", b"vms"}
    assert children(ns, b"backups") == children(ns, b"vms") == {}


def test_a_backup_with_its_disks() -> None:
    record = backup("backup-pgtest1-1759947871", "pgtest1", disks=(0, 1, 12))
    ns = namespace(record)
    check(ns)
    assert set(children(ns, b"backups")) == {b"backup-pgtest1-1759947871"}
    disks = children(ns, b"backups/backup-pgtest1-1759947871")
    assert [(name, node.disk) for name, node in disks.items()] == [
        (b"disk0", record.disks[0]),
        (b"disk1", record.disks[1]),
        (b"disk12", record.disks[2]),
    ]
    assert disks[b"disk12"].node == above(b"backups/backup-pgtest1-1759947871/disk12")
    assert ns.backups == {record.id: record}
    assert ns.disks == {disk.id: disk for disk in record.disks}
    links = children(ns, b"vms/pgtest1")
    assert {name: node.target for name, node in links.items()} == {
        b"2025-10-08T120000Z": b"../../backups/backup-pgtest1-1759947871",
        b"latest": b"../../backups/backup-pgtest1-1759947871",
    }


def test_ids_are_the_same_whatever_else_there_is() -> None:
    record = backup("b", "v")
    alone, among = namespace(record), namespace(backup("a", "v"), record, backup("c", "w"))
    shared = {node.node: node.name for node in alone}
    assert shared.items() <= {node.node: node.name for node in among}.items()


def test_times_are_the_backups_own() -> None:
    summer = timezone(timedelta(hours=2))
    ns = namespace(
        backup("a", "v", datetime(2025, 7, 1, 0, 30, tzinfo=summer)),
        backup("old", "w", datetime(1965, 1, 1, tzinfo=UTC)),
        backup("none", "x", None),
    )
    second = 1_000_000_000
    half_past_ten = int(datetime(2025, 6, 30, 22, 30, tzinfo=UTC).timestamp()) * second
    assert set(children(ns, b"vms/v")) == {b"2025-06-30T223000Z", b"latest"}
    assert children(ns, b"backups")[b"a"].time_ns == half_past_ten
    assert children(ns, b"backups/a")[b"disk0"].time_ns == half_past_ten
    assert children(ns, b"vms/v")[b"latest"].time_ns == half_past_ten
    assert children(ns, b"vms")[b"v"].time_ns == half_past_ten
    assert children(ns, b"backups")[b"old"].time_ns == -157_766_400 * second
    assert children(ns, b"")[b"vms"].time_ns == STARTED_NS
    assert children(ns, b"backups")[b"none"].time_ns == STARTED_NS
    assert set(children(ns, b"vms/x")) == {b"unknown-time", b"latest"}


def test_latest_is_the_newest_whatever_the_order_of_the_catalog() -> None:
    days = [backup(f"day{n}", "v", NOON + timedelta(days=n)) for n in (3, 9, 1, 20, 4)]
    assert follow(namespace(*days), b"vms/v/latest").name == b"day20"


def test_backups_within_one_second_are_told_apart_in_their_order() -> None:
    within = [
        backup("a-third", "v", NOON + timedelta(microseconds=900)),
        backup("c-first", "v", NOON),
        backup("b-second", "v", NOON + timedelta(microseconds=5)),
    ]
    ns = namespace(*within)
    check(ns)
    assert [follow(ns, b"vms/v/" + name).name for name in children(ns, b"vms/v")] == [
        *(b"c-first", b"b-second", b"a-third"),
        b"a-third",
    ]
    assert list(children(ns, b"vms/v")) == [
        *(b"2025-10-08T120000Z", b"2025-10-08T120000Z-2", b"2025-10-08T120000Z-3"),
        b"latest",
    ]


def test_a_backup_of_unknown_time_is_never_the_latest_of_several() -> None:
    ns = namespace(backup("known", "v"), backup("unknown", "v", None))
    assert follow(ns, b"vms/v/latest").name == b"known"
    assert follow(ns, b"vms/v/unknown-time").name == b"unknown"
    assert follow(namespace(backup("only", "v", None)), b"vms/v/latest").name == b"only"


# Names

ODD = {
    "plain-01.example": b"plain-01.example",
    "Wöchentlich 100%;'\"\\ @#": "Wöchentlich 100%;'\"\\ @#".encode(),
    "日本語": "日本語".encode(),
    "new\nline": b"new\nline",
    "\udcff\udc80": b"\xff\x80",  # as the file system gives names that are not UTF-8
    "a/b": b"a%2Fb",
    "100%/day": b"100%25%2Fday",
    "nul\0": b"nul%00",
    "": b"%",
    ".": b"%2E",
    "..": b"%2E%2E",
    "...": b"...",
    "/": b"%2F",
    "x" * 255: b"x" * 255,
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_a_name_is_encoded(name: str) -> None:
    assert safe_name(name) == ODD[name]


def test_all_odd_names_at_once_as_backups_and_as_vms() -> None:
    ns = namespace(*[backup(name, name) for name in ODD])
    check(ns)
    assert set(children(ns, b"backups")) == set(children(ns, b"vms")) == set(ODD.values())


def test_long_names_are_cut_but_stay_apart(caplog: pytest.LogCaptureFixture) -> None:
    vm = "名" * 80  # as long as a VM's name may be: 240 bytes
    names = [f"backup-{vm}-{1_759_947_871 + n}" for n in range(3)]
    ns = namespace(*[backup(name, vm + name) for name in names])
    check(ns)
    assert len(children(ns, b"backups")) == len(children(ns, b"vms")) == 3
    for name in (*children(ns, b"backups"), *children(ns, b"vms")):
        assert len(name) <= 255
        assert name.decode().startswith(("backup-名", "名")), "no character is cut in two"
    assert caplog.records == []


def test_a_long_name_is_always_cut_the_same() -> None:
    assert safe_name("x" * 300) == safe_name("x" * 300)
    assert len(safe_name("/" * 300)) <= 255


def test_of_two_backups_with_one_name_the_second_is_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Above all no link leads from one to the other's content."""
    with caplog.at_level(logging.ERROR):
        ns = namespace(backup("a/b", "one"), backup("a%2Fb", "two"), backup("c", "two"))
    check(ns)
    assert set(children(ns, b"backups")) == {b"a%2Fb", b"c"}
    assert set(children(ns, b"vms/two")) == {b"2025-10-08T120000Z", b"latest"}
    assert follow(ns, b"vms/two/latest").name == b"c"
    assert "not shown" in caplog.text
    assert "a%2Fb" in caplog.text


NAMES = st.text(max_size=5) | st.text(alphabet="./%2F\0a", max_size=5) | st.text(min_size=250)


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 3)), max_size=12))
def test_any_names_make_a_sound_tree(rows: list[tuple[str, str, int]]) -> None:
    seen = {name: (vm, NOON + timedelta(seconds=at)) for name, vm, at in rows}
    check(namespace(*[backup(name, vm, time, (0, 3)) for name, (vm, time) in seen.items()]))


def test_ten_thousand_backups() -> None:
    records = [
        backup(f"backup-vm{n % 500}-{n}", f"vm{n % 500}", NOON + timedelta(hours=n), range(5))
        for n in range(10_000)
    ]
    ns = namespace(*records)
    assert len(children(ns, b"backups")) == 10_000
    assert len(ns.disk_folders) == 50_000
    assert len(list(ns)) == 3 + 10_000 * (1 + 5 + 1) + 500 * 2
    assert follow(ns, b"vms/vm7/latest").name == b"backup-vm7-9507"
