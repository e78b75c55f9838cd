"""The manifest tool itself: that it sees each kind of difference, and reads a tree as it is."""

import errno
import hashlib
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from tests import manifest as tool
from tests.manifest import (
    PIECE,
    WHOLE_HASH_LIMIT,
    Digest,
    Entry,
    assert_same_tree,
    compare,
    manifest_of_path,
)


def entry() -> Entry:
    return Entry(
        mode=stat.S_IFREG | 0o644,
        uid=1,
        gid=2,
        size=3,
        blocks=8,
        rdev=0,
        nlink=1,
        mtime_ns=-1,
        atime_ns=5,
        ctime_ns=6,
        xattrs={b"user.a": b"1"},
        link_group=b"file",
        digest="aa",
        segments=((0, 3),),
    )


def test_equal_trees_have_no_differences() -> None:
    assert compare({b"file": entry()}, {b"file": entry()}) == []
    assert_same_tree({b"file": entry()}, {b"file": entry()})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", stat.S_IFREG | 0o640),
        ("mode", stat.S_IFLNK | 0o644),
        ("uid", 9),
        ("gid", 9),
        ("size", 9),
        ("blocks", 9),
        ("rdev", 9),
        ("nlink", 9),
        ("mtime_ns", 0),
        ("atime_ns", 0),
        ("ctime_ns", 0),
        ("target", b"x"),
        ("xattrs", {}),
        ("xattrs", {b"user.a": b"2"}),
        ("xattrs", {b"user.a": b"1", b"user.b": b""}),
        ("link_group", b"another"),
        ("digest", "bb"),
        ("segments", ()),
        ("segments", ((0, 1), (2, 3))),
        ("errors", {"content": "EIO"}),
    ],
)
def test_each_field_makes_one_difference(field: str, value: object) -> None:
    other = entry()
    setattr(other, field, value)
    (difference,) = compare({b"file": entry()}, {b"file": other})
    assert difference.startswith("'file': ")
    assert compare({b"file": entry()}, {b"file": other}, ignore=[field]) == []
    with pytest.raises(AssertionError, match="'file'"):
        assert_same_tree({b"file": entry()}, {b"file": other})


def test_paths_that_one_side_lacks_are_named() -> None:
    assert compare({b"\xff": entry()}, {}) == [r"'\xff': missing"]
    assert compare({}, {b"\xff": entry()}) == [r"'\xff': not expected"]


def test_a_source_without_a_hole_map_is_compared_in_the_rest() -> None:
    other = entry()
    other.segments = None
    assert compare({b"file": entry()}, {b"file": other}) == []


def test_the_errno_of_an_error_may_differ_but_not_what_it_concerns() -> None:
    one, other = entry(), entry()
    one.errors, other.errors = {"content": "ENOKEY"}, {"content": "EOPNOTSUPP"}
    assert compare({b"file": one}, {b"file": other}) == []
    other.errors = {"xattrs": "EOPNOTSUPP"}
    assert len(compare({b"file": one}, {b"file": other})) == 1


def test_a_field_that_does_not_exist_cannot_be_ignored() -> None:
    with pytest.raises(AssertionError):
        compare({}, {}, ignore=["atime"])


def test_the_digest_of_small_content_is_its_sha_256() -> None:
    content = os.urandom(3 * PIECE + 17)
    digest = Digest(len(content) + PIECE + 5)
    for start in range(0, len(content), 100_003):
        digest.data(content[start : start + 100_003])
    digest.hole(PIECE + 5)
    assert digest.finish() == hashlib.sha256(content + bytes(PIECE + 5)).hexdigest()


def digest_of(*pieces: bytes | int) -> str:
    """Return the digest of data and holes, given by their lengths."""
    digest = Digest(sum(each if isinstance(each, int) else len(each) for each in pieces))
    for each in pieces:
        if isinstance(each, int):
            digest.hole(each)
        else:
            digest.data(each)
    return digest.finish()


def test_the_digest_of_large_content_is_the_same_however_its_zeros_are_stored() -> None:
    rest = WHOLE_HASH_LIMIT + 3
    expected = digest_of(7, b"x", 5 * PIECE + rest)
    assert digest_of(bytes(7) + b"x" + bytes(3 * PIECE), PIECE, bytes(PIECE), rest) == expected
    assert digest_of(7, b"x", rest, bytes(5 * PIECE)) == expected
    assert digest_of(8, b"x", 5 * PIECE + rest - 1) != expected
    assert digest_of(PIECE + 7, b"x", 4 * PIECE + rest) != expected
    assert digest_of(7, b"x", 5 * PIECE + rest + 1) != expected


def test_the_digest_of_too_little_content_fails() -> None:
    digest = Digest(5)
    digest.data(b"1234")
    with pytest.raises(AssertionError):
        digest.finish()


def test_a_tree_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.write_bytes(b"content")
    file.chmod(0o640)
    os.utime(file, ns=(0, 1_234_567_890_123_456_789))
    (tmp_path / "a-link").hardlink_to(file)
    (tmp_path / "symlink").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    os.utime(tmp_path / "fifo", ns=(-1, 0))
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    found = manifest_of_path(tmp_path)
    assert found.keys() == {
        b".",
        b"folder",
        b"folder/file",
        b"a-link",
        b"symlink",
        b"fifo",
        b"\xff",
    }
    shown = found[b"folder/file"]
    assert shown.mode == stat.S_IFREG | 0o640
    assert (shown.size, shown.nlink, shown.uid) == (7, 2, os.getuid())
    assert shown.mtime_ns == 1_234_567_890_123_456_789
    assert found[b"fifo"].atime_ns == -1
    assert shown.digest == hashlib.sha256(b"content").hexdigest()
    assert shown.link_group == found[b"a-link"].link_group == b"a-link"
    assert found[b"symlink"].target == b"nowhere"
    assert stat.S_ISFIFO(found[b"fifo"].mode)
    assert manifest_of_path(tmp_path, b"folder").keys() == {b"folder", b"folder/file"}


def test_holes_are_told_from_data_and_read_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.seek(5 * PIECE)
        file.write(b"x" * 4096)
        file.truncate(9 * PIECE)
    shown = manifest_of_path(tmp_path)[b"file"]
    assert (
        shown.digest
        == hashlib.sha256(bytes(5 * PIECE) + b"x" * 4096 + bytes(4 * PIECE - 4096)).hexdigest()
    )
    assert shown.segments == ((5 * PIECE, 5 * PIECE + 4096),)


def test_what_cannot_be_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "other").write_bytes(b"content")
    really_open = os.open

    def refuse(path: bytes, *arguments: int) -> int:
        if path.endswith(b"/file"):
            raise OSError(errno.ENOKEY, "no key")
        return really_open(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    found = manifest_of_path(tmp_path)
    assert found[b"file"].errors == {"content": "ENOKEY"}
    assert found[b"file"].digest is None
    assert not found[b"other"].errors


def test_the_command_shows_a_tree_and_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["manifest", *arguments])
        return tool.main(), capsys.readouterr().out

    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    status, shown = command(one)
    assert status == 0
    assert hashlib.sha256(b"one").hexdigest() in shown
    status, shown = command(one, "--json")
    assert status == 0
    assert json.loads(shown)["file"]["size"] == 3
    status, shown = command(one, other)
    assert status == 1
    assert "'file': digest should be" in shown
    assert command(one, one) == (0, "\n")
