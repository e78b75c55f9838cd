"""LVM2 volumes that a Linux kernel made and read, see tests/images/lvm/make.py.

Expected: the SHA-256 that the kernel printed of each volume, also where a member is missing: what
redundancy is for is that the content stays the same.
"""

import itertools

import pytest

from restorefs.errors import DamagedError, StorageError, UnsupportedError
from tests.images.lvm.repair import repaired, thin_blocks, with_text
from tests.images.lvm.stored import disks, said
from tests.real.lvm2_volumes import content_of, group_of, named, said_by_us

REDUNDANT_BY_TWO = {"raid1x3", *(f"raid6_{kind}" for kind in (
    "zr", "nr", "nc", "n_6", "la_6", "ra_6", "ls_6", "rs_6"))}  # fmt: skip
SETS = (
    "raid",
    "thin",
    "snapshots",
    "degraded",
    "syncing",
    "crashed",
    "reshaped",
    "nested",
    "copying",
)
NOT_REDUNDANT = {"raid0", "raid0_meta", "striped"}


def without(name: str, *missing: int) -> list[bytes]:
    return [disk for number, disk in enumerate(disks(name)) if number not in missing]


@pytest.mark.parametrize("name", SETS)
async def test_volumes_hold_what_the_kernel_read(name: str) -> None:
    found = await said_by_us(await group_of(disks(name)))
    expected = said(name)
    assert {key: value for key, value in found.items() if key in expected} == expected
    # What the kernel does not read either, or not any more; and a copy that was split off.
    others = {"snaps/overflowed", "snaps/merged-origin", "nested/tracked_rimage_2"}
    assert found.keys() - expected.keys() <= others


@pytest.mark.parametrize("name", [*SETS, "others"])
async def test_a_missing_member_never_changes_a_byte(name: str) -> None:
    whole = said(name)
    for missing in range(len(disks(name))):
        found = await said_by_us(await group_of(without(name, missing)))
        for key, value in found.items():
            if key in whole and (name, missing) != ("degraded", 0):  # that has a test of its own
                assert isinstance(value, StorageError) or value == whole[key], (key, missing)


async def test_redundancy_below_other_volumes_makes_up_for_a_missing_member() -> None:
    """A thin pool on RAID 5 and RAID 1, snapshots of thin and mirrored volumes, a mirror half of
    which is being moved."""
    whole = said("nested")
    found = await said_by_us(await group_of(without("nested", 1)))
    assert {key: found[key] for key in whole} == whole
    found = await said_by_us(await group_of(without("nested", 3)))
    assert {key: found[key] for key in whole} == whole


@pytest.mark.parametrize("missing", range(6))
async def test_one_missing_member_is_made_up_for_by_redundancy(missing: int) -> None:
    group = await group_of(without("raid", missing))
    found = await said_by_us(group)
    (lost,) = group.wanted - group.present
    for key, expected in said("raid").items():
        name = key.partition("/")[2]
        needed = lost in named(group, name).members
        # Without a log on disk only the first copy of a mirror is known to be right.
        once = name in NOT_REDUNDANT or (name == "mirror_core" and missing == 0)
        if needed and once:
            assert isinstance(found[key], StorageError)
            assert lost in str(found[key])
            assert "raids" in str(found[key])
            assert "/dev/vd" in str(found[key])
        else:
            assert found[key] == expected, key


@pytest.mark.parametrize("missing", list(itertools.combinations(range(6), 2)), ids=str)
async def test_two_missing_members_are_made_up_for_by_two_parities(
    missing: tuple[int, int],
) -> None:
    group = await group_of(without("raid", *missing))
    found = await said_by_us(group)
    lost = group.wanted - group.present
    for key, expected in said("raid").items():
        name = key.partition("/")[2]
        touched = lost & named(group, name).members
        if name in REDUNDANT_BY_TWO or not touched:
            assert found[key] == expected, key
        else:
            assert found[key] == expected or isinstance(found[key], StorageError), key
        if len(touched) == 2 and name.startswith(("raid4", "raid5")):
            assert isinstance(found[key], StorageError), key


