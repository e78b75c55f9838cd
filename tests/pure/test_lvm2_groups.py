"""LVM2 groups written by hand: several copies of the text, and texts that no tool would write."""

from collections.abc import Sequence

import pytest

from restorefs.errors import DamagedError, RestoreError, StorageError, UnsupportedError
from restorefs.volumes.groups import Group
from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.devices import MemoryDevice
from tests.contracts.groups import groups_of
from tests.contracts.mutation import bounded_processor_time
from tests.images.lvm.handmade import EXTENT, extent, group, linear, member, segment, uuid

BOTH = {"a": linear("pv0", 0, 3), "b": linear("pv1", 2, 5)}


async def errors_of(volumes: dict[str, str], members: int = 2) -> dict[str, RestoreError | None]:
    """Return what is wrong with each volume of a group, at once or when it is read."""
    text = group(volumes, members)
    (found,) = await groups_of(Lvm2, [member(n + 1, text) for n in range(members)])
    errors: dict[str, RestoreError | None] = {}
    for volume in found.volumes:
        error = volume.error
        if volume.device is not None:
            try:
                await volume.device.read(0, min(volume.device.size, 1 << 20))
            except RestoreError as caught:
                error = caught
        errors[volume.name.decode().removeprefix("vg-")] = error
    return errors


async def read(found: Group, name: str, extents: Sequence[tuple[int, int]]) -> None:
    """Assert that a volume holds these extents: (number of the member, extent)."""
    (volume,) = [v for v in found.volumes if v.name == name.encode()]
    assert volume.device is not None
    content = await volume.device.read(0, volume.device.size)
    assert content == b"".join(extent(*place) for place in extents)


async def test_a_group_by_hand() -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text)])
    assert (found.name, found.uuid) == ("vg", uuid(1000))
    assert found.wanted == found.present == {uuid(1), uuid(2)}
    assert not found.notes
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
    await read(found, "vg-b", [(2, n) for n in range(2, 7)])


@pytest.mark.parametrize("sector", range(4))
async def test_a_label_in_any_sector(sector: int) -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(n, text, sector=sector) for n in (1, 2)])
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])


async def test_text_that_wraps_in_its_ring() -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(n, text, at=(1 << 20) - 4096 - 700) for n in (1, 2)])
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])


async def test_one_member_with_text_is_enough_for_all() -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(1, text, areas=0), member(2, text)])
    assert found.present == {uuid(1), uuid(2)}
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])


async def test_members_without_any_text_are_no_group() -> None:
    text = group(BOTH)
    for kwargs in ({"areas": 0}, {"flags": 1}):
        assert not await groups_of(Lvm2, [member(1, text, **kwargs), member(2, text, **kwargs)])
    orphan = await Lvm2.read_member(MemoryDevice(member(1, "")))
    assert (orphan.uuid, orphan.group_uuid, orphan.wanted) == (uuid(1), "", frozenset())


async def test_an_ignored_copy_is_not_read() -> None:
    old = group({"a": linear("pv0", 9, 3)}, seqno=99)
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(1, old, flags=1), member(2, text)])
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])


@pytest.mark.parametrize("newest", [0, 1])
async def test_the_newest_copy_wins_and_the_other_is_told_of(newest: int) -> None:
    texts = [group({"a": linear("pv0", 9, 3)}, seqno=4), group(BOTH, seqno=5)]
    contents = [member(1, texts[1 - newest]), member(2, texts[newest])]
    (found,) = await groups_of(Lvm2, contents)
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
    (note,) = found.notes
    assert "4 of 5" in note


async def test_two_copies_with_one_number_that_differ_are_told_of() -> None:
    """Each half of a group was changed while the other one was missing."""
    one, two = group(BOTH, seqno=5), group({"a": linear("pv0", 9, 3)}, seqno=5)
    contents = [member(1, one), member(2, two)]
    for order in (contents, contents[::-1]):
        (found,) = await groups_of(Lvm2, order)
        await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
        (note,) = found.notes
        assert uuid(2) in note


async def test_the_second_area_is_used_where_the_first_is_damaged() -> None:
    text = group(BOTH)
    contents = [bytearray(member(n, text, areas=2)) for n in (1, 2)]
    for content in contents:
        content[4096 + 600] ^= 1
    (found,) = await groups_of(Lvm2, [bytes(content) for content in contents])
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
    assert len(found.notes) == 2
    assert all("metadata area 1" in note and "checksum" in note for note in found.notes)


async def test_damaged_text_everywhere_is_no_group_and_no_error() -> None:
    text = group(BOTH)
    content = bytearray(member(1, text))
    content[4096 + 600] ^= 1
    assert not await groups_of(Lvm2, [bytes(content)])


