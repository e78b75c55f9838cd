"""Node ids: what they mean must never change, so some are written out here."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.tree.nodeid import ROOT, VOLUME_FOLDER, GuestNode, NodeId, NodeIds, above, is_above

MAX_DISK = 2**21 - 1
MAX_INODE = 2**36 - 1
DISKS = st.integers(1, MAX_DISK)
VOLUMES = st.integers(0, 62)
INODES = st.integers(0, MAX_INODE)


def test_the_root_is_what_fuse_demands() -> None:
    assert ROOT == above(b"") == 1
    assert is_above(ROOT)


def test_what_is_above_the_guests_has_bit_63_and_a_number_from_its_path() -> None:
    # b2sum -l 64, of the path without a line end, with the highest bit set
    assert above(b"backups") == 0x8D420294168C9303
    assert above(b"vms/pgtest1/latest") == 0x480FBF5459A3C00F | 1 << 63
    assert above(b"vms") != above(b"vms/")
    for path in (b"backups", b"vms", b"backups/a/disk0", b"\xff\x00"):
        assert 2**63 <= above(path) < 2**64
        assert is_above(above(path))


def test_the_layout_of_a_guest_file() -> None:
    ids = NodeIds()
    assert ids.encode(1, 0, 0) == 1 << 42
    assert ids.encode(1, 2, 12) == 1 << 42 | 2 << 36 | 12
    assert ids.encode(MAX_DISK, 62, MAX_INODE) == 2**63 - 1 - (1 << 36)
    assert ids.encode(5, 1, VOLUME_FOLDER) == 5 << 42 | 1 << 36


@given(DISKS, VOLUMES, INODES)
def test_a_guest_file_is_found_again_by_a_process_that_never_saw_it(
    disk: int, volume: int, inode: int
) -> None:
    node = NodeIds().encode(disk, volume, inode)
    assert 1 < node < 2**63
    assert not is_above(node)
    assert NodeIds().decode(node) == GuestNode(disk, volume, inode)


@given(DISKS, VOLUMES, INODES)
def test_whole_folders_may_add_inodes_to_a_base(disk: int, volume: int, inode: int) -> None:
    ids = NodeIds()
    base = ids.base(disk, volume)
    assert base is not None
    assert base + inode == ids.encode(disk, volume, inode)


@given(st.lists(st.tuples(DISKS, VOLUMES, INODES), unique=True))
def test_two_files_never_share_an_id(files: list[tuple[int, int, int]]) -> None:
    ids = NodeIds()
    assert len({ids.encode(*file) for file in files}) == len(files)


# What does not fit

TOO_LARGE = [
    GuestNode(MAX_DISK + 1, 0, 2),
    GuestNode(2**40, 3, 2),
    GuestNode(1, 63, 2),
    GuestNode(1, 128, 2),
    GuestNode(1, 0, MAX_INODE + 1),
    GuestNode(1, 0, 2**64 - 1),
    GuestNode(2**63, 200, 2**64 - 1),
]


@pytest.mark.parametrize("guest", TOO_LARGE)
def test_what_does_not_fit_has_a_number_from_a_table(guest: GuestNode) -> None:
    ids = NodeIds()
    node = ids.encode(*guest)
    assert 1 < node < 2**63
    assert not is_above(node)
    assert ids.encode(*guest) == node, "the same again"
    assert ids.decode(node) == guest
    assert NodeIds().decode(node) is None, "but not in another process"


def test_a_number_from_a_table_is_no_other_files_in_another_process() -> None:
    processes = [NodeIds() for _ in range(8)]
    numbers = {
        ids.encode(*guest)
        for number, ids in enumerate(processes)
        for guest in (TOO_LARGE if number % 2 else reversed(TOO_LARGE))
    }
    assert len(numbers) == len(processes) * len(TOO_LARGE)


def test_numbers_of_the_table_are_no_files_own() -> None:
    ids = NodeIds()
    numbers = [ids.encode(*guest) for guest in TOO_LARGE]
    files = itertools.product((1, 2, MAX_DISK), (0, 1, 62), (0, 1, 2, MAX_INODE))
    plain = [ids.encode(*file) for file in files]
    assert len({*numbers, *plain, ROOT}) == len(numbers) + len(plain) + 1


@pytest.mark.parametrize(("disk", "volume"), [(0, 0), (MAX_DISK + 1, 0), (1, 63), (1, 64)])
def test_there_is_no_base_for_what_does_not_fit(disk: int, volume: int) -> None:
    assert NodeIds().base(disk, volume) is None


def test_numbers_that_were_never_handed_out_are_nothing() -> None:
    ids = NodeIds()
    table = ids.encode(1, 63, 2)
    assert ids.decode(NodeId(2)) is None
    assert ids.decode(NodeId(1 << 36)) is None
    assert ids.decode(NodeId(table + 1)) is None
    assert ids.decode(NodeId(table | 5 << 42)) is None, "the table has no disk's number"


@given(st.integers(0, 2**63 - 1))
def test_any_number_is_a_file_or_nothing_and_if_a_file_then_its_own(number: int) -> None:
    ids = NodeIds()
    for guest in TOO_LARGE:
        ids.encode(*guest)
    found = ids.decode(NodeId(number))
    if found is not None:
        assert ids.encode(*found) == number
