"""XFS before version 5, and folders that ignore case, as a Debian kernel shows them in a small
emulated machine: the kernel at hand mounts neither.

One boot fills all images and looks at them. Attributes are then set by xfs_db, whose values are
known.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from restorefs.errors import NotFoundError
from tests.images.xfs import field, mkfs, next_inode, xfs_db
from tests.listing import entries_of
from tests.machine import Disk, look_at
from tests.manifest import Manifest, assert_same_tree
from tests.real.xfs_trees import found_tree, opened
from tests.tools import require, require_root

V4 = "crc=0,finobt=0,reflink=0,rmapbt=0,bigtime=0,inobtcount=0"
IMAGES = {
    "v4": ("-b", "size=1024", "-i", "size=256,sparse=0", "-n", "ftype=0"),
    "v4_file_types": ("-n", "ftype=1", "-i", "size=256"),
    "v4_512": ("-b", "size=512", "-i", "size=256", "-n", "size=4096", "-l", "version=1"),
    "v4_ignoring_case": ("-b", "size=1024", "-n", "version=ci,size=8192"),
    "v5_ignoring_case": ("-n", "version=ci"),
}

FILL = r"""
mkdir block leaf node short tree-of-extents empty
( cd short; touch 1 2 3; mkdir sub; ln -s ../block link; mknod device b 8 17; mkfifo fifo )
( cd block; touch $(seq 1 12) )
( cd leaf; touch $(seq 1 70) )
( cd node; touch $(seq 1 2500); rm $(seq 1000 3 1900) )
ln -s "$(printf '%0300d' 7)" long-link
ln -s "$(printf '%01000d' 7)" longest-link
ln -s "$(printf '%050d' 7)" short-link
for size in 1 500 5000 70000; do
  dd if=/dev/urandom of=size-$size bs=$size count=1 2> /dev/null
done
ln size-1 short/hard-link
i=0; while [ $i -lt 150 ]; do
  for name in one other; do
    of=tree-of-extents/$name
    dd if=/dev/urandom bs=1024 count=1 seek=$((2*i)) conv=notrunc of=$of 2> /dev/null
  done
  i=$((i+1))
done
fallocate -l 300000 unwritten
dd if=/dev/urandom of=unwritten bs=1000 seek=50 count=3 conv=notrunc 2> /dev/null
truncate -s 1000000 size-5000
touch -d "1965-02-03 04:05:06" size-500
touch -d "2037-02-03 04:05:06" size-70000
for name in UPPER.TXT lower.txt MiXed.Txt größe $(printf '\304\326') README.TXT Readme.md; do
  echo "$name" > "$name"
done
mkdir cases; ( cd cases; i=0; while [ $i -lt 90 ]; do echo $i > "File-NAME-$i"; i=$((i+1)); done )
chmod 4755 UPPER.TXT
"""

NOT_SHOWN = ("uid", "gid", "rdev", "atime_ns", "ctime_ns", "xattrs", "segments", "errors")
"""What the machine's busybox cannot tell."""


class Seen(NamedTuple):
    image: Path
    tree: Manifest


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    require("mkfs.xfs", "xfs_db")
    require_root()
    folder = tmp_path_factory.mktemp("xfs-in-linux")
    images = {}
    for name, options in IMAGES.items():
        images[name] = folder / name
        mkfs(images[name], *options, meta="" if name.startswith("v5") else V4)
    trees = look_at([Disk(image, "xfs", fill=FILL) for image in images.values()])
    return {name: Seen(images[name], tree) for name, tree in zip(images, trees, strict=True)}


@pytest.mark.parametrize("name", IMAGES)
async def test_an_older_kernel_shows_the_same(name: str, seen: dict[str, Seen]) -> None:
    image, expected = seen[name]
    assert len(expected) > 2200
    assert_same_tree(expected, await found_tree(image), NOT_SHOWN)
    async with opened(image) as (fs, _):
        assert fs.identity.clean is True


def test_the_images_have_what_they_are_for(seen: dict[str, Seen]) -> None:
    image = seen["v4"].image
    one = next_inode(image, "/tree-of-extents/one")
    assert "btree" in xfs_db(image, f"inode {one}", "print core.format")
    assert field(image, "sb 0", "versionnum") & 0xF == 4
    assert field(seen["v4_ignoring_case"].image, "sb 0", "versionnum") & 0x4000


@pytest.mark.parametrize("name", ["v4_ignoring_case", "v5_ignoring_case"])
async def test_names_are_found_whatever_their_case(name: str, seen: dict[str, Seen]) -> None:
    async with opened(seen[name].image) as (fs, _):
        for asked, stored in (
            (b"upper.txt", b"UPPER.TXT"),
            (b"LOWER.TXT", b"lower.txt"),
            (b"mIXED.tXT", b"MiXed.Txt"),
            (b"\xe4\xf6", b"\xc4\xd6"),  # as ISO 8859-1
            (b"NODE", b"node"),
        ):
            assert await fs.lookup(fs.root, asked) == await fs.lookup(fs.root, stored)
        cases = await fs.lookup(fs.root, b"cases")
        for entry in await entries_of(fs, cases):
            assert await fs.lookup(cases, entry.name.swapcase()) == entry.inode
        with pytest.raises(NotFoundError):
            await fs.lookup(cases, b"file-name-90")


async def test_case_counts_elsewhere(seen: dict[str, Seen]) -> None:
    async with opened(seen["v4"].image) as (fs, _):
        with pytest.raises(NotFoundError):
            await fs.lookup(fs.root, b"upper.txt")


@pytest.mark.parametrize("name", ["v4", "v4_512", "v4_file_types"])
async def test_attributes_of_version_4(name: str, seen: dict[str, Seen]) -> None:
    image = seen[name].image
    given = {
        "short": [("-u", "small", 30), ("-r", "of-root", 20)],
        "size-500": [("-u", f"number-{number}", number) for number in range(1, 60)],
        "size-5000": [("-s", "large", 60_000), ("-u", "other", 5000), ("-u", "small", 1)],
    }
    spaces = {"-u": b"user.", "-r": b"trusted.", "-s": b"security."}
    for path, attributes in given.items():
        inode = next_inode(image, f"/{path}")
        commands = [f"attr_set {space} -v {size} {key}" for space, key, size in attributes]
        xfs_db(image, f"inode {inode}", *commands, write=True)
    async with opened(image) as (fs, _):
        for path, attributes in given.items():
            inode = await fs.lookup(fs.root, path.encode())
            found = await fs.xattrs(inode)
            assert {key: len(value) for key, value in found.items()} == {
                spaces[space] + key.encode(): size for space, key, size in attributes
            }
            assert all(set(value) == {ord("v")} for value in found.values())
