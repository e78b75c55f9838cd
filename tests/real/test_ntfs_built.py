"""Legal NTFS volumes that ntfs-3g does not write: geometry, $MFT, attribute lists, names, links.

Each is built byte by byte (tests/images/ntfs_bytes.py); what is expected is what was put there,
and other readers see it too, where they can.
"""

import os
import random
import stat
import struct
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from restorefs.errors import NotFoundError, RestoreError, UnsupportedError
from restorefs.guestfs.base import GuestOptions
from tests.images.ntfs_bytes import (
    A_COMPRESSED,
    A_ENCRYPTED,
    A_OFFLINE,
    A_RECALL_ON_DATA,
    A_REPARSE,
    A_SPARSE,
    COMPRESSED,
    DATA,
    DOS,
    ENCRYPTED,
    LOGGED_UTILITY_STREAM,
    OBJECT_ID,
    SECURITY_DESCRIPTOR,
    SPARSE,
    WIN32,
    WIN32_AND_DOS,
    Attribute,
    Run,
    Volume,
    compressed,
    extended_attributes,
    junction,
    reparse,
    symlink,
    unicode_upcase,
    utf16,
)
from tests.real.ntfs_built import assert_others_agree, built, encoded, ntfs_3g, opened, pyfsntfs

NUMBERS = random.Random(3)
NOISE = NUMBERS.randbytes(300_000)


def holding(runs: list[Run], size: int, **fields: object) -> Attribute:
    return Attribute(DATA, runs=runs, size=size, **fields)  # type: ignore[arg-type]


# Geometry


