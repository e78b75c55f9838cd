"""Reparse points, extended attributes and what WSL says, by MS-FSCC and WSL's documentation."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restorefs.errors import DamagedError
from restorefs.guestfs.ntfs.reparse import (
    MOUNT_POINT,
    SYMLINK,
    WSL_SYMLINK,
    decode_eas,
    decode_link,
    decode_reparse,
    decode_wsl,
    decode_wsl_link,
    stub_name,
)


def point(tag: int, data: bytes) -> bytes:
    return struct.pack("<IHH", tag, len(data), 0) + data


def link(tag: int, substitute: str, shown: str, flags: int = 0) -> bytes:
    one, other = substitute.encode("utf-16-le"), shown.encode("utf-16-le")
    names = struct.pack("<HHHH", len(other), len(one), 0, len(other))
    return point(tag, names + (struct.pack("<I", flags) if tag == SYMLINK else b"") + other + one)


def test_links() -> None:
    found = decode_link(decode_reparse(link(SYMLINK, r"..\a", "x", 1)))
    assert found == (r"..\a".encode("utf-16-le"), "x".encode("utf-16-le"), True)
    found = decode_link(decode_reparse(link(MOUNT_POINT, r"\??\C:\a", r"C:\a")))
    assert found == (r"\??\C:\a".encode("utf-16-le"), r"C:\a".encode("utf-16-le"), False)


def test_the_owners_guid_is_not_data() -> None:
    raw = struct.pack("<IHH", 0x99, 3, 0) + bytes(range(16)) + b"abc"
    assert decode_reparse(raw)[:2] == (0x99, b"abc")


@given(st.binary(max_size=60))
def test_any_reparse_point_is_decoded_or_damaged(data: bytes) -> None:
    for tag in (SYMLINK, MOUNT_POINT, WSL_SYMLINK):
        for raw in (data, point(tag, data)):
            try:
                found = decode_reparse(raw)
                (decode_wsl_link if tag == WSL_SYMLINK else decode_link)(found)
            except DamagedError:
                continue


def test_wsl_links() -> None:
    assert decode_wsl_link(decode_reparse(point(WSL_SYMLINK, b"\2\0\0\0/etc"))) == b"/etc"
    for data in (b"\1\0\0\0/etc", b"\2\0\0\0", b"\2\0\0\0a\0", b""):
        with pytest.raises(DamagedError):
            decode_wsl_link(decode_reparse(point(WSL_SYMLINK, data)))


def eas(**values: bytes) -> bytes:
    found = b""
    names = list(values)
    for name in names:
        key = b"$" + name.encode()
        entry = struct.pack("<BBH", 0, len(key), len(values[name])) + key + b"\0" + values[name]
        step = 4 + len(entry) + 3 & ~3
        found += struct.pack("<I", step if name != names[-1] else 0) + entry.ljust(step - 4, b"\0")
    return found


def test_what_wsl_says() -> None:
    raw = eas(
        LXUID=b"\xe8\3\0\0",
        LXGID=b"\0\0\0\0",
        LXMOD=b"\xed\x81\0\0",
        LXDEV=struct.pack("<II", 8, 1),
    )
    assert decode_wsl(decode_eas(raw)) == (0o100755, 1000, 0, os.makedev(8, 1))
    assert decode_wsl(decode_eas(eas(LXDEV=b"\xff" * 8, LXUID=b"\1"))) == (None, None, None, None)


@given(st.binary(max_size=100))
def test_any_eas_end(data: bytes) -> None:
    assert len(decode_eas(data)) <= len(data)


def test_who_keeps_content_elsewhere() -> None:
    assert {stub_name(0x9000001A | n << 12) for n in range(16)} == {"cloud file"}
    assert stub_name(0xC0000004)
    assert not stub_name(0x8000001B)
