"""Many records at once: the same as one by one, compiled or not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.fuse import packer
from restorefs.fuse.protocol import dirent_only, direntplus
from restorefs.guestfs.base import Attributes
from restorefs.tree.nodeid import NodeId
from restorefs.tree.tree import Entry, Listed
from tests.compiled import uncompiled

WAYS = pytest.mark.parametrize(
    "way", [packer, uncompiled(packer)], ids=["as installed", "uncompiled"]
)

words = st.integers(0, 2**64 - 1) | st.integers(0, 5000)
halves = st.integers(0, 2**32 - 1) | st.just(2**32) | st.just(-1)
times = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**90), 2**63, 2**70, -1, 0])
attributes = st.builds(
    Attributes,
    inode=words,
    mode=st.sampled_from([0o100644, 0o040755, 0o120777, 0o060600, 2**32]),
    nlink=halves,
    uid=halves,
    gid=halves,
    rdev=halves,
    size=words | st.just(2**64),
    blocks=words | st.just(-1),
    atime_ns=times,
    mtime_ns=times,
    ctime_ns=times,
    created_ns=st.none(),
)
items = st.builds(
    Listed,
    st.binary(max_size=300),
    st.builds(
        Entry,
        words.map(NodeId),
        st.none() | attributes,
        st.integers(0, 86_400),
        generation=st.integers(0, 2**31 - 1),
    ),
    st.integers(0, 2**62),
)


@WAYS
@given(listed=st.lists(items, max_size=6), first=st.integers(0, 6), size=st.integers(0, 3000))
def test_records_are_those_packed_one_by_one(
    way: Any, listed: list[Listed], first: int, size: int
) -> None:
    expected, folders, behind = b"", [], first
    for name, (node, shown, ttl, kind, generation), cookie in listed[first:]:
        if shown is None:
            record = dirent_only(name, node, kind, cookie + 2)
        else:
            record = direntplus(name, node, generation, shown, ttl, cookie + 2)
        if len(expected) + len(record) > size & ~7:
            break
        expected += record
        behind += 1
        if shown is not None and shown.mode & 0o170000 == 0o040000:
            folders.append(node)
    found: list[NodeId] = []
    way._BUFFER[:4096] = b"\xff" * 4096  # of replies before this one
    assert way.pack(listed, first, size, 2, found) == (expected, behind)
    assert found == folders


@WAYS
def test_no_reply_is_larger_than_the_kernel_takes(way: Any) -> None:
    attributes = Attributes(1, 0o100644, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    listed = [
        Listed(b"%05d" % number, Entry(NodeId(5), attributes, 1), number) for number in range(7000)
    ]
    data, behind = way.pack(listed, 0, 4 << 20, 2, [])
    assert len(data) == behind * 160 == (1 << 20) // 160 * 160
    rest, end = way.pack(listed, behind, 4 << 20, 2, [])
    assert end == 7000
    assert data + rest == b"".join(
        direntplus(name, NodeId(5), 0, attributes, 1, cookie + 2) for name, _, cookie in listed
    )


def test_the_longest_name_has_room() -> None:
    name = "\u20ac".encode() * 255  # of NTFS: 255 units of UTF-16
    attributes = Attributes(1, 0o100644, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert len(direntplus(name, NodeId(5), 0, attributes, 1, 1)) <= packer.LARGEST