async def test_two_groups_of_one_name_are_told_apart() -> None:
    one = group({"a": linear("pv0", 0, 1)}, 1, number=1000, first=1)
    two = group({"a": linear("pv0", 3, 1)}, 1, number=2000, first=2)
    groups = await groups_of(Lvm2, [member(2, two), member(1, one)])
    assert [(g.name, g.uuid) for g in groups] == [("vg", uuid(1000)), ("vg", uuid(2000))]
    await read(groups[0], "vg-a", [(1, 0)])
    await read(groups[1], "vg-a", [(2, 3)])


async def test_a_missing_member_is_named_where_it_is_needed() -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(1, text)])
    assert found.wanted - found.present == {uuid(2)}
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
    with pytest.raises(StorageError) as caught:
        await read(found, "vg-b", [])
    for word in (uuid(2), "/dev/sd1", "volume group vg"):
        assert word in str(caught.value)


async def test_a_member_marked_as_missing_is_out_of_date_when_it_is_back() -> None:
    text = group(BOTH, member_status={1: '"MISSING"'})
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, group(BOTH, seqno=0))])
    with pytest.raises(StorageError, match="out of date"):
        await read(found, "vg-b", [])
    assert any("out of date" in note for note in found.notes)


async def test_a_member_that_is_there_twice_is_not_used() -> None:
    text = group(BOTH)
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text), member(2, text)])
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])
    with pytest.raises(DamagedError, match="2 devices"):
        await read(found, "vg-b", [])


async def test_a_device_that_is_too_short_is_read_up_to_its_end() -> None:
    text = group({"a": linear("pv0", 0, 4)}, 1)
    (found,) = await groups_of(Lvm2, [member(1, text)[: (1 << 20) + 2 * EXTENT + 1000]])
    (volume,) = found.volumes
    assert volume.device is not None
    assert await volume.device.read(0, 2 * EXTENT) == extent(1, 0) + extent(1, 1)
    with pytest.raises(DamagedError, match="only"):
        await volume.device.read(2 * EXTENT, 2000)


@pytest.mark.parametrize("flag", ["EXPORTED", "CLUSTERED", "PARTIAL"])
async def test_a_flag_of_a_group_is_noted_and_the_group_is_read(flag: str) -> None:
    text = group(BOTH, status=f'"READ", "{flag}"')
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text)])
    assert len(found.notes) == 1
    await read(found, "vg-a", [(1, 0), (1, 1), (1, 2)])


async def test_segments_of_different_kinds_and_lengths_follow_each_other() -> None:
    stripes = 'stripe_count = 2 stripe_size = 128 stripes = [ "pv0", 4, "pv1", 1 ]'
    volumes = {
        "a": linear("pv1", 8, 2)
        + segment(2, 2, 6, "striped", stripes)
        + linear("pv0", 0, 1, number=3, start=8)
    }
    text = group(volumes)
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text)])
    places = [(2, 8), (2, 9), (1, 4), (2, 1), (1, 5), (2, 2), (1, 6), (2, 3), (1, 0)]
    await read(found, "vg-a", places)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "a b", "", "-x", "x" * 200, "ä"])
async def test_a_name_that_no_folder_may_have_is_left_out_with_a_note(name: str) -> None:
    text = group({f'"{name}"': linear("pv0", 0, 3), "b": linear("pv1", 2, 5)})
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text)])
    assert [volume.name for volume in found.volumes] == [b"vg-b"]
    (note,) = found.notes
    assert "name" in note


async def test_dashes_in_names_are_doubled() -> None:
    text = group({"a-b": linear("pv0", 0, 3)}, name="my-vg")
    (found,) = await groups_of(Lvm2, [member(1, text), member(2, text)])
    assert [volume.name for volume in found.volumes] == [b"my--vg-a--b"]


