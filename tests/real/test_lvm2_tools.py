"""Linear and striped volumes made by LVM's tools; expected: what lvs tells of their segments."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from restorefs.errors import StorageError
from restorefs.guestfs.registry import identify
from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.devices import MemoryDevice
from tests.contracts.groups import groups_of
from tests.images.lvm.tools import INACTIVE, Lvm, lvm_disks
from tests.real.lvm2_volumes import content_of, group_of, named, plain_name

PVCREATE = ("--dataalignment", "64k", "-qq", "-y")


@pytest.fixture
def lvm(tmp_path: Path) -> Iterator[Lvm]:
    with lvm_disks(tmp_path, 3) as lvm:
        yield lvm


def create(lvm: Lvm, *options: str, name: str = "vg") -> None:
    lvm("pvcreate", *PVCREATE, *options, *lvm.devices)
    lvm("vgcreate", "-s", "64k", "-qq", name, *lvm.devices)
    lvm.fill()


async def compare(lvm: Lvm) -> None:
    """All volumes hold what they should, and no others are listed."""
    expected = lvm.expected()
    found = {}
    for group in await groups_of(Lvm2, lvm.contents()):
        for volume in group.volumes:
            found[plain_name(group, volume)] = await content_of(volume)
    assert found.keys() == expected.keys()
    assert found == expected


async def test_linear_and_striped_volumes_in_many_segments(lvm: Lvm) -> None:
    create(lvm, name="my-vg")
    lvm("lvcreate", *INACTIVE, "-n", "lin-ear", "-l", "5", "my-vg")
    lvm("lvcreate", *INACTIVE, "-n", "two", "-i", "2", "-I", "4k", "-l", "10", "my-vg")
    lvm("lvcreate", *INACTIVE, "-n", "three", "-i", "3", "-I", "64k", "-l", "9", "my-vg")
    lvm("lvextend", "-qq", "-l", "+4", "-i", "1", "my-vg/two")
    lvm("lvextend", "-qq", "-l", "+6", "my-vg/lin-ear", lvm.devices[2])
    lvm("lvextend", "-qq", "-l", "+6", "-i", "3", "-I", "16k", "my-vg/lin-ear")
    lvm("lvremove", "-qq", "-y", "my-vg/three")
    lvm("lvcreate", *INACTIVE, "-n", "rest", "-l", "100%FREE", "my-vg")
    lvm("lvreduce", "-qq", "-y", "-l", "-3", "my-vg/rest")
    await compare(lvm)


@pytest.mark.parametrize("sector", ["0", "1", "2", "3"])
async def test_a_label_in_each_sector(lvm: Lvm, sector: str) -> None:
    create(lvm, "--labelsector", sector)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "20", "vg")
    await compare(lvm)


@pytest.mark.parametrize("copies", ["1", "2"])
async def test_the_ring_of_the_text_wraps(lvm: Lvm, copies: str) -> None:
    create(lvm, "--metadatasize", "16k", "--pvmetadatacopies", copies)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "7", "vg")
    for number in range(12):
        lvm("lvcreate", *INACTIVE, "-n", f"b{number}", "-l", "1", "vg")
    for number in range(60):
        lvm("lvchange", "-qq", "--addtag", f"tag{number}", "vg/a")
        head = lvm.contents()[0][4096 : 4096 + 64]
        size, offset, length = (int.from_bytes(head[n : n + 8], "little") for n in (32, 40, 48))
        if offset + length > size:
            break
    else:
        pytest.fail("the text never went on at the front of its ring")
    await compare(lvm)


async def test_members_without_text_and_with_ignored_text(lvm: Lvm) -> None:
    lvm("pvcreate", *PVCREATE, "--pvmetadatacopies", "0", lvm.devices[0])
    lvm("pvcreate", *PVCREATE, *lvm.devices[1:])
    lvm("vgcreate", "-s", "64k", "-qq", "vg", *lvm.devices)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "20", "vg", lvm.devices[0])
    lvm("pvchange", "-qq", "--metadataignore", "y", lvm.devices[1])
    lvm("lvcreate", *INACTIVE, "-n", "b", "-i", "3", "-I", "8k", "-l", "30", "vg")
    lvm.fill()
    await compare(lvm)
    members = [await Lvm2.read_member(MemoryDevice(content)) for content in lvm.contents()]
    assert [bool(member.group_uuid) for member in members] == [False, False, True]


async def test_an_orphan_is_of_no_group(lvm: Lvm) -> None:
    lvm("pvcreate", *PVCREATE, *lvm.devices)
    contents = lvm.contents()
    members = [await Lvm2.read_member(MemoryDevice(content)) for content in contents]
    shown = lvm("pvs", "--noheadings", "-o", "pv_uuid", *lvm.devices).split()
    assert sorted(member.uuid for member in members) == sorted(shown)
    assert not any(member.group_uuid or member.wanted for member in members)
    assert not await Lvm2.assemble(members)


async def test_uuids_and_members_are_those_that_the_tools_print(lvm: Lvm) -> None:
    create(lvm)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "4", "vg", lvm.devices[1])
    lvm("lvcreate", *INACTIVE, "-n", "b", "-i", "2", "-l", "4", "vg", *lvm.devices[::2])
    group = await group_of(lvm.contents())
    assert group.uuid == lvm("vgs", "--noheadings", "-o", "vg_uuid").strip()
    pvs = lvm("pvs", "--noheadings", "-o", "pv_uuid", *lvm.devices).split()
    assert group.wanted == group.present == set(pvs)
    lvs = dict(line.split() for line in lvm("lvs", "--noheadings", "-o", "name,uuid").splitlines())
    assert {v.name.decode().removeprefix("vg-"): v.uuid for v in group.volumes} == lvs
    assert len(named(group, "a").members) == 1
    assert len(named(group, "b").members) == 2
    assert not named(group, "a").members & named(group, "b").members


async def test_a_member_from_before_a_change_does_not_bring_back_the_past(lvm: Lvm) -> None:
    create(lvm)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "4", "vg")
    stale = lvm.contents()[0]
    lvm("lvremove", "-qq", "-y", "vg/a")
    lvm("lvcreate", *INACTIVE, "-n", "b", "-l", "9", "vg")
    expected = lvm.expected()
    group = await group_of([stale, *lvm.contents()[1:]])
    assert [volume.name for volume in group.volumes] == [b"vg-b"]
    assert await content_of(named(group, "b")) == expected["vg/b"]
    assert any("older copy" in note for note in group.notes)


async def test_a_group_without_a_member_is_read_but_for_that(lvm: Lvm) -> None:
    create(lvm)
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "4", "vg", lvm.devices[0])
    lvm("lvcreate", *INACTIVE, "-n", "b", "-i", "3", "-I", "4k", "-l", "6", "vg")
    expected = lvm.expected()
    lost = lvm("pvs", "--noheadings", "-o", "pv_uuid", lvm.devices[1]).strip()
    contents = lvm.contents()
    group = await group_of([contents[0], contents[2]])
    assert await content_of(named(group, "a")) == expected["vg/a"]
    device = named(group, "b").device
    assert device is not None
    assert await device.read(0, 4096) == expected["vg/b"][:4096]
    with pytest.raises(StorageError, match=lost):
        await device.read(0, 8192)


async def test_two_groups_and_a_renamed_and_exported_one(lvm: Lvm) -> None:
    lvm("pvcreate", *PVCREATE, *lvm.devices)
    lvm("vgcreate", "-s", "64k", "-qq", "one", lvm.devices[0])
    lvm("vgcreate", "-s", "64k", "-qq", "two", *lvm.devices[1:])
    lvm("lvcreate", *INACTIVE, "-n", "a", "-l", "4", "one")
    lvm("lvcreate", *INACTIVE, "-n", "a", "-i", "2", "-l", "4", "two")
    lvm.fill()
    expected = lvm.expected()
    lvm("vgrename", "-qq", "two", "second")
    lvm("vgexport", "-qq", "second")
    groups = {group.name: group for group in await groups_of(Lvm2, lvm.contents())}
    assert set(groups) == {"one", "second"}
    assert await content_of(named(groups["one"], "a")) == expected["one/a"]
    assert await content_of(named(groups["second"], "a")) == expected["two/a"]
    assert groups["second"].notes == ["it is exported"]


async def test_members_are_recognised_as_what_the_scheme_reads(lvm: Lvm) -> None:
    create(lvm)
    for content in lvm.contents():
        device = MemoryDevice(content)
        identity = await identify(device)
        assert identity is not None
        assert identity.kind == Lvm2.member_kind
        assert identity.uuid == (await Lvm2.read_member(device)).uuid
