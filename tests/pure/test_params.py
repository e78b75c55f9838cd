"""Parameter types."""

import click
import pytest

from restorefs.cli.params import Codepage


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cp437", "cp437"),
        ("IBM850", "cp850"),
        ("866", "cp866"),
        ("cp932", "cp932"),
        ("latin-1", "iso8859-1"),
    ],
)
def test_character_sets(name: str, known: str) -> None:
    assert Codepage().convert(name, None, None) == known


@pytest.mark.parametrize(
    "name",
    [
        *("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"),
        *("utf-8", "utf-7", "utf-16", "ascii", "hz", "iso2022_jp"),
        *("rot13", "hex", "zlib"),
        *("cp037", "cp500", "none such", "", "\udcff"),
    ],
)
def test_what_is_no_character_set(name: str) -> None:
    with pytest.raises(click.BadParameter, match="cp437, cp850, cp866"):
        Codepage().convert(name, None, None)
