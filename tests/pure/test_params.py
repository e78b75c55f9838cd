"""Parameter types."""

import click
import pytest

from restorefs.cli.params import Codepage, Duration


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1.5m", 90), ("2d", 172_800), ("3650d", 315_360_000)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["3651d", "99999999999d", "315360001", "9" * 400])
def test_a_duration_that_leads_to_no_date_any_more(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is too long: at most 3650d"):
        Duration().convert(text, None, None)