async def test_a_member_that_missed_writes_is_not_used() -> None:
    """Disk 2 was not there when the volumes were written to; what it holds is older."""
    whole = said("degraded")
    assert await said_by_us(await group_of(without("degraded", 2))) == whole
    for missing in (0, 1, 3, 4):
        group = await group_of(without("degraded", missing))
        found = await said_by_us(group)
        # Two volumes have nothing but what they have on disk 2 then, which knows no better.
        alone = {"stale/raid1", "stale/first-leg"} if missing == 0 else set()
        for key, value in found.items():
            if key in alone:
                name = key.partition("/")[2]
                assert [note for note in group.notes if note.startswith(f"{name}: ")]
            else:
                assert isinstance(value, StorageError) or value == whole[key], (key, missing)


async def test_what_is_being_synchronised_is_read_only_where_it_is_in_step() -> None:
    whole = said("syncing")
    for missing in range(5):
        found = await said_by_us(await group_of(without("syncing", missing)))
        for key, value in found.items():
            assert isinstance(value, StorageError) or value == whole[key], (key, missing)
    first_gone = await said_by_us(await group_of(without("syncing", 0)))
    assert isinstance(first_gone["syncing/initial1"], StorageError)
    assert isinstance(first_gone["syncing/initial5"], StorageError)
    assert isinstance(first_gone["syncing/rebuilt1"], StorageError)
    new_gone = await said_by_us(await group_of(without("syncing", 3)))
    assert new_gone["syncing/rebuilt1"] == whole["syncing/rebuilt1"]


async def test_the_part_of_a_copy_that_is_in_step_is_read() -> None:
    group = await group_of(without("syncing", 0))
    whole = await content_of(named(await group_of(disks("syncing")), "initial1"))
    device = named(group, "initial1").device
    assert device is not None
    assert await device.read(0, 4096) == whole[:4096]
    with pytest.raises(StorageError):
        await device.read(device.size - 4096, 4096)


@pytest.mark.parametrize("missing", range(5))
async def test_after_a_crash_nothing_is_computed_from_parity_where_it_may_be_wrong(
    missing: int,
) -> None:
    """The power went during writes to the first 88 KiB of each volume."""
    group = await group_of(without("crashed", missing))
    (lost,) = group.wanted - group.present
    whole = await group_of(disks("crashed"))
    for name in ("raid5", "raid6"):
        volume, device = named(whole, name), named(group, name).device
        content = await content_of(volume)
        assert device is not None
        assert await device.read(1 << 20, 1 << 18) == content[1 << 20 :][: 1 << 18], "untouched"
        if lost in volume.members:
            with pytest.raises(StorageError, match="parity"):
                await device.read(0, 128 << 10)
        else:
            assert await device.read(0, len(content)) == content
    for name in ("raid1", "raid10", "mirror"):
        expected = await content_of(named(whole, name))
        assert await content_of(named(group, name)) == expected, "of any copy that is there"


async def test_a_copy_is_read_only_where_the_log_says_that_it_is_the_same() -> None:
    """The power went when a quarter of a mirror had been copied, and its log said so."""
    whole = await content_of(named(await group_of(disks("copying")), "mirror"))
    device = named(await group_of(without("copying", 0)), "mirror").device
    assert device is not None
    region = 64 << 10
    same = 0
    for at in range(0, device.size, region):
        try:
            assert await device.read(at, region) == whole[at : at + region]
            same += 1
        except StorageError:
            continue
    assert same == 75
    with pytest.raises(StorageError, match="the same"):
        await device.read(74 * region, 2 * region)


async def test_nothing_is_computed_from_parity_that_was_never_made() -> None:
    """lvcreate --nosync, on disks that held something before."""
    whole = said("nosync")
    found = await said_by_us(await group_of(disks("nosync")))
    assert found["nosync/raid5"] == whole["nosync/raid5"]
    for missing in range(3):
        found = await said_by_us(await group_of(without("nosync", missing)))
        assert isinstance(found["nosync/raid5"], StorageError)


async def test_what_is_being_reshaped_is_refused_by_name() -> None:
    group = await group_of(disks("reshaping"))
    assert {volume.name for volume in group.volumes} == {b"reshaping-fewer", b"reshaping-other"}
    for volume in group.volumes:
        assert isinstance(volume.error, UnsupportedError)
        assert "reshap" in str(volume.error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cached", "cache"),
        ("cachedvol", "cache"),
        ("writecached", "writecache"),
        ("integrity", "integrity"),
    ],
)
async def test_what_is_not_read_is_refused_by_name(name: str, kind: str) -> None:
    group = await group_of(disks("others"))
    volume = named(group, name)
    assert volume.device is None
    assert isinstance(volume.error, UnsupportedError)
    assert kind in str(volume.error)
    assert name in str(volume.error)


