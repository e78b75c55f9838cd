"""The text of LVM2's metadata; expected values are written beside it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError, RestoreError
from restorefs.volumes.lvm2.metadata import decode_group
from restorefs.volumes.lvm2.text import parse
from tests.contracts.mutation import bounded_processor_time
from tests.images.lvm import handmade

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCALARS = st.integers(-(10**15), 10**15) | TEXTS
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=4),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def written(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(written(item) for item in value) + "]"
    return str(value)


def section(values: dict[str, object]) -> str:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f"{key} {{\n{section(value)}\n}}")
        else:
            lines.append(f"{key}={written(value)}\t# said {key}")
    return "\n".join(lines)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_written_is_read(values: dict[str, object]) -> None:
    assert parse(section(values).encode()) == values


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_damage(raw: bytes) -> None:
    with contextlib.suppress(RestoreError):
        parse(raw)


@given(
    st.lists(
        st.sampled_from(
            ["a", "b1", "1", "2.5", "{", "}", "[", "]", ",", "=", '"x"', '"', "#", "\n", " ", "\\"]
        ),
        max_size=40,
    ).map("".join)
)
def test_any_tokens_are_an_answer_or_damage(text: str) -> None:
    with contextlib.suppress(RestoreError):
        parse(text.encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 1", 1),
        ("a = -5", -5),
        ("a = 1.5", 1.5),
        ('a = "x\\"y\\\\z"', 'x"y\\z'),
        ("a = []", []),
        ('a = ["x", 1]', ["x", 1]),
        ('a = ["x", 1,]', ["x", 1]),
        ("a { }", {}),
        ("# first\n\n a = 1 # last", 1),
        ("a = 1\0", 1),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse(text.encode()) == {"a": value}


def test_a_volume_may_have_a_number_for_its_name() -> None:
    assert parse(b"2024 { a = 1 }\n2024-01 { a = 1 }\n-x { a = 1 }") == {
        "2024": {"a": 1},
        "2024-01": {"a": 1},
        "-x": {"a": 1},
    }


@pytest.mark.parametrize(
    "text",
    [
        "a", "a =", "a = b", "a {", "}", "a = [1", 'a = "x', "= 1", "a = 1 }", "a = [1 2]",
        "a = [[1]]", "a = 1 a = 2", "a = 123456789012345678901234567890", "a = { }", "a = [,]",
    ],
)  # fmt: skip
def test_what_is_no_metadata_is_damage(text: str) -> None:
    with pytest.raises(DamagedError):
        parse(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        b"a { " * 500_000,
        b" " * 4_000_000 + b"?",
        b"#" * 4_000_000 + b"\n?",
        b"# \n" * 1_000_000 + b"?",
        b'a = "' + b"\\x" * 1_000_000,
        b"a = [" * 1_000_000,
        b"1" * 4_000_000,
        b"a" * 4_000_000,
    ],
    ids=["nesting", "blanks", "comment", "comments", "escapes", "arrays", "digits", "name"],
)
def test_megabytes_of_nonsense_are_damage_soon(text: bytes) -> None:
    with bounded_processor_time(20), pytest.raises(DamagedError):
        parse(text)


def test_the_text_of_a_group_becomes_types() -> None:
    text = handmade.group(
        {"root": handmade.linear("pv0", 2, 3), "data": handmade.linear("pv1", 0, 4)}, seqno=7
    )
    group = decode_group(parse(text.encode()))
    assert (group.name, group.uuid, group.seqno) == ("vg", handmade.uuid(1000), 7)
    assert group.extent_size == handmade.EXTENT
    assert [member.uuid for member in group.members.values()] == [
        handmade.uuid(1),
        handmade.uuid(2),
    ]
    root = group.volumes["root"]
    assert (root.uuid, root.visible, root.extents) == (handmade.uuid(1001), True, 3)
    assert root.segments[0].areas("stripes") == [("pv0", 2)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ("Text Format Volume Group", "Text Format"),
        ("extent_size = 128", "extent_size = 0"),
        ("extent_size = 128", "extent_size = 99999999999999999999"),
        ("extent_size = 128", 'extent_size = "128"'),
        ('format = "lvm2"', 'format = "lvm1"'),
        ("seqno = 1", "seqno = -1"),
        ("pe_count = 16", "pe_count = 1152921504606846976"),
        ("pe_start", "pe_begin"),
        (handmade.uuid(2), handmade.uuid(1)),
        (handmade.uuid(2), "short"),
        ("vg {", "../vg {"),
        ("vg {", ". {"),
    ],
)
def test_a_group_that_cannot_be_is_damage(old: str, new: str) -> None:
    text = handmade.group({"root": handmade.linear("pv0", 2, 3)})
    assert old in text
    with pytest.raises(DamagedError):
        decode_group(parse(text.replace(old, new).encode()))
