"""The label, the metadata areas and the names of LVM2; one label is what pvcreate wrote."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, RestoreError
from restorefs.volumes.lvm2.layout import (
    Area,
    crc,
    decode_label,
    decode_metadata_header,
    uuid_text,
)
from restorefs.volumes.lvm2.names import mapper_name
from tests.images.lvm import handmade
from tests.images.lvm.stored import disks


def test_the_checksum_is_that_of_a_label_that_pvcreate_wrote() -> None:
    sector = disks("raid")[0][512:1024]
    assert sector[:8] == b"LABELONE"
    assert crc(sector[20:]) == int.from_bytes(sector[16:20], "little")


@pytest.mark.parametrize("sector", range(4))
def test_a_label_may_be_in_any_of_four_sectors(sector: int) -> None:
    head = handmade.label(handmade.uuid(5), 1 << 30, [(4096, 8192), (1 << 20, 4096)], sector)
    label = decode_label(head)
    assert label.uuid == handmade.uuid(5)
    assert label.size == 1 << 30
    assert label.data == [Area(handmade.DATA, 0)]
    assert label.metadata == [Area(4096, 8192), Area(1 << 20, 4096)]


def test_a_damaged_label_gives_way_to_a_good_one_behind_it() -> None:
    bad = bytearray(handmade.label(handmade.uuid(5), 1 << 30, [], 0))
    bad[40] ^= 1
    good = handmade.label(handmade.uuid(6), 1 << 30, [], 2)[1024:]
    assert decode_label(bytes(bad) + bytes(512) + good).uuid == handmade.uuid(6)


@pytest.mark.parametrize("at", [0, 8, 16, 20, 24, 33, 100])
def test_a_damaged_label_is_damage(at: int) -> None:
    head = bytearray(handmade.label(handmade.uuid(5), 1 << 30, []))
    head[512 + at] ^= 1
    with pytest.raises(DamagedError):
        decode_label(bytes(head))


@given(st.binary(max_size=480), st.integers(0, 600))
def test_any_label_is_an_answer_or_damage(body: bytes, offset: int) -> None:
    raw = offset.to_bytes(4, "little") + b"LVM2 001" + body.ljust(480, b"\x01")
    head = b"LABELONE" + bytes(8) + crc(raw).to_bytes(4, "little") + raw
    with contextlib.suppress(RestoreError):
        decode_label(head)


def test_text_that_wraps_is_in_two_ranges() -> None:
    raw = handmade.area(b"x" * 1000, size=4096, at=4000)
    location = decode_metadata_header(raw[:512], Area(handmade.AREA_AT, 4096))
    assert location is not None
    assert location.ranges == [Area(4096 + 4000, 96), Area(4096 + 512, 904)]
    text = b"".join(raw[r.offset - 4096 : r.offset - 4096 + r.size] for r in location.ranges)
    assert text == b"x" * 1000


def test_an_ignored_area_and_an_empty_one_have_no_text() -> None:
    area = Area(handmade.AREA_AT, 4096)
    assert decode_metadata_header(handmade.area(b"x", size=4096, flags=1)[:512], area) is None
    assert decode_metadata_header(handmade.area(b"", size=4096)[:512], area) is None


@pytest.mark.parametrize("at", [0, 5, 20, 24, 32, 48, 200])
def test_a_damaged_header_of_an_area_is_damage(at: int) -> None:
    raw = bytearray(handmade.area(b"x", size=4096))
    raw[at] ^= 1
    with pytest.raises(DamagedError):
        decode_metadata_header(bytes(raw[:512]), Area(handmade.AREA_AT, 4096))


@given(st.binary(min_size=40, max_size=40))
def test_any_header_of_an_area_is_an_answer_or_damage(numbers: bytes) -> None:
    body = (b" LVM2 x[5A%r0N*>" + b"\x01\0\0\0" + numbers).ljust(508, b"\0")
    raw = crc(body).to_bytes(4, "little") + body
    start, size = (int.from_bytes(numbers[at : at + 8], "little") for at in (0, 8))
    with contextlib.suppress(RestoreError):
        decode_metadata_header(raw, Area(start, size))


@pytest.mark.parametrize(
    ("group", "volume", "name"),
    [
        ("vg0", "root", b"vg0-root"),
        ("my-vg", "a--b", b"my--vg-a----b"),
        ("a", "-b".removeprefix("-"), b"a-b"),
        ("vg-", "x", b"vg---x"),
    ],
)
def test_dashes_are_doubled(group: str, volume: str, name: bytes) -> None:
    assert mapper_name(group, volume) == name


NAMES = st.from_regex(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,12}", fullmatch=True)


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_two_volumes_have_one_name(a: str, b: str, c: str, d: str) -> None:
    if not a.endswith("-") and not c.endswith("-"):
        assert (mapper_name(a, b) == mapper_name(c, d)) == ((a, b) == (c, d))


@pytest.mark.parametrize("raw", [b"", b"a" * 31, b"/" * 32, b"\xff" * 32, b" " * 32, b"a" * 33])
def test_what_is_no_uuid_is_damage(raw: bytes) -> None:
    with pytest.raises(DamagedError):
        uuid_text(raw)
