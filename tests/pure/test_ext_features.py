"""Feature bits: the names that people see, and how blkid tells the three formats apart."""

import pytest

from restorefs.guestfs.ext import features as f


@pytest.mark.parametrize(
    ("compat", "incompat", "ro_compat", "kind"),
    [
        (0, 0, 0, "ext2"),
        (0x38, 0x2, 0x3, "ext2"),
        (0, 0x10, 0x7, "ext2"),
        (0x3C, 0x2, 0x3, "ext3"),
        (0x3C, 0x6, 0x3, "ext3"),
        (0x4, 0x40, 0, "ext4"),
        (0, 0x40, 0, "ext4"),  # without a journal
        (0, 0, 0x8, "ext4"),
        (0x4, 0, 0x10, "ext4"),
        (0, 1 << 31, 0, "ext4"),
        (0, 0, 1 << 31, "ext4"),
        (0, 0x8, 0, "jbd"),
        (0x4, 0x4A, 0x3, "jbd"),
    ],
)
def test_the_kind(compat: int, incompat: int, ro_compat: int, kind: str) -> None:
    assert f.kind_of(compat, incompat, ro_compat) == kind


def test_every_bit_has_a_name() -> None:
    assert f.names_of(0, f.INCOMPAT_NAMES) == []
    assert f.names_of(0x1 | 0x20 | 0x1000 | 1 << 31, f.INCOMPAT_NAMES) == [
        "compression",
        "bit 0x20",
        "dirdata",
        "bit 0x80000000",
    ]
    assert f.names_of(0x200 | 0x40000, f.RO_COMPAT_NAMES) == ["bigalloc", "bit 0x40000"]


def test_what_is_read_has_a_name() -> None:
    assert not f.READABLE_INCOMPAT & ~sum(f.INCOMPAT_NAMES)
    refused = f.names_of(sum(f.INCOMPAT_NAMES) & ~f.READABLE_INCOMPAT, f.INCOMPAT_NAMES)
    assert refused == ["compression", "journal_dev", "dirdata"]