RAID = 'device_count = 2 stripe_size = 128 region_size = 128 raids = [ "m", "x", "n", "y" ]'
HOSTILE = {
    "itself": linear("bad", 0, 3),
    "nobody": linear("pv7", 0, 3),
    "outside": linear("pv0", 15, 3),
    "far outside": linear("pv0", 1 << 60, 3),
    "far too long": linear("pv0", 0, 1 << 60),
    "nothing": linear("pv0", 0, 0),
    "no segments": "",
    "a gap": linear("pv0", 0, 1) + linear("pv0", 1, 1, 2, 2),
    "an overlap": linear("pv0", 0, 2) + linear("pv0", 2, 2, 2, 1),
    "not from the start": linear("pv0", 0, 1, 1, 5),
    "stripes of nothing": segment(1, 0, 2, "striped", "stripe_count = 0 stripes = []"),
    "more stripes": segment(1, 0, 2, "striped", 'stripe_count = 9 stripes = ["pv0", 1]'),
    "uneven": segment(
        1, 0, 3, "striped", 'stripe_count = 2 stripe_size = 8 stripes = ["pv0", 1, "pv1", 1]'
    ),
    "no chunks": segment(
        1, 0, 2, "striped", 'stripe_count = 2 stripe_size = 0 stripes = ["pv0", 1, "pv1", 1]'
    ),
    "pairs": segment(1, 0, 2, "striped", 'stripe_count = 1 stripes = ["pv0"]'),
    "legs of nothing": segment(1, 0, 2, "raid1", "device_count = 0 raids = []"),
    "legs of nobody": segment(1, 0, 2, "raid5", RAID),
    "a leg twice": segment(1, 0, 2, "raid1", RAID.replace('"y"', '"x"')),
    "copies of itself": segment(
        1, 0, 2, "mirror", 'mirror_count = 2 region_size = 8 mirrors = ["bad", 0, "bad", 0]'
    ),
    "a pool of itself": segment(
        1, 0, 2, "thin", 'thin_pool = "bad" device_id = 1 transaction_id = 1'
    ),
    "a word for a number": segment(1, 0, 2, "striped", 'stripe_count = "1" stripes = ["pv0", 1]'),
    "extents of another": linear("pv0", 7, 3) + linear("pv1", 6, 1, 2, 3),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_volume_that_cannot_be_is_damaged_and_hides_no_other(case: str) -> None:
    volumes = {"bad": HOSTILE[case], "good": linear("pv1", 10, 3)}
    if case == "extents of another":
        volumes["other"] = linear("pv0", 9, 2)
    errors = await errors_of(volumes)
    assert isinstance(errors.pop("bad"), DamagedError)
    assert errors.pop("good") is None
    assert all(isinstance(error, DamagedError) for error in errors.values())


@pytest.mark.parametrize(
    "kind",
    ["cache", "cache-pool", "writecache", "vdo", "vdo-pool", "integrity", "era", "raid1+NEW_FLAG"],
)
async def test_a_type_that_is_not_read_is_named_and_hides_no_other(kind: str) -> None:
    errors = await errors_of({"bad": segment(1, 0, 2, kind), "good": linear("pv1", 10, 3)})
    assert isinstance(errors["bad"], UnsupportedError)
    assert kind in str(errors["bad"])
    assert errors["good"] is None


@pytest.mark.parametrize(
    ("store", "origin"), [("cow", "nobody"), ("nobody", "good"), ("cow", "cow"), ("cow", "pv0")]
)
async def test_a_snapshot_of_nothing_or_on_nothing_hides_no_other(store: str, origin: str) -> None:
    keys = f'chunk_size = 8 origin = "{origin}" cow_store = "{store}"'
    volumes = {
        "cow": linear("pv0", 0, 2),
        "snapshot0": segment(1, 0, 2, "snapshot", keys),
        "good": linear("pv1", 10, 3),
    }
    errors = await errors_of(volumes)
    assert errors["good"] is None
    assert "snapshot0" not in errors
    if store == "cow":
        assert isinstance(errors["cow"], DamagedError)


async def test_volumes_on_one_another_in_a_circle_are_damaged() -> None:
    volumes = {"a": linear("b", 0, 2), "b": linear("c", 0, 2), "c": linear("a", 0, 2)}
    errors = await errors_of(volumes)
    assert all(isinstance(error, DamagedError) for error in errors.values())


async def test_a_long_chain_of_volumes_is_damaged_soon() -> None:
    volumes = {f"v{n}": linear(f"v{n + 1}", 0, 2) for n in range(3000)}
    volumes["v3000"] = linear("pv0", 0, 2)
    with bounded_processor_time(20):
        errors = await errors_of(volumes)
    assert isinstance(errors["v0"], DamagedError)
    assert errors["v3000"] is None


async def test_mirrors_of_mirrors_that_share_their_copies_are_damaged() -> None:
    """A read of the first would otherwise ask the last one 2**10 times."""
    volumes = {}
    for n in range(10):
        areas = f'["v{n + 1}", 0, "v{n + 1}", 0]'
        volumes[f"v{n}"] = segment(
            1, 0, 2, "mirror", f"mirror_count = 2 region_size = 8 mirrors = {areas}"
        )
    volumes["v10"] = linear("pv0", 0, 2)
    errors = await errors_of(volumes, members=1)
    assert errors.pop("v10") is None
    assert all(isinstance(error, DamagedError) for error in errors.values())


async def test_as_many_volumes_as_the_text_has_room_for() -> None:
    volumes = {f"v{n}": linear("pv0", n % 16, 1) for n in range(1500)}
    with bounded_processor_time(20):
        errors = await errors_of(volumes)
    assert len(errors) == 1500
    assert all(isinstance(error, DamagedError) for error in errors.values()), "they share extents"
