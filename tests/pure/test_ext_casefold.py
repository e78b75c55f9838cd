"""Which names are the same in a folder that ignores case.

The expected forms were compared with debugfs: `dx_hash -c -e utf8 A` equals `dx_hash B` where B
is the folded form of A.
"""

import pytest

from restorefs.guestfs.ext.casefold import fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Makefile", "MAKEFILE"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00c4pfel", "a\u0308pfel"),
        ("\u212b", "\u00e5"),  # the unit and the letter
        ("\u0130", "i\u0307"),
        ("\ufb03", "FFI"),
        ("\u03a3\u03c2", "\u03c3\u03c3"),
        ("\u1fb3", "\u0391\u0399"),
        ("\u0391\u0345\u0301", "\u03b1\u03b9\u0301"),  # marks are ordered after they are folded
        ("\uac00", "\u1100\u1161"),
        ("soft\u00adhyphen", "softhyphen"),
        ("zero\u200dwidth", "zerowidth"),
        ("a\u0323\u0302", "a\u0302\u0323"),
    ],
)
def test_names_that_are_the_same(one: str, other: str) -> None:
    assert fold(one.encode()) == fold(other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        ("\u0131", "i"),  # dotless
        ("o", "\u00f8"),
        ("\uff21", "a"),  # compatibility forms are other characters
        ("a\u0302\u200d\u0323", "a\u0323\u200d\u0302"),  # marks do not pass what is ignored
    ],
)
def test_names_that_are_not(one: str, other: str) -> None:
    assert fold(one.encode()) != fold(other.encode())


@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_what_is_not_utf8_is_not_folded(name: bytes) -> None:
    assert fold(name) is None
