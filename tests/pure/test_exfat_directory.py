import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs.exfat import directory
from restorefs.guestfs.exfat.directory import decode_sets, set_checksum, utf16_of
from tests.images.exfat import checksum16
from tests.pure.exfat_bytes import file_set, sealed

DELETED = bytes((0x05,)) + bytes(31)


def names(region: bytes, *, whole: bool = True) -> tuple[list[bytes], bool]:
    """Return the names in a region, and whether all of it could be decoded."""
    found = decode_sets(region, 0, whole=whole, is_root=False)
    return [each.name for each in found.sets], found.error is None


@pytest.mark.parametrize("length", [1, 14, 15, 16, 29, 30, 31, 45, 240, 254, 255])
def test_names_of_every_length(length: int) -> None:
    for name in ("x" * length, "語" * length):
        assert names(file_set(name)) == ([name.encode()], True)


def test_fields() -> None:
    (found,) = decode_sets(
        file_set("name", attributes=0x31, first=77, length=1 << 40, valid=12, flags=3),
        0,
        whole=True,
        is_root=False,
    ).sets
    assert (found.attributes, found.first_cluster, found.length) == (0x31, 77, 1 << 40)
    assert (found.valid_length, found.is_contiguous, found.is_folder) == (12, True, True)
    assert (found.offset, found.end, found.unknown) == (0, 96, 0)


def test_deleted_entries_are_nothing() -> None:
    region = DELETED * 3 + file_set("a") + DELETED + b"\x40" + bytes(31) + file_set("b")
    assert names(region) == ([b"a", b"b"], True)


def test_nothing_comes_behind_the_end() -> None:
    assert names(file_set("a") + bytes(32) + b"\x05" * 64) == ([b"a"], True)
    assert names(file_set("a") + bytes(32) + file_set("b")) == ([b"a"], False)


def test_a_set_that_goes_on_behind_the_region() -> None:
    region = file_set("a") + file_set("b" * 20)
    for cut in range(96, len(region), 32):
        found = decode_sets(region[:cut], 0, whole=False, is_root=False)
        assert ([each.name for each in found.sets], found.next, found.error) == ([b"a"], 96, None)
        found = decode_sets(region[:cut], 0, whole=True, is_root=False)
        assert bool(found.error) == (cut > 96)


@pytest.mark.parametrize("count", [0, 1, 3, 200, 255])
def test_a_wrong_count_of_entries_costs_one_name(count: int) -> None:
    sets = [file_set(f"{number}") for number in range(20)]
    region = bytearray(b"".join(sets))
    region[5 * 96 + 1] = count
    expected = [b"%d" % number for number in range(20) if number != 5]
    assert names(bytes(region)) == (expected, False)


@pytest.mark.parametrize("kind", [0xC0, 0xC1, 0x80, 0x81, 0x86, 0x9F])
def test_what_cannot_be_in_a_folder(kind: int) -> None:
    region = file_set("a") + bytes((kind,)) + bytes(31) + file_set("b")
    assert names(region) == ([b"a", b"b"], False)


def test_a_file_that_looks_like_something_benign() -> None:
    region = bytearray(b"".join(map(file_set, "abc")))
    region[96] = 0xA5
    assert names(bytes(region)) == ([b"a", b"c"], False)
    region[96:192] = sealed(bytes(region[96:192]))
    assert names(bytes(region)) == ([b"a", b"c"], True), "it really is something benign"


@pytest.mark.parametrize("kind", [0xA0, 0xA1, 0xBF, 0xE0, 0xFF])
def test_benign_entries_are_nothing(kind: int) -> None:
    region = file_set("a") + bytes((kind,)) + bytes(31) + file_set("b")
    assert names(region) == ([b"a", b"b"], True)


def test_that_something_is_not_supported_is_said_before_damage() -> None:
    region = b"\xc1" + bytes(31) + b"\x86" + bytes(31) + b"\xc0" + bytes(31)
    found = decode_sets(region, 0, whole=True, is_root=True)
    assert isinstance(found.error, DamagedError)
    found = decode_sets(region[:64] + file_set("a"), 0, whole=True, is_root=True)
    assert isinstance(found.error, UnsupportedError)
    assert "0x86" in str(found.error)


