"""The names in a node of a folder: the short way leads to what the long one does."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from restorefs.guestfs.ntfs.index import Node
from tests.ntfs_ways import long_names, short_names

ENTRY = struct.Struct("<QHHHH")  # reference, length, of the key, flags
LAST = 2
characters = st.sampled_from("aZ0.~ $_") | st.characters(codec="utf-16", categories=("L", "P", "C"))
texts = st.text(characters, max_size=12) | st.sampled_from([".", "..", "...", "a/b", "\0", "\x7f"])
entries = st.tuples(texts, st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2, 3]))


def node_of(names: list[tuple[str, int, int]], before: int = 0, gap: int = 0) -> Node:
    """A leaf with such names, references and namespaces, `before` bytes into its data."""
    data = bytearray(before)
    for text, reference, namespace in names:
        name = text.encode("utf-16-le", "surrogatepass")
        key = bytes(64) + bytes((len(name) // 2, namespace)) + name
        length = 16 + (len(key) + 7 & ~7) + gap
        data += (ENTRY.pack(reference, length, len(key), 0, 0) + key).ljust(length, b"\0")
    data += ENTRY.pack(0, 16, 0, LAST, 0)
    return Node(bytes(data), before, len(data))


def test_ascii_names_go_the_short_way() -> None:
    names = [("Program Files", 5 << 48 | 77, 1), ("PROGRA~1", 5 << 48 | 77, 2), ("..a", 1, 3)]
    node = node_of([*names, ("x" * 255, 2**64 - 1, 0)], before=64, gap=8)
    found = short_names(node)
    assert found == long_names(node)
    assert found is not None
    shown = [name for name, *_ in found]
    assert shown == [b"Program Files", b"..a", b"x" * 255], "the DOS name is not listed"
    assert short_names(node_of([])) == []


def test_what_is_not_plain_takes_the_long_way() -> None:
    for text in ("", ".", "..", "a/b", "a\0b", "\x7f", "\x1f", "e\u0301", "\ud800", "\U0001f600"):
        assert short_names(node_of([("plain", 1, 1), (text, 2, 1)])) is None, text


@given(st.lists(entries, max_size=8), st.sampled_from([0, 40]), st.sampled_from([0, 8]))
def test_both_ways_agree(names: list[tuple[str, int, int]], before: int, gap: int) -> None:
    node = node_of(names, before, gap)
    long = long_names(node)
    assert long is not None
    assert short_names(node) in (None, long)


@given(
    st.lists(entries, max_size=4),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(-16, 16),
)
def test_damaged_nodes_take_the_long_way(
    names: list[tuple[str, int, int]], changes: list[tuple[int, int]], cut: int
) -> None:
    data, start, end = node_of(names)
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    node = Node(bytes(damaged), start, min(max(end + cut, 0), len(data)))
    short = short_names(node)
    assert short is None or short == long_names(node)
