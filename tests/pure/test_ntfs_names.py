"""Names between UTF-16 and bytes, and without regard to case."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.ntfs.names import Upcase, shown, shown_or_repaired, stored

UNITS = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=255)


def utf16(*units: int) -> bytes:
    return b"".join(unit.to_bytes(2, "little") for unit in units)


@given(UNITS)
def test_every_name_is_shown_and_found_again(units: list[int]) -> None:
    name = utf16(*units)
    assert stored(shown(name)) == name


@given(UNITS, UNITS)
def test_two_names_are_shown_as_two(one: list[int], other: list[int]) -> None:
    assert (shown(utf16(*one)) == shown(utf16(*other))) == (one == other)


def test_lone_surrogates() -> None:
    assert shown(utf16(0xD83D, 0xDE42)) == "🙂".encode()
    assert shown(utf16(0xD83D)) == b"\xed\xa0\xbd"
    assert shown(utf16(0xDE42, 0xD83D)) == b"\xed\xb9\x82\xed\xa0\xbd"


@pytest.mark.parametrize("name", [b"a", b"abc", b"\x3d\xd8\x42"])
def test_half_a_code_unit(name: bytes) -> None:
    for show in (shown, shown_or_repaired):
        with pytest.raises(DamagedError):
            show(name)


@pytest.mark.parametrize("name", [b"", b"\xff", b"a\xc3", b"\xed\xa0\xbd\xed\xb9\x82", b"\xc0\x80"])
def test_bytes_that_no_name_is_shown_as(name: bytes) -> None:
    with pytest.raises(NotFoundError):
        stored(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a/b", "a\ufffdb"),
        ("a\0", "a\ufffd"),
        (".", "\ufffd"),
        ("..", "\ufffd\ufffd"),
        ("", "\ufffd"),
    ],
)
def test_names_that_cannot_be(name: str, text: str) -> None:
    assert shown_or_repaired(name.encode("utf-16-le")) == (text.encode(), True)
    assert shown_or_repaired("...".encode("utf-16-le")) == (b"...", False)


def upcase(**changes: int) -> Upcase:
    table = array("H", range(1 << 16))
    for lower in "abcdefghijklmnopqrstuvwxyzäöüж":
        table[ord(lower)] = ord(lower.upper())
    for lower, upper in changes.items():
        table[ord(lower)] = upper
    return Upcase(b"".join(unit.to_bytes(2, "little") for unit in table))


def test_case_is_the_volumes_own() -> None:
    table = upcase()
    assert table.key("größe.Ж".encode("utf-16-le")) == "GRÖßE.Ж".encode("utf-16-be")
    assert table.key("ж".encode("utf-16-le")) == "Ж".encode("utf-16-be")
    other = upcase(q=0x4E2D)
    assert other.key("aq".encode("utf-16-le")) == "A\u4e2d".encode("utf-16-be")


@given(UNITS, UNITS)
def test_keys_are_ordered_unit_by_unit(one: list[int], other: list[int]) -> None:
    table = upcase()
    folded = [
        [ord(chr(u).upper()) if 97 <= u <= 122 else u for u in units] for units in (one, other)
    ]
    if any(u in map(ord, "äöüж") for units in folded for u in units):
        return
    first, second = table.key(utf16(*one)), table.key(utf16(*other))
    assert (first < second) == (folded[0] < folded[1])
    assert (first == second) == (folded[0] == folded[1])


@pytest.mark.parametrize("size", [0, 2, 131_070, 131_074])
def test_a_table_of_another_size(size: int) -> None:
    with pytest.raises(DamagedError):
        Upcase(bytes(size))