def test_entries_behind_the_name() -> None:
    vendor = b"\xe0" + bytes(31)
    found = decode_sets(file_set("a", behind=vendor * 3), 0, whole=True, is_root=False)
    assert ([each.unknown for each in found.sets], found.error) == ([0], None)
    found = decode_sets(
        file_set("a", behind=vendor + b"\xc5" + bytes(31)), 0, whole=True, is_root=False
    )
    assert ([each.unknown for each in found.sets], found.error) == ([0xC5], None)
    assert names(file_set("a", behind=b"\x85" + bytes(31))) == ([], False)


@pytest.mark.parametrize("length", [0, 16])
def test_a_length_that_does_not_fit_the_name(length: int) -> None:
    region = bytearray(file_set("name"))
    region[35] = length
    assert names(sealed(bytes(region))) == ([], False)


@given(data=st.binary(min_size=96, max_size=1024))
def test_the_checksum_is_the_one_of_the_specification(data: bytes) -> None:
    assert set_checksum(data) == checksum16(data)


def test_checksums_of_many_sets_at_once() -> None:
    """Also with sums that overflow 16 bits."""
    chance = random.Random(3)
    sets = []
    for _ in range(3000):
        name = "".join(
            chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(chance.randrange(1, 40))
        )
        sets.append(file_set(name, length=chance.getrandbits(63), first=chance.getrandbits(32)))
        assert set_checksum(sets[-1]) == checksum16(sets[-1])
    region = b"".join(sets)
    found = decode_sets(region, 0, whole=True, is_root=False)
    assert (len(found.sets), found.error) == (3000, None)
    for _ in range(300):
        damaged = bytearray(region)
        at = chance.randrange(len(region))
        damaged[at] ^= 1 << chance.randrange(8)
        found = decode_sets(bytes(damaged), 0, whole=True, is_root=False)
        assert len(found.sets) == 2999
        assert found.error is not None


UNSOUND = {
    "no name": (b"\x85\xff", b"\xc0\0\0\x0f"),
    "files in it": (b"\x85\xff", b"\xc0\0\0\x0f", b"\xc1\0name"),
    "benign": (b"\xa5\xff", b"\xc0"),
}
"""Each begins as a set of 256 entries."""


@pytest.mark.parametrize("what", UNSOUND)
@pytest.mark.parametrize("behind_the_end", [False, True])
def test_no_byte_is_summed_up_twice(
    what: str, behind_the_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = b"".join(each.ljust(32, b"\0") for each in UNSOUND[what])
    region = bytes(32 * behind_the_end) + pattern * (0x10000 // len(pattern))
    summed = 0

    def checksum(data: bytes) -> int:
        nonlocal summed
        summed += len(data)
        return set_checksum(data)

    monkeypatch.setattr(directory, "set_checksum", checksum)
    assert not names(region)[0]
    assert summed <= len(region)


@given(data=st.data())
@settings(max_examples=200)
def test_whatever_the_bytes_say(data: st.DataObject) -> None:
    region = bytearray(b"".join(file_set(f"file {number}" * 3) for number in range(12)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(region) - 1))
        region[at] = data.draw(st.sampled_from((0, 0x05, 0x81, 0x85, 0xA0, 0xC0, 0xC1, 0xFF)))
    for start in range(0, len(region), 32):
        for whole in (True, False):
            found = decode_sets(bytes(region), start, whole=whole, is_root=True)
            assert start <= found.next <= len(region)


@given(st.text(st.characters(min_codepoint=1), min_size=1, max_size=40))
def test_names_come_back(name: str) -> None:
    raw = name.encode("utf-16-le", "surrogatepass")
    text = raw.decode("utf-16-le", "surrogatepass")
    shown = text.encode("utf-8", "surrogatepass")
    back = utf16_of(shown)
    assert back is not None
    assert back.encode("utf-16-le", "surrogatepass") == raw


@pytest.mark.parametrize(
    "name", [b"\xff", b"\xed\xa0\xbd\xed\xb9\x82", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
)
def test_what_is_no_name(name: bytes) -> None:
    assert utf16_of(name) is None
