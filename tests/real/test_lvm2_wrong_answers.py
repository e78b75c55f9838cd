"""The wrong answers that other readers gave for legal LVM groups, each a case of its own.

DESIGN section 8 lists them under "LVM".
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.lvm.repair import areas
from tests.images.lvm.stored import disks, said
from tests.images.lvm.tools import INACTIVE, Lvm, lvm_disks
from tests.real.lvm2_volumes import content_of, group_of, named, said_by_us


@pytest.fixture
def lvm(tmp_path: Path) -> Iterator[Lvm]:
    with lvm_disks(tmp_path, 2) as lvm:
        lvm("pvcreate", "-qq", "-y", "--pvmetadatacopies", "2", "--metadatasize", "64k",
            "--dataalignment", "64k", *lvm.devices)  # fmt: skip
        lvm("vgcreate", "-s", "64k", "-qq", "vg", *lvm.devices)
        lvm("lvcreate", *INACTIVE, "-n", "two", "-i", "2", "-I", "16k", "-l", "8", "vg")
        lvm.fill()
        yield lvm


async def test_a_volume_of_two_stripes_is_not_one_behind_the_other(lvm: Lvm) -> None:
    content = await content_of(named(await group_of(lvm.contents()), "two"))
    assert content == lvm.expected()["vg/two"]
    chunk = 16 << 10
    chunks = [content[at : at + chunk] for at in range(0, len(content), chunk)]
    one, other = b"".join(chunks[::2]), b"".join(chunks[1::2])
    assert content != one + other


async def test_one_raid1_volume_does_not_lose_the_group() -> None:
    group = await group_of(disks("degraded"))
    assert named(group, "raid1").type_name == "raid1"
    assert named(group, "untouched").type_name == "linear"
    assert await said_by_us(group) == said("degraded")


async def test_not_only_the_first_metadata_area_is_read(lvm: Lvm) -> None:
    contents = [bytearray(content) for content in lvm.contents()]
    for content in contents:
        (start, size), _second = areas(bytes(content))
        content[start : start + size] = bytes(size)
    group = await group_of([bytes(content) for content in contents])
    assert await content_of(named(group, "two")) == lvm.expected()["vg/two"]
    assert all("metadata area 1" in note for note in group.notes)
    assert len(group.notes) == 2


async def test_the_last_member_alone_has_all_of_the_text(lvm: Lvm) -> None:
    group = await group_of(lvm.contents()[1:])
    assert [volume.name for volume in group.volumes] == [b"vg-two"]
