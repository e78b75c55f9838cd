"""qcow2 images made by qemu-img, qemu-io and qemu-nbd, inspected and then served by qemu-nbd.

What a disk holds is qemu-img's answer for the same image, opened plainly. Whether a cut image has
lost anything is decided by comparing what qemu reads from it with what it read before.
"""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from restorefs.errors import KeyNeededError, StorageError, UnsupportedError
from restorefs.session.qcow2 import Chain, ChainError, inspect_chain
from tests.tools import require, run

SOURCE_SIZE = 600_064  # not a whole number of any cluster size but 512
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _tools() -> None:
    require("qemu-img", "qemu-io", "qemu-nbd", "nbdcopy")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk without a zero byte: half of it can be compressed, half cannot."""
    chance = random.Random(7)
    content = bytearray()
    while len(content) < SOURCE_SIZE:
        content += chance.randbytes(5000).replace(b"\0", b"\1")
        content += bytes([chance.randrange(1, 256)]) * chance.randrange(9000)
    path = tmp_path_factory.mktemp("source") / "source.raw"
    path.write_bytes(content[:SOURCE_SIZE])
    return path


def create(path: Path, size: int, options: str = "", *more: str | Path) -> None:
    if options:
        more = ("-o", options, *more)
    run("qemu-img", "create", "-f", "qcow2", *more, path, str(size))


def overlay(path: Path, backing: str | Path, size: int, backing_format: str = "qcow2") -> None:
    """Create an image over a backing file, which need not exist yet."""
    create(path, size, "", "-u", "-b", backing, "-F", backing_format)


def write(path: Path, *commands: str) -> None:
    argv = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "qcow2", *argv, path)


def plain(path: Path) -> bytes | None:
    """Return what qemu reads from an image opened by its name alone; None if it cannot."""
    copy = path.with_name("plain.copy")
    argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, copy]
    done = subprocess.run(argv, capture_output=True, check=False)
    return copy.read_bytes() if done.returncode == 0 else None


def served(chain: Chain, folder: Path) -> bytes:
    """Return what qemu-nbd serves for a chain."""
    copy = folder / "served.copy"
    run("nbdcopy", "--", "[", "qemu-nbd", "--read-only", chain.blockdev(), "]", copy)
    return copy.read_bytes()


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def number(path: Path, offset: int, length: int) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(length))


def cluster_size(path: Path) -> int:
    return 1 << number(path, 20, 4)


# Legal images, each made in another way.

Maker = Callable[[Path, Path], object]


def converted(*arguments: str) -> Maker:
    def make(path: Path, source: Path) -> None:
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *arguments, source, path)

    return make


def preallocated(options: str, *, filled: bool = True) -> Maker:
    def make(path: Path, source: Path) -> None:
        create(path, SOURCE_SIZE, options)
        if filled:
            run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", source, path)

    return make


def written(size: int, options: str, *commands: str) -> Maker:
    def make(path: Path, source: Path) -> None:
        create(path, size, options)
        write(path, *commands)

    return make


def copied_over_nbd(*server: str) -> Maker:
    """A backup writer's way: nbdcopy into a writable qemu-nbd."""

    def make(path: Path, source: Path) -> None:
        create(path, 10 * 65536)
        os.truncate(path, 4 * 65536)  # the compress filter wants a file of whole clusters
        padded = path.with_name("padded")
        padded.write_bytes(source.read_bytes().ljust(10 * 65536, b"\1"))
        argv = [word.replace("IMAGE", str(path)) for word in server]
        run("nbdcopy", "--", padded, "[", "qemu-nbd", *argv, "]")

    return make


def then(make: Maker, *steps: Callable[[Path], object]) -> Maker:
    def make_all(path: Path, source: Path) -> None:
        make(path, source)
        for step in steps:
            step(path)

    return make_all


def writes(*commands: str) -> Callable[[Path], object]:
    return lambda path: write(path, *commands)


def img(command: str, *arguments: str) -> Callable[[Path], object]:
    return lambda path: run(
        "qemu-img", command, *[a.replace("IMAGE", str(path)) for a in arguments]
    )