async def test_what_is_not_read_hides_nothing_else() -> None:
    found = await said_by_us(await group_of(disks("others")))
    expected = said("others")
    assert {key: value for key, value in found.items() if key in expected} == expected
    assert isinstance(found["others/errors"], StorageError)


@pytest.mark.parametrize("missing", [0, 2])
async def test_what_is_being_moved_is_read_where_it_is_up_to_date(missing: int) -> None:
    """One segment has been moved to disk 2 and was written to there, the other is on disk 0."""
    group = await group_of(without("others", missing))
    device = named(group, "moved").device
    assert device is not None
    whole = await content_of(named(await group_of(disks("others")), "moved"))
    moved, moving = (0, 24 * 65536), (24 * 65536, 8 * 65536)
    readable, lost = (moved, moving) if missing == 0 else (moving, moved)
    assert await device.read(*readable) == whole[readable[0] : sum(readable)]
    with pytest.raises(StorageError):
        await device.read(*lost)


async def test_a_snapshot_without_room_and_one_being_merged_are_refused() -> None:
    group = await group_of(disks("snapshots"))
    overflowed = named(group, "overflowed")
    assert isinstance(overflowed.error, UnsupportedError)
    assert "overflowed" in str(overflowed.error)
    merging = named(group, "merged-origin")
    assert isinstance(merging.error, UnsupportedError)
    assert "merged" in str(merging.error)
    assert "snaps/full-origin" in said("snapshots")


@pytest.mark.parametrize(
    ("set_", "hidden"),
    [
        ("raid", ("rimage", "rmeta", "mimage", "mlog")),
        ("thin", ("tdata", "tmeta", "pmspare", "pool")),
        ("snapshots", ("snapshot0", "snapshot1")),
        ("others", ("pvmove", "corig", "cdata", "cmeta", "cvol", "pmspare")),
    ],
)
async def test_what_volumes_are_made_of_is_not_listed(set_: str, hidden: tuple[str, ...]) -> None:
    group = await group_of(disks(set_))
    names = [volume.name.decode() for volume in group.volumes]
    assert names
    assert not [name for name in names if any(part in name for part in hidden)]


async def test_members_are_those_that_hold_a_part() -> None:
    group = await group_of(disks("raid"))
    counts = {v.name.decode().partition("-")[2]: len(v.members) for v in group.volumes}
    assert counts["raid1"] == 2
    assert counts["mirror"] == 3, "two images and a log"
    assert counts["raid10x6"] == 6
    assert counts["raid6_nc"] == 5


async def test_a_thin_pool_whose_metadata_is_gone_hides_no_other_volume() -> None:
    contents = [bytearray(disk) for disk in disks("thin")]
    damaged = 0
    for content in contents:
        for at in range(0, len(content), 4096):
            if int.from_bytes(content[at + 32 : at + 40], "little") == 27022010:
                content[at] ^= 1
                damaged += 1
    assert damaged
    found = await said_by_us(await group_of([bytes(content) for content in contents]))
    assert found["thin-vg/ext-origin"] == said("thin")["thin-vg/ext-origin"]
    assert isinstance(found["thin-vg/first"], DamagedError)


async def test_a_thin_pool_of_another_time_is_refused() -> None:
    """A pool whose own transaction is not the one in the text: one of them is older."""
    contents = [
        with_text(disk, b"\ntransaction_id = 8", b"\ntransaction_id = 7") for disk in disks("thin")
    ]
    found = await said_by_us(await group_of(contents))
    assert isinstance(found["thin-vg/first"], DamagedError)
    assert "transaction" in str(found["thin-vg/first"])
    assert found["thin-vg/ext-origin"] == said("thin")["thin-vg/ext-origin"]


async def test_a_pool_that_is_to_be_checked_is_read_with_a_note() -> None:
    contents = []
    for disk in disks("thin"):
        changed = bytearray(disk)
        for at in thin_blocks(disk):
            if int.from_bytes(disk[at + 32 : at + 40], "little") == 27022010:
                changed[at + 4] |= 1
        contents.append(repaired(bytes(changed), disk))
    group = await group_of(contents)
    found = await said_by_us(group)
    assert {key: found[key] for key in said("thin")} == said("thin")
    assert [note for note in group.notes if "to be checked" in note]