def filled(volume: Volume) -> dict[bytes, bytes | None]:
    """Put a bit of everything into a volume; return the tree that is expected."""
    cluster = volume.cluster
    tree: dict[bytes, bytes | None] = {b"small": b"in the record", b"empty": b""}
    volume.resident("small", b"in the record")
    volume.resident("empty", b"")
    content = NOISE[: min(3 * cluster + 123, len(NOISE))]
    volume.outside("pieces", content, pieces=3)
    tree[b"pieces"] = content
    block = b"data" * (cluster // 4)
    runs = [(None, 2), *volume.store(block), (None, 3)]
    size = 5 * cluster + 1
    volume.file("sparse", holding(runs, size, flags=SPARSE), dos_attributes=A_SPARSE)
    tree[b"sparse"] = (bytes(2 * cluster) + block).ljust(size, b"\0")
    many = volume.folder("many")
    tree[b"many"] = None
    for number in range(240):
        name = f"{number:03d} in a folder of several index blocks"
        volume.resident(name, b"%d" % number, parent=many)
        tree[b"many/" + name.encode()] = b"%d" % number
    deep = volume.folder("deep", volume.folder("nested"))
    volume.resident("file", b"below", parent=deep)
    tree |= {b"nested": None, b"nested/deep": None, b"nested/deep/file": b"below"}
    return tree


GEOMETRIES = [
    *((cluster, 512, 1024, 4096) for cluster in (512 << power for power in range(13))),
    (4096, 4096, 4096, 4096),
    (65_536, 4096, 4096, 4096),
    (2 << 20, 4096, 4096, 4096),
    (512, 512, 4096, 4096),
    (4096, 512, 4096, 4096),
    (4096, 512, 1024, 8192),
    (1024, 512, 1024, 2048),
    (1024, 1024, 1024, 4096),
    (2048, 2048, 2048, 4096),
]


@pytest.mark.parametrize(("cluster", "sector", "record", "index"), GEOMETRIES)
async def test_sizes(cluster: int, sector: int, record: int, index: int, tmp_path: Path) -> None:
    volume = Volume(cluster=cluster, sector=sector, record=record, index=index)
    expected = filled(volume)
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
        assert found.fs.identity.label == "built"
        assert found.fs.identity.uuid.lower().replace("-", "").endswith("123456789abcdef0")
    # libfsntfs takes the VCNs of index blocks below a cluster as clusters, and finds nothing.
    assert_others_agree(
        tmp_path / "built.img", expected, libfsntfs=index >= cluster and sector == 512
    )


async def test_clusters_of_2_mib_are_a_negative_power_in_the_boot_sector(tmp_path: Path) -> None:
    volume = Volume(cluster=2 << 20)
    volume.outside("file", NOISE)
    async with built(volume, tmp_path) as found:
        assert (await found.device.read(13, 1)) == b"\xf4"
        assert await found.content("file") == NOISE


async def test_the_last_bytes_of_the_volume(tmp_path: Path) -> None:
    """A run that ends where the volume ends is inside it."""
    volume = Volume()
    content = NOISE[:8192]
    attribute = holding([(0, 2)], 8192)
    file = volume.file("last", attribute)
    volume.write(tmp_path / "built.img")
    clusters = (tmp_path / "built.img").stat().st_size // 4096
    again = Volume()
    again.file("last", holding([(clusters - 2, 2)], 8192), number=file.number)
    again.put(clusters - 2, content)
    async with built(again, tmp_path) as found:
        assert found.device.size // 4096 == clusters
        assert await found.content("last") == content


async def test_a_volume_of_8_tib(tmp_path: Path) -> None:
    """Runs go there and back again, by more than 31 bits of sectors."""
    volume = Volume(cluster=2 << 20)
    near = volume.store(NOISE[:100])
    volume.allocate(1 << 22)
    far = volume.store(NOISE[100:200])
    runs = [*near, *far, *volume.store(NOISE[200:300])]
    runs.append((near[0][0], 1))
    size = 3 * (2 << 20) + 100
    volume.file("file", holding(runs, size))
    image = volume.write(tmp_path / "built.img")
    async with opened(image) as found:
        inode = await found.find("file")
        for number, start in enumerate((0, 100, 200, 0)):
            data = await found.content_of(inode, number * (2 << 20), 100)
            assert data == NOISE[start : start + 100]
        assert found.fs.identity.size == image.stat().st_size - 512
    with ntfs_3g(image) as root, open(root + b"/file", "rb") as file:
        file.seek(2 << 20)
        assert file.read(100) == NOISE[100:200]


# $MFT


@pytest.mark.parametrize("outside", [False, True], ids=["resident-list", "list-outside"])
@pytest.mark.parametrize(
    ("cluster", "runs", "parts", "extensions"),
    [
        (1024, [32, 2], [1], [24]),
        (1024, [32, 2], [1, 3, 5], [24, 25, 26]),
        (1024, [32, 2], [1, 3, 5], [24, 33, 39]),  # each extension lies in what the last describes
        (4096, [16, 1], [2, 2, 2], [30, 64, 70]),
        (512, [64, 2], [1, 60, 90], [24, 25, 26]),
        (4096, [8, 2], [], []),
    ],
)
async def test_a_fragmented_mft(
    cluster: int,
    runs: list[int],
    parts: list[int],
    extensions: list[int],
    outside: bool,
    tmp_path: Path,
) -> None:
    volume = Volume(cluster=cluster, mft_runs=runs, mft_parts=parts, mft_extensions=extensions)
    volume.mft_list_outside = outside
    expected = filled(volume)
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
    assert_others_agree(tmp_path / "built.img", expected)


async def test_an_mft_part_that_is_lost_loses_only_its_files(tmp_path: Path) -> None:
    volume = Volume(cluster=1024, mft_runs=[64, 2], mft_parts=[1, 3], mft_extensions=[24, 25])
    expected = filled(volume)
    image = volume.write(tmp_path / "built.img")
    with image.open("r+b") as file:
        file.seek(volume.mft_offset(25))
        file.write(b"BAAD")
    async with opened(image) as found:
        assert await found.content("small") == b"in the record"
        lost = 0
        for name in await found.names("many"):
            try:
                assert await found.content(b"many/" + name) == expected[b"many/" + name]
            except RestoreError:
                lost += 1
        assert 0 < lost < 240


# Attribute lists


@pytest.mark.parametrize("outside", [False, True], ids=["resident-list", "list-outside"])
async def test_content_in_several_records(outside: bool, tmp_path: Path) -> None:
    volume = Volume()
    content = NOISE[: 9 * 4096 - 7]
    runs = volume.store(content, pieces=9)
    parts = [
        holding(runs[at : at + 3], len(content), lowest=at, record=1 + at // 3) for at in (0, 3, 6)
    ]
    parts[0].allocated = 9 * 4096
    stream = Attribute(DATA, "stream", b"a stream of its own", record=2)
    volume.file("file", *parts, stream, list_outside=outside)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
        assert (await found.fs.attributes(await found.find("file"))).size == len(content)
        xattrs = await found.fs.xattrs(await found.find("file"))
        assert xattrs[b"user.stream"] == b"a stream of its own"
    assert_others_agree(tmp_path / "built.img", {b"file": content, b"beside": b"beside"})


async def test_a_list_of_hundreds_of_records(tmp_path: Path) -> None:
    volume = Volume(cluster=1024)
    content = NOISE[:250_000]
    runs = volume.store(content, pieces=244)
    parts = []
    lowest = 0
    for index in range(0, len(runs), 2):
        piece = runs[index : index + 2]
        parts.append(holding(piece, len(content), lowest=lowest, record=1 + index // 2))
        lowest += sum(count for _, count in piece)
    parts[0].allocated = lowest * 1024
    volume.file("file", *parts, list_outside=True, list_pieces=3)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
        extents = await found.fs.map(await found.find("file"), 0, len(content))
        assert len(extents) == len(runs)
    assert_others_agree(tmp_path / "built.img", {b"file": content})


@pytest.mark.parametrize(("count", "outside"), [(9, False), (40, True)])
async def test_names_in_several_records(count: int, outside: bool, tmp_path: Path) -> None:
    volume = Volume()
    file = volume.resident("link 000", b"many names", list_outside=outside)
    folder = volume.folder("links")
    for number in range(1, count):
        volume.link(file, f"link {number:03d}", folder)
    file.name_record = lambda number: number // 3
    last = f"links/link {count - 1:03d}"
    async with built(volume, tmp_path) as found:
        entries = await found.entries("links")
        assert len(entries) == count - 1
        assert {entry.inode for entry in entries.values()} == {await found.find("link 000")}
        for entry in entries.values():
            assert entry.attributes is not None
            assert entry.attributes.nlink == count
        assert await found.content(last) == b"many names"
    expected: dict[bytes, bytes | None] = {b"link 000": b"many names", b"links": None}
    expected |= {b"links/link %03d" % number: b"many names" for number in range(1, count)}
    assert_others_agree(tmp_path / "built.img", expected)


async def test_an_index_in_several_records(tmp_path: Path) -> None:
    volume = Volume(cluster=4096)
    many = volume.folder("many", index_pieces=20, index_records=3)
    expected: dict[bytes, bytes | None] = {b"many": None}
    for number in range(800):
        volume.resident(f"file {number}", b"%d" % number, parent=many)
        expected[b"many/file %d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
    assert_others_agree(tmp_path / "built.img", expected)


async def test_index_blocks_of_another_size_than_the_volumes(tmp_path: Path) -> None:
    """The folder's own $INDEX_ROOT decides."""
    volume = Volume(cluster=1024, index=4096)
    expected: dict[bytes, bytes | None] = {}
    for size in (1024, 2048, 8192):
        name = f"folder {size}"
        folder = volume.folder(name, index_size=size)
        expected[name.encode()] = None
        for number in range(70):
            volume.resident(f"file {number}", b"%d" % number, parent=folder)
            expected[name.encode() + b"/file %d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
    # libfsntfs has an error for those that are larger than the boot sector says.
    assert_others_agree(tmp_path / "built.img", expected, libfsntfs=False)


@pytest.mark.parametrize("flags", [COMPRESSED, ENCRYPTED])
async def test_a_folder_whose_files_are_to_be_compressed_or_encrypted(
    flags: int, tmp_path: Path
) -> None:
    """The flag is for what will be made in it: the index itself is neither."""
    volume = Volume()
    for name, count in (("small", 3), ("large", 100)):
        folder = volume.folder(name, index_flags=flags)
        folder.dos_attributes = A_COMPRESSED if flags == COMPRESSED else A_ENCRYPTED
        for number in range(count):
            volume.resident(f"file {number}", b"%d" % number, parent=folder)
    async with built(volume, tmp_path) as found:
        for name, count in (("small", 3), ("large", 100)):
            assert await found.names(name) == {b"file %d" % number for number in range(count)}
            assert await found.content(f"{name}/file 2") == b"2"
    with ntfs_3g(tmp_path / "built.img") as root:
        assert len(os.listdir(root + b"/large")) == 100  # noqa: PTH208


async def test_a_hole_of_16_tib(tmp_path: Path) -> None:
    volume = Volume()
    size = 1 << 44
    runs = [(None, (size >> 12) - 2), *volume.store(NOISE[:8192])]
    volume.file("file", holding(runs, size, flags=SPARSE), dos_attributes=A_SPARSE)
    async with built(volume, tmp_path) as found:
        inode = await found.find("file")
        attributes = await found.fs.attributes(inode)
        assert (attributes.size, attributes.blocks) == (size, 16)
        hole, data = await found.fs.map(inode, 0, size)
        assert (hole.offset, hole.length, data.length) == (None, size - 8192, 8192)
        assert await found.content_of(inode, size - 8193, 8193) == b"\0" + NOISE[:8192]
    with ntfs_3g(tmp_path / "built.img") as root, open(root + b"/file", "rb") as file:
        file.seek(size - 8193)
        assert file.read() == b"\0" + NOISE[:8192]
        assert os.fstat(file.fileno()).st_size == size


@pytest.mark.parametrize(
    "time", [0, 1, 116_444_736_000_000_000, 116_444_735_999_999_999, 0x01DA_1234_5678_9ABC,
             2_650_467_743_999_999_999],
)  # fmt: skip
async def test_times(time: int, tmp_path: Path) -> None:
    """Of 1601, of 1970, of today and of the year 9999: 100 ns each."""
    volume = Volume()
    times = (time, time + 1, time + 2, time + 3)
    volume.resident("file", b"", times=times)
    async with built(volume, tmp_path) as found:
        attributes = await found.fs.attributes(await found.find("file"))
        shown = (
            attributes.created_ns,
            attributes.mtime_ns,
            attributes.ctime_ns,
            attributes.atime_ns,
        )
        assert shown == tuple((each - 116_444_736_000_000_000) * 100 for each in times)
    volume_by_other = pyfsntfs().volume()
    volume_by_other.open(str(tmp_path / "built.img"))
    entry = volume_by_other.get_file_entry_by_path("\\file")
    assert times == (
        entry.get_creation_time_as_integer(),
        entry.get_modification_time_as_integer(),
        entry.get_entry_modification_time_as_integer(),
        entry.get_access_time_as_integer(),
    )
    volume_by_other.close()


async def test_a_security_descriptor_of_a_files_own(tmp_path: Path) -> None:
    """As volumes of Windows NT 4 have them, and a few files on later ones."""
    volume = Volume()
    descriptor = (
        b"\1\0\4\x80\x14\0\0\0\x20\0\0\0" + bytes(8)
        + b"\1\1\0\0\0\0\0\5\x12\0\0\0" + b"\1\1\0\0\0\0\0\5\x12\0\0\0"
    )  # fmt: skip
    own = Attribute(SECURITY_DESCRIPTOR, value=descriptor)
    volume.file("file", Attribute(DATA, value=b""), own)
    async with built(volume, tmp_path) as found:
        xattrs = await found.fs.xattrs(await found.find("file"))
        assert xattrs[b"system.ntfs_acl"] == descriptor
    with ntfs_3g(tmp_path / "built.img") as root:
        assert os.getxattr(root + b"/file", "system.ntfs_acl") == descriptor


# Everything at once


def split(
    volume: Volume, attribute: Attribute, numbers: random.Random, first: int
) -> list[Attribute]:
    """Cut an attribute's runs, also within a run, and spread them over extension records."""
    runs = [
        (None if at is None else at + part, 1)
        for at, count in attribute.runs
        for part in range(count)
    ]
    cuts = sorted(numbers.sample(range(1, len(runs)), min(numbers.randrange(4), len(runs) - 1)))
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(runs)], strict=True):
        joined: list[Run] = []
        for at, count in runs[start:end]:
            before, length = joined[-1] if joined else (0, 0)
            if joined and (
                at is before is None or (None not in (at, before) and at == before + length)
            ):
                joined[-1] = (before, length + count)
            else:
                joined.append((at, count))
        parts.append(
            replace(
                attribute,
                runs=joined,
                lowest=start,
                record=first + len(parts) if parts or numbers.random() < 0.5 else 0,
            )
        )
    parts[0].allocated = len(runs) * volume.cluster
    return parts


def any_content(volume: Volume, numbers: random.Random) -> tuple[Attribute, bytes]:
    """Return a non-resident $DATA of any kind, and what is to be read of it."""
    content = b"".join(
        numbers.choice((bytes(size), bytes([size % 251]) * size, NUMBERS.randbytes(size)))
        for size in (numbers.choice((1, 700, 4096, 20_000, 65_536)) for _ in range(7))
    )
    kind = numbers.choice(("plain", "sparse", "compressed"))
    cluster = volume.cluster
    if kind == "compressed" and cluster <= 4096:
        attribute = compressed(volume, content)
    elif kind == "sparse":
        runs: list[Run] = []
        for at in range(0, len(content), 2 * cluster):
            piece = content[at : at + 2 * cluster]
            count = volume.clusters_of(len(piece))
            runs += volume.store(piece) if piece.strip(b"\0") else [(None, count)]
        attribute = Attribute(DATA, runs=runs, size=len(content), flags=SPARSE)
    else:
        runs = volume.store(content, numbers.randrange(1, 9))
        attribute = Attribute(DATA, runs=runs, size=len(content))
    if numbers.random() < 0.4:
        attribute.valid = numbers.randrange(len(content))
        content = content[: attribute.valid].ljust(len(content), b"\0")
    return attribute, content


@pytest.mark.parametrize("seed", range(6))
async def test_any_volume(seed: int, tmp_path: Path) -> None:
    numbers = random.Random(seed)
    cluster = (512, 1024, 4096, 65_536, 2048, 4096)[seed]
    volume = Volume(cluster=cluster, mft_runs=[32 * 1024 // cluster or 1, 7])  # records are split
    expected: dict[bytes, bytes | None] = {}
    streams = {}
    for number in range(25):
        name = f"file {number}"
        attribute, content = any_content(volume, numbers)
        parts = split(volume, attribute, numbers, 1)
        stream, value = any_content(volume, numbers)
        stream.name = "stream"
        parts += split(volume, stream, numbers, max(part.record for part in parts) + 1)
        dos = A_COMPRESSED if attribute.flags & COMPRESSED else A_SPARSE
        volume.file(name, *parts, list_outside=numbers.random() < 0.5, dos_attributes=dos)
        expected[name.encode()] = content
        streams[name] = value
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
        for name, value in streams.items():
            assert await found.content(f"{name}:stream") == value
        for name, content in [
            (name.decode(), content or b"") for name, content in expected.items()
        ]:
            inode = await found.find(name)
            for _ in range(20):
                start = numbers.randrange(len(content))
                part = content[start : start + numbers.randrange(1, 30_000)]
                assert await found.content_of(inode, start, len(part)) == part
    assert_others_agree(tmp_path / "built.img", expected, libfsntfs=False)


LETTERS = "abcABC\u00e9\u00c9\u00df\u017f_~\u03a3\u03c3\u03c2\udc80\U0001f600\u65e5"
"""With and without upper case, with two lower-case forms, above U+FFFF, and half of such."""


def folded(volume: Volume, name: str) -> tuple[int, ...]:
    """Return what is equal for names that are equal but for case."""
    units = struct.unpack(f"<{len(utf16(name)) // 2}H", utf16(name))
    return tuple(volume.upcase[unit] for unit in units)


@pytest.mark.parametrize("seed", range(8))
async def test_any_folder(seed: int, tmp_path: Path) -> None:
    """Trees of one to many levels: every name is listed and found, and so is one in other case
    where it can only mean that one file."""
    numbers = random.Random(seed)
    volume = Volume(cluster=(512, 1024, 4096, 65_536)[seed % 4], index=(1024, 4096)[seed % 2])
    leaf_entries = (1, 2, 3, 7, 1 << 30)[seed % 5]
    folder = volume.folder("folder", leaf_entries=leaf_entries, index_pieces=1 + seed % 3)
    names: set[str] = set()
    while len(names) < (400, 30)[seed % 2]:
        names.add("".join(numbers.choices(LETTERS, k=numbers.choice((1, 2, 3, 4, 30)))))
    for name in names:
        volume.resident(name, name.encode("utf-8", "surrogatepass")[:200], parent=folder)
    alike = defaultdict(list)
    for name in names:
        alike[folded(volume, name)].append(name)
    async with built(volume, tmp_path) as found:
        entries = await found.entries("folder")
        assert set(entries) == {encoded(name) for name in names}
        inode = await found.find("folder")
        for name in names:
            assert await found.fs.lookup(inode, encoded(name)) == entries[encoded(name)].inode
            other = name.swapcase()
            if other in names:
                continue
            meant = alike.get(folded(volume, other), [])
            if len(meant) == 1:
                expected = entries[encoded(meant[0])].inode
                assert await found.fs.lookup(inode, encoded(other)) == expected
            else:
                with pytest.raises(NotFoundError):
                    await found.fs.lookup(inode, encoded(other))
    with ntfs_3g(tmp_path / "built.img") as root:
        assert set(os.listdir(root + b"/folder")) == set(entries)  # noqa: PTH208


# Names


async def test_names_that_differ_only_in_case(tmp_path: Path) -> None:
    volume = Volume()
    for name in ("readme", "README", "ReadMe", "Only One"):
        volume.resident(name, name.encode())
    async with built(volume, tmp_path) as found:
        assert await found.names() == {b"readme", b"README", b"ReadMe", b"Only One"}
        for name in (b"readme", b"README", b"ReadMe"):
            assert await found.content(name) == name
        with pytest.raises(NotFoundError):
            await found.find("rEADmE")
        assert await found.content("only one") == b"Only One"
        assert await found.content("ONLY ONE") == b"Only One"
    assert_others_agree(
        tmp_path / "built.img",
        {name: name for name in (b"readme", b"README", b"ReadMe", b"Only One")},
    )


async def test_names_that_differ_only_in_case_in_a_large_folder(tmp_path: Path) -> None:
    volume = Volume()
    many = volume.folder("many", leaf_entries=3)
    names = [f"{letter}{number:02d}" for number in range(20) for letter in ("Ab", "aB", "AB")]
    for name in names:
        volume.resident(name, name.encode(), parent=many)
    async with built(volume, tmp_path) as found:
        assert await found.names("many") == {name.encode() for name in names}
        for name in names:
            assert await found.content(f"many/{name}") == name.encode()
            with pytest.raises(NotFoundError):
                await found.find(f"many/{name.lower()}")


async def test_the_volumes_own_table_decides_about_case(tmp_path: Path) -> None:
    table = unicode_upcase()
    table[ord("q")] = ord("q")  # As no Windows has it.
    table[ord("!")] = ord("?")
    volume = Volume(upcase=table)
    for name in ("quick", "Bang?"):
        volume.resident(name, name.encode())
    async with built(volume, tmp_path) as found:
        assert await found.content("qUICK") == b"quick"
        with pytest.raises(NotFoundError):
            await found.find("QUICK")
        assert await found.content("bang!") == b"Bang?"


async def test_short_names_are_not_listed_but_resolve(tmp_path: Path) -> None:
    volume = Volume()
    file = volume.file("Long File Name.txt", Attribute(DATA, value=b"content"), namespace=WIN32)
    volume.link(file, "LONGFI~1.TXT", volume.root, DOS)
    folder = volume.folder("Program Files", namespace=WIN32)
    volume.link(folder, "PROGRA~1", volume.root, DOS)
    volume.resident("in it", b"inner", parent=folder)
    both = volume.file("SHORT.TXT", Attribute(DATA, value=b"both"), namespace=WIN32_AND_DOS)
    volume.link(both, "another link", volume.root, WIN32)
    async with built(volume, tmp_path) as found:
        shown = {b"Long File Name.txt", b"Program Files", b"SHORT.TXT", b"another link"}
        entries = await found.entries()
        assert set(entries) == shown
        for name, links in ((b"Long File Name.txt", 1), (b"SHORT.TXT", 2)):
            attributes = entries[name].attributes
            assert attributes is not None
            assert attributes.nlink == links
        for name in ("LONGFI~1.TXT", "longfi~1.txt", "long file name.TXT"):
            assert await found.find(name) == await found.find("Long File Name.txt")
        assert await found.content("PROGRA~1/in it") == b"inner"
        assert await found.content("progra~1/IN IT") == b"inner"
    expected: dict[bytes, bytes | None] = {
        b"Long File Name.txt": b"content",
        b"Program Files": None,
        b"Program Files/in it": b"inner",
        b"SHORT.TXT": b"both",
        b"another link": b"both",
    }
    assert_others_agree(tmp_path / "built.img", expected)


async def test_system_files_are_hidden_in_the_root_only(tmp_path: Path) -> None:
    volume = Volume()
    volume.resident("$mine", b"a user's file may begin with a dollar")
    folder = volume.folder("folder")
    volume.resident("$MFT", b"not the one", parent=folder)
    image = volume.write(tmp_path / "built.img")
    async with opened(image) as found:
        assert await found.names() == {b"$mine", b"folder"}
        assert await found.names("folder") == {b"$MFT"}
    async with opened(image, GuestOptions(show_system_files=True)) as found:
        assert {b"$MFT", b"$MFTMirr", b"$Secure", b"$Extend", b"$UpCase"} < await found.names()
        assert len(await found.content("$UpCase")) == 131_072


# Links and other reparse points


def resolved(link: str, target: bytes) -> str:
    """Return where a link leads, as a path from the root of the mount."""
    path = os.path.normpath(PurePosixPath("/", link).parent / os.fsdecode(target))
    return path.lstrip("/")


@pytest.mark.parametrize(("drive", "windows"), [("C", True), ("c", True), ("D", False)])
async def test_symlinks_and_junctions_lead_to_the_same_place(
    drive: str, windows: bool, tmp_path: Path
) -> None:
    """A volume does not know its letter: with Windows on it, it is C, else it may be another."""
    volume = Volume()
    if windows:
        volume.folder("System32", volume.folder("Windows"))
    users = volume.folder("Users")
    someone = volume.folder("Someone", users)
    volume.resident("file.txt", b"there", parent=someone)
    below = volume.folder("below", volume.folder("links"))
    place = f"{drive}:\\Users\\Someone\\file.txt"
    files = {
        "relative": symlink("..\\..\\Users\\Someone\\file.txt", relative=True),
        "absolute": symlink(f"\\??\\{place}", place),
        "rooted": symlink("\\Users\\Someone\\file.txt", relative=True),
    }
    folders = {
        "junction": (junction(f"\\??\\{drive}:\\Users\\Someone"), "Users/Someone"),
        "slash": (junction(f"\\??\\{drive}:\\Users\\"), "Users"),
        "volume": (junction("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\Users"), "Users"),
    }
    shown = {
        "elsewhere": (junction("\\??\\Z:\\not here\\at all"), b"not here"),
        "missing": (junction(f"\\??\\{drive}:\\Users\\missing"), b"missing"),
        "other drive": (junction("\\??\\D:\\Users" if windows else "\\??\\C:\\Users"), b":\\Users"),
        "a volume": (junction("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\"), b"Volume{0"),
        "share": (symlink("\\??\\UNC\\server\\share\\file", "\\\\server\\share\\file"), b"server"),
    }
    for name, attribute in files.items():
        volume.file(name, attribute, Attribute(DATA, value=b""), parent=below,
                    dos_attributes=A_REPARSE)  # fmt: skip
    for name, (attribute, _) in [*folders.items(), *shown.items()]:
        volume.file(name, attribute, parent=below, entries=[], dos_attributes=A_REPARSE)
    async with built(volume, tmp_path) as found:
        targets = {}
        for entry in (await found.entries("links/below")).values():
            assert entry.attributes is not None
            assert stat.S_ISLNK(entry.attributes.mode), entry.name
            assert stat.S_ISLNK(entry.kind), entry.name
            targets[entry.name.decode()] = target = await found.fs.readlink(entry.inode)
            assert entry.attributes.size == len(target)
        for name in files:
            assert resolved(f"links/below/{name}", targets[name]) == "Users/Someone/file.txt", name
        for name, (_, where) in folders.items():
            assert resolved(f"links/below/{name}", targets[name]) == where, name
        for name, (_, part) in shown.items():
            assert part in targets[name], name
            assert not targets[name].startswith(b"."), name
    with ntfs_3g(tmp_path / "built.img") as root:
        for name in files:
            if name != "absolute" or drive.upper() == "C":
                with open(root + b"/links/below/" + name.encode(), "rb") as file:
                    assert file.read() == b"there"


async def test_what_wsl_makes(tmp_path: Path) -> None:
    volume = Volume()
    made = {
        "symlink": (reparse(0xA000001D, b"\2\0\0\0/etc/h\xc3\xa4?"), stat.S_IFLNK, 0),
        "socket": (reparse(0x80000023, b""), stat.S_IFSOCK, 0),
        "fifo": (reparse(0x80000024, b""), stat.S_IFIFO, 0),
        "char": (reparse(0x80000025, b""), stat.S_IFCHR, os.makedev(1, 3)),
        "block": (reparse(0x80000026, b""), stat.S_IFBLK, os.makedev(259, 1_000)),
    }
    for name, (attribute, kind, device) in made.items():
        extra = []
        if device:
            packed = os.major(device).to_bytes(4, "little") + os.minor(device).to_bytes(4, "little")
            extra = extended_attributes(
                {b"$LXUID": bytes(4), b"$LXMOD": (kind | 0o600).to_bytes(4, "little"),
                 b"$LXDEV": packed}
            )  # fmt: skip
        volume.file(name, attribute, Attribute(DATA, value=b""), *extra, dos_attributes=A_REPARSE)
    async with built(volume, tmp_path) as found:
        for name, entry in (await found.entries()).items():
            assert entry.attributes is not None
            _, kind, device = made[name.decode()]
            assert stat.S_IFMT(entry.attributes.mode) == kind, name
            assert entry.attributes.rdev == device, name
        assert await found.fs.readlink(await found.find("symlink")) == b"/etc/h\xc3\xa4?"


UNREAD = {
    "deduplicated": (0x80000013, "dedup"),
    "hsm": (0xC0000004, ""),
    "cloud": (0x9000001A, "cloud"),
    "cloud-1": (0x9000101A, "cloud"),
    "onedrive": (0x9000701A, "cloud"),
    "cloud-f": (0x9000F01A, "cloud"),
    "placeholder": (0x80000015, ""),
    "wof-wim": (0x80000017, "w(im|of)"),
    "azure-file-sync": (0x8000001E, ""),
    "projected": (0x9000001C, ""),
    "single-instance": (0x80000007, ""),
    "container": (0x80000018, ""),
    "container-1": (0x90001018, ""),
    "app-stream": (0xC0000014, ""),
    "archiver": (0x00000010, "0x10"),
}


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "sparse"])
@pytest.mark.parametrize("name", UNREAD)
async def test_content_that_is_elsewhere_is_never_zeros(
    name: str, offline: bool, tmp_path: Path
) -> None:
    """A filter of Windows' has the content, and whose tag it is nobody needs to know: all that is
    here is a hole."""
    tag, word = UNREAD[name]
    volume = Volume()
    data = b"\1\0\0\0\1\0\0\0" + bytes(40)  # as WOF has it: from a WIM file
    flags = A_REPARSE | A_SPARSE | (A_OFFLINE | A_RECALL_ON_DATA if offline else 0)
    sparse = Attribute(DATA, runs=[(None, 25)], size=100_000, flags=SPARSE)
    volume.file("file", reparse(tag, data), sparse, dos_attributes=flags)
    empty = Attribute(DATA, value=b"")
    volume.file("empty", reparse(tag, data), empty, dos_attributes=flags)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        entries = await found.entries()
        assert set(entries) == {b"file", b"empty", b"beside"}
        attributes = entries[b"file"].attributes
        assert attributes is not None
        assert stat.S_ISREG(attributes.mode)
        assert attributes.size == 100_000
        with pytest.raises(UnsupportedError, match=f"(?i){word}") as caught:
            await found.content("file")
        assert str(caught.value)
        with pytest.raises(UnsupportedError):
            await found.content_of(entries[b"file"].inode, 99_999, 1)
        assert await found.content("beside") == b"beside"


@pytest.mark.parametrize(
    ("tag", "recall", "word"),
    [
        (0x9000701A, 0, "cloud"),
        (0x9000001C, 0, "projected"),
        (0x00000010, A_RECALL_ON_DATA, "0x10"),
        (0, A_RECALL_ON_DATA, "recall"),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 300])
async def test_a_folder_of_the_cloud_is_listed_but_never_completely(
    tag: int, recall: int, word: str, count: int, tmp_path: Path
) -> None:
    """Files that nobody has opened yet may be missing in it, and nothing tells how many."""
    volume = Volume()
    folder = volume.file("OneDrive", entries=[], dos_attributes=recall | (A_REPARSE if tag else 0))
    if tag:
        folder.attributes.append(reparse(tag, bytes(16)))
    for number in range(count):
        volume.resident(f"local {number}", b"local", parent=folder)
    async with built(volume, tmp_path) as found:
        inode = await found.find("OneDrive")
        seen: set[bytes] = set()
        cookie = 0
        for _ in range(2 * count):
            listing = await found.fs.readdir(inode, cookie)
            assert listing.entries
            assert not listing.complete
            seen |= {entry.name for entry in listing.entries}
            cookie = listing.entries[-1].cookie
            if len(seen) == count:
                break
        with pytest.raises(UnsupportedError, match=f"(?i)not on the volume.*{word}"):
            await found.fs.readdir(inode, cookie)
        assert seen == {b"local %d" % number for number in range(count)}
        for name in seen:
            assert await found.content(b"OneDrive/" + name) == b"local"


async def test_a_folder_with_a_tag_that_keeps_nothing_elsewhere(tmp_path: Path) -> None:
    volume = Volume()
    folder = volume.file("folder", reparse(0x10, b""), entries=[], dos_attributes=A_REPARSE)
    volume.resident("local", b"local", parent=folder)
    async with built(volume, tmp_path) as found:
        assert await found.names("folder") == {b"local"}


@pytest.mark.parametrize("resident", [False, True])
async def test_an_encrypted_file(resident: bool, tmp_path: Path) -> None:
    volume = Volume()
    content = NOISE[:2000] if not resident else NOISE[:100]
    data = (
        Attribute(DATA, value=content, flags=ENCRYPTED)
        if resident
        else Attribute(DATA, runs=volume.store(content), size=2000, flags=ENCRYPTED)
    )
    key = Attribute(LOGGED_UTILITY_STREAM, "$EFS", NOISE[:200])
    volume.file("secret", data, key, dos_attributes=A_ENCRYPTED)
    plain = Attribute(DATA, value=b"plain")
    hidden = Attribute(DATA, "hidden", runs=volume.store(NOISE[:600]), size=600, flags=ENCRYPTED)
    volume.file("beside", plain, hidden, dos_attributes=A_ENCRYPTED)
    async with built(volume, tmp_path) as found:
        assert await found.names() == {b"secret", b"beside"}
        inode = await found.find("secret")
        assert (await found.fs.attributes(inode)).size == len(content)
        with pytest.raises(UnsupportedError, match=r"(?i)encrypt"):
            await found.content("secret")
        assert await found.content("beside") == b"plain"
        assert NOISE[:600] not in (await found.fs.xattrs(await found.find("beside"))).values()


@pytest.mark.parametrize("resident", [False, True])
async def test_the_streams_of_an_encrypted_file(resident: bool, tmp_path: Path) -> None:
    """The keys are for all streams of a file, also for one without the flag."""
    volume = Volume()
    secret = NOISE[:300]
    stream = (
        Attribute(DATA, "hidden", value=secret)
        if resident
        else Attribute(DATA, "hidden", runs=volume.store(secret), size=len(secret))
    )
    key = Attribute(LOGGED_UTILITY_STREAM, "$EFS", NOISE[1000:1200])
    empty = [Attribute(DATA, value=b""), Attribute(DATA, "empty", value=b"")]
    volume.file("file", *empty, stream, key, dos_attributes=A_ENCRYPTED)
    async with built(volume, tmp_path) as found:
        with pytest.raises(UnsupportedError, match="EFS"):
            await found.content("file:hidden")
        assert await found.content("file:empty") == b""
        xattrs = await found.fs.xattrs(await found.find("file"))
        assert b"user.hidden" not in xattrs
        assert xattrs[b"user.empty"] == b""


# What a volume says of itself


@pytest.mark.parametrize("flags", [0, 1])
async def test_a_dirty_volume(flags: int, tmp_path: Path) -> None:
    volume = Volume(flags=flags)
    volume.resident("file", b"content")
    async with built(volume, tmp_path) as found:
        identity = found.fs.identity
        assert identity.clean is (not flags)
        assert any("dirty" in note.lower() for note in identity.notes) is bool(flags)
        assert await found.content("file") == b"content"


@pytest.mark.parametrize(
    ("header", "live"),
    [(b"hibr", True), (b"HIBR", True), (b"wake", False), (b"WAKE", False), (bytes(4), False)],
)
@pytest.mark.parametrize("resident", [False, True])
async def test_a_hibernated_volume(
    header: bytes, live: bool, resident: bool, tmp_path: Path
) -> None:
    volume = Volume()
    content = header + bytes(10_000 if not resident else 100)
    (volume.resident if resident else volume.outside)("hiberfil.sys", content)
    async with built(volume, tmp_path) as found:
        notes = " ".join(found.fs.identity.notes).lower()
        assert ("hibernat" in notes) is live
        assert await found.content("HIBERFIL.SYS") == content


async def test_an_object_id(tmp_path: Path) -> None:
    volume = Volume()
    volume.file("file", Attribute(DATA, value=b""), Attribute(OBJECT_ID, value=bytes(range(64))))
    async with built(volume, tmp_path) as found:
        values = (await found.fs.xattrs(await found.find("file"))).values()
        assert any(value[:16] == bytes(range(16)) for value in values)