def killed_while_writing(path: Path) -> None:
    """Leave the image as a writer does that dies after its data has reached the file."""
    argv = [
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "write -P 9 2M 300k",
        "-c",
        "flush",
        "-c",
        "abort",
        path,
    ]
    done = subprocess.run(argv, capture_output=True, check=False, cwd=path.parent)
    assert done.returncode < 0


SCATTERED = [f"write -P {1 + k} {k * 37 % 700 * 4096} {1 + k * 11 % 40}b" for k in range(30)]
SCATTERED = [command.replace("b", "k") for command in SCATTERED]
MIXED = [f"write {'-c' if k % 2 else ''} -P {1 + k} {k * 9 % 70 * 4096} 4096" for k in range(30)]

LEGAL: dict[str, Maker] = {
    **{f"clusters of {size}": converted("-o", f"cluster_size={size}") for size in
       ("512", "1k", "4k", "64k", "256k", "2M")},
    **{f"zlib, clusters of {size}": converted("-c", "-o", f"cluster_size={size}") for size in
       ("512", "4k", "64k", "2M")},
    **{f"zstd, clusters of {size}":
       converted("-c", "-o", f"compression_type=zstd,cluster_size={size}") for size in
       ("512", "4k", "64k", "2M")},
    **{f"refcounts of {bits} bits": converted("-c", "-o", f"cluster_size=4k,refcount_bits={bits}")
       for bits in (1, 2, 4, 8, 16, 32, 64)},
    **{f"preallocation={how}": preallocated(f"preallocation={how}") for how in
       ("metadata", "falloc", "full")},
    **{f"preallocation={how}, extended L2": preallocated(f"preallocation={how},extended_l2=on")
       for how in ("metadata", "falloc", "full")},
    "preallocation=metadata, version 2": preallocated("preallocation=metadata,compat=0.10"),
    "preallocation=metadata, empty": preallocated("preallocation=metadata", filled=False),
    "preallocation=falloc, empty": preallocated("preallocation=falloc", filled=False),
    "version 2": converted("-o", "compat=0.10"),
    "version 2, compressed": converted("-c", "-o", "compat=0.10"),
    "extended L2": converted("-o", "extended_l2=on"),
    "extended L2, small clusters": converted("-o", "extended_l2=on,cluster_size=16k"),
    "extended L2, compressed": converted("-c", "-o", "extended_l2=on"),
    "extended L2, single subclusters": written(
        MIB, "extended_l2=on", "write -P 1 70k 5k", "write -P 2 300k 1k", "write -P 3 1023k 1k"),
    "compressed out of order": converted("-c", "-W", "-m", "8", "-o", "cluster_size=4k"),
    "empty": lambda path, source: create(path, 8 * MIB),
    "scattered writes": written(3 * MIB, "cluster_size=4k", *SCATTERED),
    "compressed and not": written(3 * MIB, "cluster_size=4k", *MIXED),
    "single compressed writes": written(
        MIB, "", "write -c -P 1 0 64k", "write -c -P 2 512k 64k", "write -c -P 3 64k 64k"),
    "zeros written over data": written(
        3 * MIB, "", "write -P 1 0 1M", "write -z 0 512k", "write -P 2 2M 1M", "write -z 2M 1M"),
    "discarded": written(3 * MIB, "", "write -P 1 0 3M", "discard 1M 2M"),
    "discarded, version 2": written(3 * MIB, "compat=0.10", "write -P 1 0 3M", "discard 1M 2M"),
    "disk ends within a cluster": written(MIB + 512, "", "write -P 1 0 1M", "write -P 2 1M 512"),
    "shrunk": then(
        written(3 * MIB, "", "write -P 1 1M 2M", "write -P 2 0 1M"),
        img("resize", "-q", "-f", "qcow2", "--shrink", "IMAGE", "1500k")),
    "grown, with a new L1 table": then(
        written(3 * MIB, "cluster_size=512", "write -P 1 1M 1M", "write -P 2 0 64k"),
        img("resize", "-q", "-f", "qcow2", "IMAGE", "20M"), writes("write -P 7 19M 64k")),
    "internal snapshots": then(
        written(3 * MIB, "", "write -P 1 0 1M"), img("snapshot", "-c", "s1", "IMAGE"),
        writes("write -P 2 512k 1M"), img("snapshot", "-c", "s2", "IMAGE")),
    "internal snapshots, compressed": then(
        written(3 * MIB, "", "write -c -P 1 0 64k", "write -c -P 1 64k 64k"),
        img("snapshot", "-c", "s1", "IMAGE"), writes("write -c -P 3 256k 64k")),
    "internal snapshots, deleted": then(
        written(3 * MIB, "", "write -P 1 0 1M"), img("snapshot", "-c", "s1", "IMAGE"),
        writes("write -P 2 512k 1M"), img("snapshot", "-d", "s1", "IMAGE")),
    "bitmap": then(
        written(3 * MIB, "", "write -P 1 0 1M"), img("bitmap", "--add", "IMAGE", "b0"),
        writes("write -P 2 512k 1M")),
    "bitmap, compressed": then(
        written(3 * MIB, "", "write -c -P 1 0 64k"), img("bitmap", "--add", "IMAGE", "b0"),
        writes("write -c -P 2 512k 64k")),
    "copied over NBD": copied_over_nbd("-f", "qcow2", "IMAGE"),
    "copied over NBD, compressed": copied_over_nbd("--image-opts",
        "driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=IMAGE"),
    "lazy refcounts": converted("-o", "lazy_refcounts=on"),
    "dirty": then(
        written(4 * MIB, "lazy_refcounts=on", "write -P 1 0 1M"), killed_while_writing),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_image_is_accepted_and_served_as_it_is(
    name: str, source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "image.qcow2"
    LEGAL[name](path, source)
    before = path.read_bytes()
    info = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", path))
    for deep in (False, True):
        chain = inspect_chain(path, [tmp_path], deep=deep)
        assert chain.virtual_size == info["virtual-size"]
        (image,) = chain.images
        assert image.cluster_size == info["cluster-size"]
        assert image.compression_type == info["format-specific"]["data"].get(
            "compression-type", "zlib"
        )
    assert served(chain, tmp_path) == plain(path)
    assert path.read_bytes() == before, "inspecting or serving changed the image"


@pytest.mark.parametrize("name", LEGAL)
def test_a_cut_that_loses_content_is_seen(name: str, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    LEGAL[name](path, source)
    whole, before = path.read_bytes(), plain(path)
    lossy = 0
    for length in cuts(len(whole), cluster_size(path)):
        path.write_bytes(whole[:length])
        if plain(path) != before:
            lossy += 1
            for deep in (False, True):
                with pytest.raises(StorageError, match=r"truncated|not a qcow2 image"):
                    inspect_chain(path, [tmp_path], deep=deep)
    assert lossy


def cuts(size: int, cluster: int) -> list[int]:
    """Return some lengths: at cluster boundaries, the last ones among them, and within."""
    chance = random.Random(size)
    boundaries = range(0, size, cluster)
    chosen = {*boundaries[-3:], *chance.sample(boundaries, min(3, len(boundaries)))}
    chosen |= {size - 1, size - 512, size - chance.randrange(512), size // 2 + 77}
    return sorted(length for length in chosen if 0 <= length < size)


def test_qemu_serves_zeros_for_what_is_cut_off_and_we_name_the_place(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create(path, MIB)
    write(path, "write -P 7 0 1M")
    os.truncate(path, path.stat().st_size - 2 * 65536)
    content = plain(path)
    assert content is not None, "qemu has begun to notice"
    first = content.index(0)
    assert content[first:] == bytes(2 * 65536)
    for deep in (False, True):
        with pytest.raises(
            StorageError, match=f"truncated: from byte {first} of the disk"
        ) as error:
            inspect_chain(path, [tmp_path], deep=deep)
        assert str(path) in str(error.value)


def test_a_cut_below_an_l2_table_names_lost_clusters_before_it(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create(path, 100 * MIB, "cluster_size=4k")  # an L2 table maps 2 MiB
    write(path, "write -P 1 0 8k", "write -P 2 50M 4k", "write -P 3 4k 4k", "write -P 4 8k 8k")
    entries = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", path))
    offset_of = {e["start"]: e["offset"] for e in entries if e["data"]}
    os.truncate(path, offset_of[8192])
    with pytest.raises(StorageError, match="from byte 8192 of the disk"):
        inspect_chain(path, [tmp_path], deep=True)
    os.truncate(path, offset_of[0])
    with pytest.raises(StorageError, match="from byte 0 of the disk"):
        inspect_chain(path, [tmp_path], deep=True)


def test_clusters_that_a_killed_writer_had_only_allocated_are_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create(path, MIB)
    write(path, "write -P 7 0 512k")
    before = plain(path)
    end = path.stat().st_size // 65536
    block = number(path, number(path, 48, 8), 8)
    patch(path, block + 2 * (end + 3), b"\0\1")  # a refcount behind the end of the file
    done = subprocess.run(["qemu-img", "check", path], capture_output=True, check=False)
    assert done.returncode in (0, 3), "leaked clusters are the worst that qemu sees"
    for deep in (False, True):
        assert served(inspect_chain(path, [tmp_path], deep=deep), tmp_path) == before


# Chains.


def chain_of(folder: Path, names: list[str], *, backings: list[str] | None = None) -> Path:
    """Make a chain, base first, in which each image changes a part of the disk."""
    for level, name in enumerate(names):
        path = folder / name
        if level == 0:
            create(path, 2 * MIB)
        else:
            overlay(path, backings[level - 1] if backings else names[level - 1], 2 * MIB)
        commands = [f"write -P {level + 1} {level * 130}k 200k", f"write -P {99 - level} 1M 70k"]
        write(path, *commands)
    return folder / names[-1]


def assert_served_as_plain(top: Path, *repositories: Path) -> Chain:
    for deep in (False, True):
        chain = inspect_chain(top, repositories, deep=deep)
        content = plain(top)
        assert content is not None
        assert any(content)
        assert served(chain, repositories[0]) == content
    return chain


def test_a_chain_of_eight(tmp_path: Path) -> None:
    top = chain_of(tmp_path, [f"{level}.qcow2" for level in range(8)])
    chain = assert_served_as_plain(top, tmp_path)
    assert [image.path.stem for image in chain.images] == list("76543210")


def test_relative_and_absolute_backing_names_in_several_folders(tmp_path: Path) -> None:
    for folder in ("full", "inc", "inc/deep"):
        (tmp_path / folder).mkdir()
    names = ["full/base", "inc/one", "inc/deep/two", "full/three", "full/four"]
    backings = [
        "../full/base",
        str(tmp_path / "inc/one"),
        "../inc/deep/../deep/two",
        f"file:{tmp_path}/full/three",
    ]
    top = chain_of(tmp_path, names, backings=backings)
    chain = assert_served_as_plain(top, tmp_path)
    assert [str(image.path.relative_to(tmp_path)) for image in chain.images] == names[::-1]


def test_a_relative_path_is_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain_of(tmp_path, ["base", "top"])
    monkeypatch.chdir(tmp_path)
    assert_served_as_plain(Path("top"), tmp_path)


@pytest.mark.parametrize("link", ["folder", "file"])
def test_backing_names_are_relative_to_the_name_that_was_opened(link: str, tmp_path: Path) -> None:
    """Through a linked folder `..` is that of its target; a linked file stays where its name is."""
    (tmp_path / "store/deep").mkdir(parents=True)
    (tmp_path / "names").mkdir()
    top = chain_of(tmp_path / "store/deep", ["../base", "top"])
    if link == "folder":
        (tmp_path / "names/deep").symlink_to(tmp_path / "store/deep")
        opened = tmp_path / "names/deep/top"
    else:
        (tmp_path / "names/here").mkdir()
        opened = tmp_path / "names/here/top"
        opened.symlink_to(top)
        shutil.move(tmp_path / "store/base", tmp_path / "names/base")
    assert_served_as_plain(opened, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "a,b",
        "a,,b=c",
        'a "quoted" name',
        "it's",
        "new\nline\ttab\x01\x7f",
        "ünïcode 漢字 😀",
        "back\\slash",
        " blanks ",
        "%41",
        "$HOME;*?{}[]",
        "-rf",
        "json:{}",
        "nbd:localhost:1",
    ],
)
def test_odd_names(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    top = chain_of(folder, ["./" + name, "./top " + name])
    chain = assert_served_as_plain(top, tmp_path)
    assert [image.path for image in chain.images] == [top, folder / name]


@pytest.mark.parametrize("size", [3 * MIB, 1 * MIB, 700_123, 0])
def test_a_raw_base(size: int, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(random.Random(1).randbytes(size))
    top = tmp_path / "top"
    overlay(top, "base", 2 * MIB, "raw")
    write(top, "write -P 3 100k 3k")
    chain = assert_served_as_plain(top, tmp_path)
    info = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", tmp_path / "base"))
    assert chain.images[1].format == "raw"
    assert chain.images[1].virtual_size == info["virtual-size"]
    assert chain.virtual_size == 2 * MIB


def test_an_overlay_larger_than_its_base(tmp_path: Path) -> None:
    create(tmp_path / "base", MIB)
    write(tmp_path / "base", "write -P 1 0 1M")
    overlay(tmp_path / "top", "base", 5 * MIB)
    write(tmp_path / "top", "write -P 2 4M 64k")
    assert_served_as_plain(tmp_path / "top", tmp_path)


def test_a_truncated_base_is_seen_and_named(tmp_path: Path) -> None:
    top = chain_of(tmp_path, ["base", "one", "top"])
    os.truncate(tmp_path / "base", (tmp_path / "base").stat().st_size - 65536)
    with pytest.raises(StorageError, match=r"base \(backing file of .*one\): truncated"):
        inspect_chain(top, [tmp_path])


def test_a_raw_base_that_looks_like_qcow2_is_served_as_raw(tmp_path: Path) -> None:
    create(tmp_path / "base", MIB)
    overlay(tmp_path / "top", "base", MIB, "raw")
    content = served(inspect_chain(tmp_path / "top", [tmp_path]), tmp_path)
    base = (tmp_path / "base").read_bytes()
    assert content == base.ljust(MIB, b"\0")


def test_qemu_follows_no_name_and_no_format_stored_in_an_image(tmp_path: Path) -> None:
    top = chain_of(tmp_path, ["base", "top"])
    create(tmp_path / "evil", 2 * MIB)
    write(tmp_path / "evil", "write -P 66 0 2M")
    chain, before = inspect_chain(top, [tmp_path]), plain(top)
    for recorded, other in ((b"base", b"evil"), (b"qcow2", b"vmdk\0")):
        start = top.read_bytes()[:4096]
        patch(top, start.index(recorded, 104), other)
    assert plain(top) != before
    assert served(chain, tmp_path) == before


def test_a_base_without_a_recorded_format_is_qcow2_only_if_it_shows(tmp_path: Path) -> None:
    top = chain_of(tmp_path, ["base", "top"])
    kind = top.read_bytes()[:4096].index(b"\xe2\x79\x2a\xca")
    patch(top, kind, b"\xee\xee\xee\xee")  # an extension that nobody knows
    assert_served_as_plain(top, tmp_path)
    (tmp_path / "base").write_bytes(b"raw" * 50_000)
    with pytest.raises(ChainError, match=r"base \(backing file of .*qemu-img rebase -u -F raw"):
        inspect_chain(top, [tmp_path])


@pytest.mark.parametrize("image_format", ["vmdk", "vpc", "vdi", "qcow", "qed"])
def test_other_formats_are_refused_by_name(image_format: str, tmp_path: Path) -> None:
    run("qemu-img", "create", "-f", image_format, tmp_path / "base", "1M")
    overlay(tmp_path / "top", "base", MIB, image_format)
    with pytest.raises(UnsupportedError, match=f"base has the format {image_format}"):
        inspect_chain(tmp_path / "top", [tmp_path])


@pytest.mark.parametrize(
    "name",
    [
        "nbd:localhost:10809",
        "nbd+unix:///?socket=/tmp/s",
        "rbd:pool/image",
        "https://example.org/base",
        'json:{"driver":"file","filename":"/etc/passwd"}',
        "fat:/etc",
        "file:base",
        "a:b",
        "host_device:/dev/null",
    ],
)
def test_names_with_a_protocol_are_refused(name: str, tmp_path: Path) -> None:
    """Also of a file that is there: a name with a colon is none to qemu, as it says itself."""
    create(tmp_path / "a:b", MIB)
    create(tmp_path / "base", MIB)
    top = tmp_path / "top"
    overlay(top, name, MIB)
    with pytest.raises(ChainError) as caught:
        inspect_chain(top, [tmp_path])
    assert name in str(caught.value)
    assert str(top) in str(caught.value)
    if name in ("file:base", "a:b"):
        assert plain(top) is None


# Where a chain may lie.


def test_a_chain_that_leaves_the_repositories(tmp_path: Path) -> None:
    repository, other = tmp_path / "repository", tmp_path / "other"
    for folder in (repository, other, tmp_path / "repository2"):
        folder.mkdir()
    create(other / "base", MIB)
    top = repository / "top"
    overlay(top, other / "base", MIB)
    with pytest.raises(ChainError) as caught:
        inspect_chain(top, [repository, tmp_path / "repository2"])
    for expected in (top, other / "base", repository, tmp_path / "repository2", "--repository"):
        assert str(expected) in str(caught.value)
    inspect_chain(top, [repository, other])
    inspect_chain(top, [tmp_path])
    with pytest.raises(ChainError):
        inspect_chain(top, [])


def test_links_out_of_a_repository(tmp_path: Path) -> None:
    repository, other = tmp_path / "repository", tmp_path / "repository-not"
    repository.mkdir()
    other.mkdir()
    create(other / "base", MIB)
    (repository / "link").symlink_to(other / "base")
    (repository / "folder").symlink_to(other)
    for backing in ("link", "folder/base", "../repository-not/base"):
        overlay(repository / "top", backing, MIB)
        with pytest.raises(ChainError, match="repository-not/base, outside"):
            inspect_chain(repository / "top", [repository])
    with pytest.raises(ChainError, match="repository-not/base, outside"):
        inspect_chain(repository / "link", [repository])


def test_a_repository_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    top = chain_of(tmp_path / "store", ["base", "top"])
    (tmp_path / "repository").symlink_to(tmp_path / "store")
    chain = inspect_chain(tmp_path / "repository/top", [tmp_path / "repository"])
    assert chain.images[0].path == top


# What is no chain.


def test_missing_files(tmp_path: Path) -> None:
    top = tmp_path / "top"
    with pytest.raises(StorageError, match="top: No such file"):
        inspect_chain(top, [tmp_path])
    overlay(top, "gone", MIB)
    with pytest.raises(StorageError, match=r"gone \(backing file of .*top\): No such file"):
        inspect_chain(top, [tmp_path])
    (tmp_path / "gone").symlink_to("gone")
    with pytest.raises(StorageError, match="symbolic links"):
        inspect_chain(top, [tmp_path])


def test_what_is_not_a_qcow2_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for content in (b"", b"QFI", b"raw" * 50_000):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="image: not a qcow2 image"):
            inspect_chain(path, [tmp_path])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="not a regular file"):
        inspect_chain(path, [tmp_path])
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="not a regular file"):
        inspect_chain(path, [tmp_path])
    overlay(tmp_path / "top", "base", MIB)
    (tmp_path / "base").write_bytes(b"raw" * 50_000)
    with pytest.raises(StorageError, match=r"base .*not a qcow2 image"):
        inspect_chain(tmp_path / "top", [tmp_path])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_loop(length: int, tmp_path: Path) -> None:
    for level in range(length):
        overlay(tmp_path / str(level), str((level + 1) % length), MIB)
    with pytest.raises(ChainError, match="comes back to this file"):
        inspect_chain(tmp_path / "0", [tmp_path])


def test_a_loop_through_a_second_name(tmp_path: Path) -> None:
    overlay(tmp_path / "one", "two", MIB)
    os.link(tmp_path / "one", tmp_path / "two")
    with pytest.raises(ChainError, match="comes back to this file"):
        inspect_chain(tmp_path / "one", [tmp_path])


def test_the_length_of_a_chain_is_bounded(tmp_path: Path) -> None:
    create(tmp_path / "000", MIB)
    overlay(tmp_path / "001", "000", MIB)
    pattern = (tmp_path / "001").read_bytes()
    at = pattern.index(b"000", 512)
    for level in range(2, 257):
        content = bytearray(pattern)
        content[at : at + 3] = b"%03d" % (level - 1)
        (tmp_path / f"{level:03}").write_bytes(content)
    assert len(inspect_chain(tmp_path / "255", [tmp_path]).images) == 256
    with pytest.raises(ChainError, match="more than 256 images"):
        inspect_chain(tmp_path / "256", [tmp_path])


def test_a_chain_too_long_to_be_named_to_qemu_nbd(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["x" * 250] * 10)
    folder.mkdir(parents=True)
    create(folder / "000", MIB)
    overlay(folder / "001", "000", MIB)
    pattern = (folder / "001").read_bytes()
    at = pattern.index(b"000", 512)
    for level in range(2, 60):
        content = bytearray(pattern)
        content[at : at + 3] = b"%03d" % (level - 1)
        (folder / f"{level:03}").write_bytes(content)
    with pytest.raises(ChainError, match="too long for qemu-nbd"):
        inspect_chain(folder / "059", [tmp_path])


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"image\xff")
    create(path, MIB)
    with pytest.raises(ChainError, match=r"image\\udcff.*not UTF-8"):
        inspect_chain(path, [tmp_path])
    with pytest.raises(ChainError, match="NUL"):
        inspect_chain(tmp_path / "image\0", [tmp_path])


def test_an_encrypted_image_needs_a_key(tmp_path: Path) -> None:
    path = tmp_path / "image"
    secret = ("--object", "secret,id=key,data=abc")
    create(path, MIB, "encrypt.format=aes,encrypt.key-secret=key", *secret)
    with pytest.raises(KeyNeededError, match=r"image: .*AES"):
        inspect_chain(path, [tmp_path])


def test_an_image_marked_as_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "image"
    create(path, MIB)
    patch(path, 79, b"\2")
    with pytest.raises(StorageError, match=r"image: marked as corrupt.*qemu-img check -r"):
        inspect_chain(path, [tmp_path])


def test_a_truncated_dirty_image(tmp_path: Path) -> None:
    """Its refcounts know nothing of the last clusters."""
    path = tmp_path / "image"
    LEGAL["dirty"](path, path)
    assert number(path, 79, 1) & 1, "the image is not dirty"
    os.truncate(path, path.stat().st_size - 65536)
    with pytest.raises(StorageError, match="truncated"):
        inspect_chain(path, [tmp_path])


# External data files.


@pytest.mark.parametrize("options", ["", ",data_file_raw=on", ",extended_l2=on"])
@pytest.mark.parametrize("name", ["disk.data", "ABSOLUTE", "./a:b, c"])
def test_an_external_data_file(
    options: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # qemu takes a relative name from there
    name = name.replace("ABSOLUTE", str(tmp_path / "elsewhere"))
    top = tmp_path / "top"
    create(top, MIB + 512, f"data_file={name.replace(',', ',,')}{options}")
    write(top, "write -P 1 0 200k", "write -P 2 900k 64k", "write -P 3 1M 512")
    chain = assert_served_as_plain(top, tmp_path)
    data = chain.images[0].data_file
    assert data == tmp_path / name
    before = plain(top)
    for length in range(0, MIB, 100 << 10):
        shutil.copy(data, tmp_path / "saved")
        os.truncate(data, length)
        assert plain(top) != before
        for deep in (False, True):
            with pytest.raises(StorageError, match="behind the end of its external data file"):
                inspect_chain(top, [tmp_path], deep=deep)
        shutil.move(tmp_path / "saved", data)
    patch(top, top.read_bytes()[:4096].index(os.fsencode(name)), b"/" * 4)
    assert served(chain, tmp_path) == before, "qemu followed the name in the image"


def test_a_data_file_that_ends_behind_all_content_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create(tmp_path / "top", MIB, "data_file=data")
    write(tmp_path / "top", "write -P 1 100k 10k")
    os.truncate(tmp_path / "data", 128 << 10)
    assert_served_as_plain(tmp_path / "top", tmp_path)


def test_a_data_file_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    for name in ("../data", "data"):
        create(Path("top"), MIB, f"data_file={name}")
        if name == "../data":
            with pytest.raises(ChainError, match=r"external data file .*outside"):
                inspect_chain(repository / "top", [repository])
    (repository / "data").unlink()
    with pytest.raises(StorageError, match=r"top: external data file .*data: No such file"):
        inspect_chain(repository / "top", [repository])
    top = repository / "top"
    patch(top, top.read_bytes()[:4096].index(b"DATA"), b"XXXX")
    with pytest.raises(ChainError, match="name is not recorded"):
        inspect_chain(top, [repository])
