"""The wrong answers that other readers gave for NTFS volumes, each a case of its own.

DESIGN section 8 lists them under "NTFS". The volumes are built byte by byte, with what is left on
a used disk wherever the format says that it does not count: so a wrong answer is seen as one.
Damage and what must not be believed of a record come behind.
"""

import errno
import os
import random
import stat
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from restorefs.errors import DamagedError, NotFoundError, RestoreError, UnsupportedError
from tests.images.ntfs_bytes import (
    A_COMPRESSED,
    A_REPARSE,
    A_SPARSE,
    COMPRESSED,
    DATA,
    SPARSE,
    Attribute,
    File,
    Name,
    Run,
    Volume,
    compressed,
    extended_attributes,
    junction,
    lznt1,
    mapping_pairs,
    reparse,
)
from tests.images.wim import METHODS, wof_compressed
from tests.listing import listings
from tests.real.ntfs_built import Built, assert_others_agree, built, encoded, ntfs_3g, opened

NUMBERS = random.Random(5)
NOISE = NUMBERS.randbytes(400_000)
STALE = b"\xee"  # what Volume.store() leaves behind a file's end


# Stale index entries: 154 names listed for 5 files


def old_entries(volume: Volume, folder: File, count: int) -> list[tuple[bytes, int]]:
    """Return index entries of files that are gone, some of their records used by others now."""
    ghost = File(900)
    return [
        (ghost.key(Name(folder.reference, f"stale {number:03d}")), number % 40 | 7 << 48)
        for number in range(count)
    ]


@pytest.mark.parametrize("cluster", [512, 4096, 65_536])
async def test_stale_index_blocks_are_not_listed(cluster: int, tmp_path: Path) -> None:
    """The 5 files fit into the root again; the blocks of better days are still there."""
    volume = Volume(cluster=cluster)
    folder = volume.folder("folder")
    old = old_entries(volume, folder, 154)
    folder.stale_blocks = [old[at : at + 22] for at in range(0, 154, 22)]
    expected: dict[bytes, bytes | None] = {b"folder": None}
    for number in range(5):
        volume.resident(f"f{number}", b"%d" % number, parent=folder)
        expected[b"folder/f%d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
        for name in ("stale 000", "stale 001", "stale 153", "STALE 077"):
            with pytest.raises(NotFoundError):
                await found.find(f"folder/{name}")
    assert_others_agree(tmp_path / "built.img", expected)


@pytest.mark.parametrize("cluster", [512, 4096, 65_536])
async def test_stale_index_blocks_beside_live_ones(cluster: int, tmp_path: Path) -> None:
    volume = Volume(cluster=cluster)
    folder = volume.folder("folder", leaf_entries=2)
    old = old_entries(volume, folder, 154)
    folder.stale_blocks = [old[at : at + 22] for at in range(0, 154, 22)]
    expected: dict[bytes, bytes | None] = {b"folder": None}
    for number in range(5):
        volume.resident(f"f{number}", b"%d" % number, parent=folder)
        expected[b"folder/f%d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
        with pytest.raises(NotFoundError):
            await found.find("folder/stale 000")
    assert_others_agree(tmp_path / "built.img", expected, libfsntfs=cluster <= 4096)


async def test_stale_entries_behind_the_end_marker(tmp_path: Path) -> None:
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=2)
    folder.stale_behind = old_entries(volume, folder, 20)
    expected: dict[bytes, bytes | None] = {b"folder": None}
    for number in range(5):
        volume.resident(f"f{number}", b"%d" % number, parent=folder)
        expected[b"folder/f%d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        assert await found.tree() == expected
        with pytest.raises(NotFoundError):
            await found.find("folder/stale 003")
    image = (tmp_path / "built.img").read_bytes()
    assert "stale 019".encode("utf-16-le") in image
    assert_others_agree(tmp_path / "built.img", expected)


@pytest.mark.parametrize("leaf_entries", [2, 1 << 30], ids=["blocks", "root"])
async def test_stale_index_blocks_that_the_tree_does_not_lead_to(
    leaf_entries: int, tmp_path: Path
) -> None:
    """The bitmap calls them used, as on a volume whose journal was not replayed. Windows goes by
    the tree, and so does libfsntfs; ntfs-3g lists them."""
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=leaf_entries, in_use=True)
    old = old_entries(volume, folder, 154)
    folder.stale_blocks = [old[at : at + 22] for at in range(0, 154, 22)]
    expected: dict[bytes, bytes | None] = {b"folder": None}
    for number in range(5):
        volume.resident(f"f{number}", b"%d" % number, parent=folder)
        expected[b"folder/f%d" % number] = b"%d" % number
    async with built(volume, tmp_path) as found:
        names = await found.names("folder")
        assert names == {b"f0", b"f1", b"f2", b"f3", b"f4"}
        assert await found.tree() == expected
    assert_others_agree(tmp_path / "built.img", expected, ntfs3g=False)


# Bytes past ValidDataLength returned as stale disk content


@pytest.mark.parametrize("valid", [0, 1, 511, 4096, 5000, 8192, 12_287, 12_288])
async def test_bytes_past_the_valid_data_length_are_zeros(valid: int, tmp_path: Path) -> None:
    volume = Volume()
    size = 12_288
    runs = volume.store(NOISE[:size], pieces=3)
    volume.file("file", Attribute(DATA, runs=runs, size=size, valid=valid))
    volume.outside("beside", NOISE[:5000])
    expected = NOISE[:valid].ljust(size, b"\0")
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == expected
        inode = await found.find("file")
        for start, end in ((0, 1), (valid - 2, valid + 2), (size - 1, size), (4000, 9000)):
            start, end = max(start, 0), min(end, size)
            assert await found.content_of(inode, start, end - start) == expected[start:end]
        assert await found.content("beside") == NOISE[:5000]
    image = (tmp_path / "built.img").read_bytes()
    assert NOISE[:4096] in image
    assert NOISE[8192:size] in image
    assert_others_agree(tmp_path / "built.img", {b"file": expected, b"beside": NOISE[:5000]})


@pytest.mark.parametrize("valid", [0, 100, 65_536, 70_000, 131_072 + 4096, 200_000])
async def test_bytes_past_the_valid_data_length_of_a_compressed_file(
    valid: int, tmp_path: Path
) -> None:
    volume = Volume()
    content = b"a" * 65_536 + NOISE[:65_536] + b"b" * 68_928
    data = compressed(volume, content)
    data.valid = valid
    volume.file("file", data, dos_attributes=A_COMPRESSED)
    expected = content[:valid].ljust(len(content), b"\0")
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == expected
        inode = await found.find("file")
        if 2 < valid < len(content):
            assert (
                await found.content_of(inode, valid - 2, 4) == content[valid - 2 : valid] + b"\0\0"
            )
    # libfsntfs does not honour a length of 0 here.
    assert_others_agree(tmp_path / "built.img", {b"file": expected}, libfsntfs=valid > 0)


async def test_valid_data_length_of_a_stream_and_of_a_sparse_file(tmp_path: Path) -> None:
    volume = Volume()
    stream = Attribute(DATA, "s", runs=volume.store(NOISE[:600]), size=600, valid=10)
    runs: list[Run] = [(None, 1), *volume.store(NOISE[:8192]), (None, 1)]
    sparse = Attribute(DATA, runs=runs, size=16_384, valid=6000, flags=SPARSE)
    volume.file("file", sparse, stream, dos_attributes=A_SPARSE)
    async with built(volume, tmp_path) as found:
        expected = (bytes(4096) + NOISE[:1904]).ljust(16_384, b"\0")
        assert await found.content("file") == expected
        xattrs = await found.fs.xattrs(await found.find("file"))
        assert xattrs[b"user.s"] == NOISE[:10].ljust(600, b"\0")
    assert_others_agree(tmp_path / "built.img", {b"file": expected})


# LZNT1 tail returned raw


LZNT1_CASES = {
    "one byte": b"x",
    "a short tail": b"a" * 65_536 + b"b" * 5000,
    "a tail of noise": b"a" * 65_536 + NOISE[:3000],
    "a tail of noise in a unit that shrinks": b"a" * 65_536 + b"c" * 20_000 + NOISE[:1234],
    "a stored unit": b"a" * 65_536 + NOISE[:65_536] + b"d" * 10,
    "a stored last unit": b"a" * 65_536 + NOISE[:65_536],
    "a stored last unit, cut": b"a" * 65_536 + NOISE[:65_000],
    "zeros between": b"a" * 65_536 + bytes(131_072) + b"e" * 4097,
    "zeros at the end": b"a" * 65_536 + bytes(70_000),
}
SHORT_STORED_CHUNK = {
    "one byte",
    "a tail of noise",
    "a tail of noise in a unit that shrinks",
    "zeros between",
}


@pytest.mark.parametrize("short", [False, True], ids=["whole-chunk", "short-chunk"])
@pytest.mark.parametrize("name", LZNT1_CASES)
async def test_an_lznt1_tail_is_decoded(name: str, short: bool, tmp_path: Path) -> None:
    content = LZNT1_CASES[name]
    volume = Volume()
    data = compressed(volume, content, short_chunk=short)
    volume.file("file", data, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
        inode = await found.find("file")
        for start in (0, 4095, 65_535, len(content) - 1):
            if part := content[start : start + 5000]:
                assert await found.content_of(inode, start, len(part)) == part
    # MS-XCA allows a stored chunk of less than 4 KiB; ntfs-3g does not take it.
    assert_others_agree(
        tmp_path / "built.img",
        {b"file": content},
        ntfs3g=not short or name not in SHORT_STORED_CHUNK,
    )


@pytest.mark.parametrize("name", LZNT1_CASES)
async def test_an_lznt1_tail_without_its_hole_is_never_raw(name: str, tmp_path: Path) -> None:
    """Windows allocates whole units; ntfs-3g and libfsntfs have an error for less, and The Sleuth
    Kit the raw bytes."""
    content = LZNT1_CASES[name]
    volume = Volume()
    data = compressed(volume, content, padded_end=False)
    volume.file("file", data, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        with suppress(DamagedError):
            assert await found.content("file") == content


@pytest.mark.parametrize("cluster", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("unit", [3, 4])
async def test_lznt1_units_of_other_sizes(cluster: int, unit: int, tmp_path: Path) -> None:
    volume = Volume(cluster=cluster)
    content = b"".join(
        (bytes([number]) * 4096, NOISE[: 4096 * (number % 3)], bytes(8192))[number % 3]
        for number in range(60)
    )[:-1000]
    volume.file("file", compressed(volume, content, unit), dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        if unit == 4:
            assert await found.content("file") == content
        else:  # The attribute says it, but Windows knows one size only: it may be refused.
            with suppress(UnsupportedError):
                assert await found.content("file") == content
    if unit == 4:
        assert_others_agree(tmp_path / "built.img", {b"file": content})


async def test_pieces_of_an_lznt1_unit_are_read_once(tmp_path: Path) -> None:
    """By whoever asks for a page at a time, in any order, and across the ends of units."""
    volume = Volume()
    content = b"".join(bytes([number]) * 4096 for number in range(64))
    volume.file("file", compressed(volume, content), dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        inode = await found.find("file")
        await found.content_of(inode, 5 * 4096, 4096)
        before = found.device.reads
        for page in (7, 0, 15, 5):
            assert await found.content_of(inode, page * 4096, 4096) == bytes([page]) * 4096
        assert found.device.reads == before
        across = await found.content_of(inode, 15 * 4096, 34 * 4096)
        assert across == content[15 * 4096 : 49 * 4096]
        before = found.device.reads
        assert await found.content_of(inode, 49 * 4096, 4096) == content[49 * 4096 :][:4096]
        assert found.device.reads == before, "the last unit was cut"
        assert await found.content_of(inode, 0, len(content)) == content


async def test_a_compressed_file_that_does_not_say_the_size_of_its_units(tmp_path: Path) -> None:
    """Seen on Windows XP, says libfsntfs' documentation: units have 16 clusters then. An error will
    do as well, but not the bytes as they are stored."""
    volume = Volume()
    content = b"a" * 65_536 + b"b" * 5000
    data = compressed(volume, content)
    data.unit = 0
    volume.file("file", data, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        with suppress(DamagedError, UnsupportedError):
            assert await found.content("file") == content
    assert_others_agree(tmp_path / "built.img", {b"file": content}, ntfs3g=False)


async def test_a_sparse_file_with_units_is_not_compressed(tmp_path: Path) -> None:
    """The unit of 16 clusters alone, as Windows gives it to sparse files, compresses nothing."""
    volume = Volume()
    content = bytes(3 * 4096) + NOISE[:30_000]
    runs: list[Run] = [(None, 3), *volume.store(NOISE[:30_000]), (None, 5)]
    data = Attribute(DATA, runs=runs, size=len(content), flags=SPARSE, unit=4)
    volume.file("file", data, dos_attributes=A_SPARSE)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
    assert_others_agree(tmp_path / "built.img", {b"file": content})


async def test_a_compressed_unit_whose_data_lies_in_several_runs(tmp_path: Path) -> None:
    volume = Volume()
    content = b"z" * 4096 + NOISE[:40_000] + b"y" * 21_440
    packed = lznt1(content)
    runs = volume.store(packed, pieces=5, fill=b"\0")
    runs.append((None, 16 - sum(count for _, count in runs)))
    data = Attribute(DATA, runs=runs, size=len(content), flags=COMPRESSED, unit=4)
    volume.file("file", data, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
    assert_others_agree(tmp_path / "built.img", {b"file": content})


async def test_compressed_units_over_several_records(tmp_path: Path) -> None:
    """The run that ends a unit is in another FILE record than the one that begins it."""
    volume = Volume()
    content = b"z" * 4096 + NOISE[:40_000] + b"y" * 100_000
    whole = compressed(volume, content)
    first, second = list(whole.runs[:1]), list(whole.runs[1:])
    size = len(content)
    parts = [
        Attribute(DATA, runs=first, size=size, allocated=3 * 65_536, flags=COMPRESSED, unit=4),
        Attribute(DATA, runs=second, lowest=first[0][1], flags=COMPRESSED, unit=4, record=1),
    ]
    volume.file("file", *parts, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content
    assert_others_agree(tmp_path / "built.img", {b"file": content})


async def test_damaged_lznt1_is_an_error_and_no_wrong_byte(tmp_path: Path) -> None:
    volume = Volume()
    content = b"a" * 65_536 + NOISE[:65_536]
    for name, broken in (
        ("reaching back before the chunk", b"\x03\xb0\x01\xff\xff\x00\x00"),
        ("cut", b"\xff\xbf" + b"\x00" * 100),
    ):
        runs = [*volume.store(broken, fill=b"\0"), (None, 15), *volume.store(NOISE[:65_536])]
        data = Attribute(DATA, runs=runs, size=len(content), flags=COMPRESSED, unit=4)
        volume.file(name, data, dos_attributes=A_COMPRESSED)
    async with built(volume, tmp_path) as found:
        for name in await found.names():
            inode = await found.find(name)
            if name == b"reaching back before the chunk":
                with pytest.raises(DamagedError):
                    await found.content_of(inode, 0, 65_536)
            assert await found.content_of(inode, 65_536, 65_536) == NOISE[:65_536]


# WOF ("CompactOS") files as zeros


def wof(
    volume: Volume, name: str, content: bytes, method: str, packed: bytes, **how: object
) -> File:
    """Add a file as compact.exe /exe leaves it: the content's stream empty, the data elsewhere."""
    number, _, _ = METHODS[method]
    clusters = volume.clusters_of(len(content))
    runs: list[Run] = [(None, clusters)] if clusters else []
    pieces = int(how.get("pieces", 1))  # type: ignore[call-overload]
    if how.get("resident"):
        stream = Attribute(DATA, "WofCompressedData", packed)
    else:
        held = volume.store(packed, pieces)
        stream = Attribute(DATA, "WofCompressedData", runs=held, size=len(packed))
    return volume.file(
        name,
        Attribute(DATA, runs=runs, size=len(content), valid=0, flags=SPARSE),
        stream,
        reparse(0x80000017, struct.pack("<4I", 1, 2, 1, number)),
        dos_attributes=A_REPARSE | A_SPARSE,
    )


def program_like(size: int) -> bytes:
    """Return bytes that compress as programs do: words, calls (E8) and some noise."""
    numbers = random.Random(size)
    words = [numbers.randbytes(numbers.randint(2, 12)) for _ in range(300)]
    result = bytearray()
    while len(result) < size:
        result += numbers.choice(words)
        if numbers.random() < 0.1:
            result += b"\xe8" + struct.pack("<i", numbers.randrange(-5000, 5000))
        if numbers.random() < 0.01:
            result += bytes(numbers.randrange(200))
    return bytes(result[:size])


@pytest.mark.parametrize("method", METHODS)
async def test_wof_files_are_decoded(method: str, tmp_path: Path) -> None:
    chunk = METHODS[method][2]
    volume = Volume()
    expected = {}
    contents = [
        b"small, " * 60,
        program_like(chunk),
        program_like(chunk + 1),
        program_like(3 * chunk - 1),
        program_like(500_000),
        program_like(2 * chunk) + NOISE[: 2 * chunk] + program_like(100),  # stored chunks
        b"\0" * 200_000,
        program_like(chunk) + NOISE[:777],  # a stored tail
    ]
    for number, content in enumerate(contents):
        name = f"file {number}"
        packed = wof_compressed(content, method)
        wof(
            volume, name, content, method, packed, pieces=1 + number % 3, resident=len(packed) < 400
        )
        expected[name] = content
    async with built(volume, tmp_path) as found:
        for name, content in expected.items():
            inode = await found.find(name)
            attributes = await found.fs.attributes(inode)
            assert stat.S_ISREG(attributes.mode)
            assert attributes.size == len(content)
            assert await found.content(name) == content, name
            for start in (0, chunk - 3, chunk, len(content) - 1, len(content) // 2):
                part = content[start : start + 5000]
                if part:
                    assert await found.content_of(inode, start, len(part)) == part
    # libfsntfs undoes LZX's translation of calls also in the last ten bytes of a chunk.
    if method != "LZX":
        others = {name.encode(): content for name, content in expected.items()}
        assert_others_agree(tmp_path / "built.img", others, ntfs3g=False)


@pytest.mark.parametrize("method", METHODS)
async def test_wof_chunks_that_are_all_stored(method: str, tmp_path: Path) -> None:
    """Made without any encoder: a chunk that did not shrink is stored as it is."""
    _, _, chunk = METHODS[method]
    content = NOISE[: 5 * chunk + 100]
    table = b"".join(struct.pack("<I", at) for at in range(chunk, len(content), chunk))
    volume = Volume()
    wof(volume, "file", content, method, table + content)
    async with built(volume, tmp_path) as found:
        assert await found.content("file") == content


async def test_a_wof_file_over_4_gib(tmp_path: Path) -> None:
    """Its table has 64-bit entries."""
    two = wof_compressed(bytes(65_536), "LZX")
    (first,) = struct.unpack_from("<I", two)
    zeros, count = two[4 + first :], 1 << 17
    table = struct.pack(f"<{count}Q", *(len(zeros) * number for number in range(1, count + 1)))
    volume = Volume()
    size = (4 << 30) + 5
    stored = volume.store(table + zeros * count + b"tail!")
    volume.file(
        "file",
        Attribute(DATA, runs=[(None, size // 4096 + 1)], size=size, valid=0, flags=SPARSE),
        Attribute(DATA, "WofCompressedData", runs=stored, size=8 * count + len(zeros) * count + 5),
        reparse(0x80000017, struct.pack("<4I", 1, 2, 1, 1)),
        dos_attributes=A_REPARSE | A_SPARSE,
    )
    async with built(volume, tmp_path) as found:
        inode = await found.find("file")
        assert (await found.fs.attributes(inode)).size == size
        assert await found.content_of(inode, size - 8, 8) == bytes(3) + b"tail!"
        assert await found.content_of(inode, 1 << 31, 100_000) == bytes(100_000)


async def test_wof_that_is_not_understood_is_said_so(tmp_path: Path) -> None:
    volume = Volume()
    data = Attribute(DATA, runs=[(None, 3)], size=10_000, valid=0, flags=SPARSE)
    packed = Attribute(DATA, "WofCompressedData", NOISE[:300])
    for name, fields in (
        ("method 9", (1, 2, 1, 9)),
        ("file provider version 7", (1, 2, 7, 0)),
        ("provider 5", (1, 5, 1, 0)),
        ("version 3", (3, 2, 1, 0)),
    ):
        tag = reparse(0x80000017, struct.pack("<4I", *fields))
        volume.file(name, data, packed, tag, dos_attributes=A_REPARSE | A_SPARSE)
    for name, tag in (("without a method", struct.pack("<2I", 1, 2)), ("empty", b"")):
        volume.file(name, data, packed, reparse(0x80000017, tag), dos_attributes=A_REPARSE)
    tag = reparse(0x80000017, struct.pack("<4I", 1, 2, 1, 0))
    volume.file("without a stream", data, tag, dos_attributes=A_REPARSE | A_SPARSE)
    async with built(volume, tmp_path) as found:
        assert len(await found.names()) == 7
        for name in await found.names():
            with pytest.raises((UnsupportedError, DamagedError)):
                await found.content(name)


@pytest.mark.parametrize("method", METHODS)
async def test_a_damaged_wof_stream_is_an_error(method: str, tmp_path: Path) -> None:
    content = program_like(200_000)
    packed = wof_compressed(content, method)
    volume = Volume()
    wof(volume, "cut", content, method, packed[: len(packed) // 2])
    table = bytearray(packed)
    table[4:8] = b"\xff\xff\xff\x7f"
    wof(volume, "table", content, method, bytes(table))
    wof(volume, "backwards", content, method, packed[4:8] + packed[:4] + packed[8:])
    async with built(volume, tmp_path) as found:
        for name in await found.names():
            with pytest.raises(DamagedError):
                await found.content(name)


# A lone surrogate in one name kills the listing


async def test_lone_surrogates_are_listed_and_found(tmp_path: Path) -> None:
    names = [
        "before",
        "low \udc80 one",
        "high \ud800",
        "\udfff",
        "pair \U0001f600",
        "swap \udc00\ud800",
        "z",
    ]
    volume = Volume()
    folder = volume.folder("folder \udce9")
    for name in names:
        volume.resident(name, b"content", parent=folder)
    volume.folder("System32", volume.folder("Windows"))
    volume.file("link", junction("\\??\\C:\\folder \udce9"), entries=[], dos_attributes=A_REPARSE)
    async with built(volume, tmp_path) as found:
        shown = await found.names(encoded("folder \udce9"))
        assert {name.decode("utf-8", "surrogatepass") for name in shown} == set(names)
        for name in shown:
            assert await found.content(encoded("folder \udce9") + b"/" + name) == b"content"
        assert await found.fs.readlink(await found.find("link")) == encoded("folder \udce9")
        assert await found.names() == {encoded("folder \udce9"), b"link", b"Windows"}
    # A link is no folder in the expected tree; the others are asked for the names alone.
    with ntfs_3g(tmp_path / "built.img") as root:
        by_other = os.listdir(root + b"/" + encoded("folder \udce9"))  # noqa: PTH208
        assert set(by_other) == {encoded(name) for name in names}


# Junctions, WSL symlinks, dedup tags not seen: test_ntfs_built.py has all of them


async def test_a_junction_a_wsl_symlink_and_a_dedup_tag_are_seen(tmp_path: Path) -> None:
    volume = Volume()
    volume.folder("System32", volume.folder("Windows"))
    volume.folder("there")
    volume.file("junction", junction("\\??\\C:\\there"), entries=[], dos_attributes=A_REPARSE)
    volume.file("wsl", reparse(0xA000001D, b"\2\0\0\0there"), dos_attributes=A_REPARSE)
    hole = Attribute(DATA, runs=[(None, 9)], size=36_000, flags=SPARSE)
    volume.file("dedup", hole, reparse(0x80000013, bytes(100)), dos_attributes=A_REPARSE | A_SPARSE)
    async with built(volume, tmp_path) as found:
        for name in ("junction", "wsl"):
            inode = await found.find(name)
            assert stat.S_ISLNK((await found.fs.attributes(inode)).mode)
            assert await found.fs.readlink(inode) == b"there"
        with pytest.raises(UnsupportedError, match=r"(?i)dedup"):
            await found.content("dedup")


# What a record says of another one is not believed


async def never_the_others(found: Built, path: str, theirs: bytes) -> None:
    """Assert that a file is an error, or at most what it has itself: not another one's bytes."""
    with suppress(RestoreError):
        assert theirs[:100] not in await found.content(path)


@pytest.mark.parametrize("wrong", ["number", "sequence", "none", "list"])
async def test_an_extension_record_that_belongs_to_another_file(wrong: str, tmp_path: Path) -> None:
    volume = Volume()
    other = volume.resident("other", b"the other one")
    secret, own = NOISE[:8192], NOISE[20_000 : 20_000 + 8192]
    parts = [
        Attribute(DATA, runs=volume.store(own), size=16_384, allocated=16_384),
        Attribute(DATA, runs=volume.store(secret), lowest=2, record=1),
    ]
    file = volume.file("file", *parts)
    if wrong == "list":
        file.list_reference = lambda number: number | 9 << 48
    else:
        file.extension_base = {
            "number": other.reference,
            "sequence": file.number | 9 << 48,
            "none": 0,
        }[wrong]
    async with built(volume, tmp_path) as found:
        await never_the_others(found, "file", secret)
        with pytest.raises(DamagedError):
            await found.content_of(await found.find("file"), 8192, 8192)
        assert await found.content("other") == b"the other one"
        assert await found.names() == {b"file", b"other"}


async def test_an_extension_record_that_is_not_in_use(tmp_path: Path) -> None:
    volume = Volume()
    content = NOISE[:16_384]
    runs = volume.store(content, pieces=2)
    parts = [
        Attribute(DATA, runs=runs[:1], size=16_384, allocated=16_384),
        Attribute(DATA, runs=runs[1:], lowest=2, record=1),
    ]
    file = volume.file("file", *parts)
    volume.write(tmp_path / "first.img")
    again = Volume()
    again.file("file", *parts, number=file.number, extensions=[file.extensions[0]])
    again.store(content, pieces=2)
    again.raw_records[file.extensions[0]] = bytes(1024)
    async with built(again, tmp_path) as found:
        with pytest.raises(DamagedError):
            await found.content_of(await found.find("file"), 8192, 8192)


async def test_an_extension_record_is_no_file(tmp_path: Path) -> None:
    volume = Volume()
    parts = [
        Attribute(DATA, runs=volume.store(NOISE[:8192]), size=8192),
        Attribute(DATA, "stream", b"value", record=1),
    ]
    file = volume.file("file", *parts)
    assert volume.root.entries is not None
    async with built(volume, tmp_path) as found:
        base = await found.find("file")
        with pytest.raises((NotFoundError, DamagedError)):
            await found.fs.attributes(base - file.number + file.extensions[0])


async def test_sequence_numbers_that_do_not_match(tmp_path: Path) -> None:
    """The folder's entry is of a file that is gone; its record is another file's now."""
    volume = Volume()
    other = volume.resident("other", b"must not be read by another name", sequence=5)
    gone = File(other.number, sequence=4)
    key = gone.key(Name(volume.root.reference, "gone"))
    assert volume.root.entries is not None
    volume.root.entries.append((key, gone.reference))
    async with built(volume, tmp_path) as found:
        entries = await found.entries()
        assert b"other" in entries
        if b"gone" in entries:
            assert entries[b"gone"].attributes is None
            assert entries[b"gone"].inode != entries[b"other"].inode
        with pytest.raises((NotFoundError, DamagedError)):
            await found.content("gone")
        assert await found.content("other") == b"must not be read by another name"


async def test_an_entry_for_a_record_that_is_not_in_use(tmp_path: Path) -> None:
    volume = Volume()
    volume.resident("deleted", b"deleted content", flags=0)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        entries = await found.entries()
        if b"deleted" in entries:
            assert entries[b"deleted"].attributes is None
        with pytest.raises((NotFoundError, DamagedError)):
            await found.content("deleted")
        assert await found.content("beside") == b"beside"


async def test_what_an_index_says_of_sizes_and_times_is_not_believed(tmp_path: Path) -> None:
    """Windows updates the index lazily: the record decides."""
    volume = Volume()
    file = volume.outside("file", NOISE[:9000])
    lying = File(file.number, times=(1, 2, 3, 4), dos_attributes=A_REPARSE)
    lying.attributes.append(Attribute(DATA, value=b"shorter"))
    assert volume.root.entries is not None
    volume.root.entries[-1] = (lying.key(file.names[0]), file.reference)
    async with built(volume, tmp_path) as found:
        attributes = (await found.entries())[b"file"].attributes
        assert attributes is not None
        assert attributes.size == 9000
        assert attributes.mtime_ns > 0
        assert stat.S_ISREG(attributes.mode)
        assert await found.content("file") == NOISE[:9000]


@pytest.mark.parametrize(
    "device", [(0xFFFFFFFF, 0xFFFFFFFF), (1 << 31, 0), (0, 1 << 31), (1 << 12, 1 << 20), (1, 3)]
)
async def test_device_numbers_that_linux_does_not_have(
    device: tuple[int, int], tmp_path: Path
) -> None:
    """The kernel has 12 bits for the first and 20 for the second."""
    volume = Volume()
    eas = extended_attributes({b"$LXDEV": struct.pack("<II", *device)})
    volume.file("device", reparse(0x80000025, b""), *eas, dos_attributes=A_REPARSE)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        entries = await found.entries()
        assert set(entries) == {b"device", b"beside"}
        attributes = entries[b"device"].attributes
        if attributes is not None:
            assert stat.S_ISCHR(attributes.mode)
            assert attributes.rdev < 1 << 32
            assert (os.major(attributes.rdev), os.minor(attributes.rdev)) in (device, (0, 0))


def one_fixup_more(structure: bytearray) -> None:
    (count,) = struct.unpack_from("<H", structure, 6)
    struct.pack_into("<H", structure, 6, count + 1)


async def test_more_fixups_than_strides(tmp_path: Path) -> None:
    """Such there are, says libfsntfs' documentation of "The fix-up values"; an error will do, but
    not what ntfs-3g does: it leaves the fixups in the content."""
    volume = Volume()
    volume.resident("file", b"content" * 40, damage=one_fixup_more)
    folder = volume.folder("folder", leaf_entries=3)
    expected: dict[bytes, bytes | None] = {b"file": b"content" * 40, b"folder": None}
    for number in range(9):
        volume.resident(f"f{number}", b"%d" % number, parent=folder)
        expected[b"folder/f%d" % number] = b"%d" % number
    folder.damaged_blocks = {0: one_fixup_more}
    async with built(volume, tmp_path) as found:
        with suppress(DamagedError):
            assert await found.content("file") == b"content" * 40
        with suppress(DamagedError):
            assert await found.names("folder") == {b"f%d" % number for number in range(9)}
    assert_others_agree(tmp_path / "built.img", expected, ntfs3g=False)


@pytest.mark.parametrize("name", ["a/b", "nul\0l", ".", "..", "/"])
async def test_a_name_that_cannot_be_leads_to_no_other_file(name: str, tmp_path: Path) -> None:
    volume = Volume()
    volume.resident(name, b"of a name that cannot be")
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        assert await found.fs.lookup(found.fs.root, b"..") == found.fs.root
        for entry in (await found.entries()).values():
            assert b"/" not in entry.name
            assert b"\0" not in entry.name
            assert entry.name not in (b".", b"..")
            if entry.attributes is None:  # what the entry leads to must not be readable either
                with pytest.raises(RestoreError):
                    await found.fs.attributes(entry.inode)
                with pytest.raises(DamagedError):
                    await found.find(entry.name)
        assert await found.content("beside") == b"beside"


# Run lists


BAD_RUNS: dict[str, bytes] = {
    "beyond the volume": mapping_pairs([(1 << 40, 4)]),
    "across the end of the volume": b"",
    "negative": mapping_pairs([(-5, 4)]),
    "negative after a good one": mapping_pairs([(20, 2), (-1, 2)]),
    "too few": mapping_pairs([(20, 2)]),
    "too long for a number": b"\x9f" + b"\x01" * 24 + b"\0",
    "without an end": b"\x11\x04\x14" * 3,
    "no length": b"\x10\x14\0",
    "length zero": b"\x11\x00\x14\0",
    "negative length": b"\x11\xff\x14\0",
    "huge length": b"\x18" + b"\xff" * 7 + b"\x7f\x14\0",
    "empty": b"\0",
}


@pytest.mark.parametrize("name", BAD_RUNS)
async def test_a_run_list_that_cannot_be(name: str, tmp_path: Path) -> None:
    volume = Volume()
    pairs = BAD_RUNS[name]
    if name == "across the end of the volume":
        clusters = volume_clusters()
        pairs = mapping_pairs([(clusters - 2, 4)])
    data = Attribute(DATA, pairs=pairs, highest=3, size=16_384, allocated=16_384)
    volume.file("file", data)
    volume.outside("beside", NOISE[:9000])
    async with built(volume, tmp_path) as found:
        if name.startswith("across"):
            assert found.device.size // 4096 == volume_clusters()
        entries = await found.entries()
        assert set(entries) == {b"file", b"beside"}
        with pytest.raises(DamagedError):
            await found.content_of(await found.find("file"), 0, 16_384)
        assert await found.content("beside") == NOISE[:9000]


def volume_clusters() -> int:
    """Return how many clusters the volume of test_a_run_list_that_cannot_be has."""
    volume = Volume()
    data = Attribute(DATA, pairs=mapping_pairs([(20, 4)]), highest=3, size=16_384)
    volume.file("file", data)
    volume.outside("beside", NOISE[:9000])
    with tempfile.TemporaryDirectory() as folder:
        return volume.write(Path(folder, "image")).stat().st_size // 4096


@pytest.mark.parametrize("lowest", [1, 3, 0])
async def test_parts_that_overlap_or_leave_a_gap(lowest: int, tmp_path: Path) -> None:
    """Clusters 0 and 1 in the base record; the extension's part should begin with 2."""
    volume = Volume()
    one, other = NOISE[:8192], NOISE[8192:16_384]
    parts = [
        Attribute(DATA, runs=volume.store(one), size=16_384, allocated=16_384),
        Attribute(DATA, runs=volume.store(other), lowest=lowest, record=1, size=16_384),
    ]
    volume.file("file", *parts)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        with pytest.raises(DamagedError):
            await found.content_of(await found.find("file"), 8192, 8192)
        assert await found.content("beside") == b"beside"


# Damaged records and index blocks


def wrong_fixup(record: bytearray) -> None:
    record[510] ^= 0xFF


def bad_magic(record: bytearray) -> None:
    record[:4] = b"BAAD"


def other_magic(record: bytearray) -> None:
    record[:4] = b"\0\1\2\3"


def attribute_too_long(record: bytearray) -> None:
    (start,) = struct.unpack_from("<H", record, 20)
    struct.pack_into("<I", record, start + 4, 5000)


def attribute_of_no_length(record: bytearray) -> None:
    (start,) = struct.unpack_from("<H", record, 20)
    struct.pack_into("<I", record, start + 4, 0)


def fixups_outside(record: bytearray) -> None:
    struct.pack_into("<HH", record, 4, 1020, 3)


@pytest.mark.parametrize(
    "damage",
    [
        wrong_fixup,
        bad_magic,
        other_magic,
        attribute_too_long,
        attribute_of_no_length,
        fixups_outside,
    ],
)
async def test_a_damaged_record_is_one_lost_file(
    damage: Callable[[bytearray], None], tmp_path: Path
) -> None:
    volume = Volume()
    folder = volume.folder("folder")
    expected = set()
    for number in range(9):
        fields = {"damage": damage} if number == 4 else {}
        volume.resident(f"file {number}", b"%d" % number, parent=folder, **fields)
        expected.add(b"file %d" % number)
    async with built(volume, tmp_path) as found:
        entries = await found.entries("folder")
        assert set(entries) == expected
        for number in range(9):
            entry = entries[b"file %d" % number]
            if number != 4:
                assert entry.attributes is not None
                assert await found.content(b"folder/" + entry.name) == b"%d" % number
                continue
            assert entry.attributes is None
            with pytest.raises(DamagedError):
                await found.fs.attributes(entry.inode)
            with pytest.raises(DamagedError):
                await found.fs.map(entry.inode, 0, 1)
            with pytest.raises(DamagedError):
                await found.fs.xattrs(entry.inode)


async def names_before_the_error(found: Built, path: str) -> set[bytes]:
    """List a folder to the DamagedError that must come."""
    names: list[bytes] = []
    with pytest.raises(DamagedError):
        await collect(found, path, names)
    assert len(names) == len(set(names))
    return set(names)


async def collect(found: Built, path: str, names: list[bytes]) -> None:
    async for listing in listings(found.fs, await found.find(path)):
        names += [entry.name for entry in listing.entries]


def entry_without_length(block: bytearray) -> None:
    (start,) = struct.unpack_from("<I", block, 24)
    struct.pack_into("<H", block, 24 + start + 8, 0)


def entry_too_long(block: bytearray) -> None:
    (start,) = struct.unpack_from("<I", block, 24)
    struct.pack_into("<H", block, 24 + start + 8, 9000)


def wrong_place(block: bytearray) -> None:
    struct.pack_into("<Q", block, 16, 77)


def entries_outside(block: bytearray) -> None:
    struct.pack_into("<I", block, 28, 100_000)


@pytest.mark.parametrize(
    "damage",
    [
        wrong_fixup,
        bad_magic,
        other_magic,
        entry_without_length,
        entry_too_long,
        wrong_place,
        entries_outside,
    ],
)
async def test_a_damaged_index_block(damage: Callable[[bytearray], None], tmp_path: Path) -> None:
    """What lies before it is listed, then comes the error: never a folder that seems complete."""
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=9)
    for number in range(49):  # five leaves of nine, and four names between them
        volume.resident(f"file {number:02d}", b"%d" % number, parent=folder)
    folder.damaged_blocks = {2: damage}
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        assert await found.names() == {b"folder", b"beside"}
        names = await names_before_the_error(found, "folder")
        assert {b"file %02d" % number for number in range(18)} <= names
        assert not names & {b"file %02d" % number for number in range(20, 29)}
        assert await found.content("folder/file 05") == b"5"
        assert await found.content("folder/file 45") == b"45"
        for name in ("file 24", "file 240"):
            with pytest.raises(DamagedError):
                await found.find(f"folder/{name}")


@pytest.mark.parametrize("freed", [(0,), (2,), (4,), (5,), (0, 1, 2, 3, 4, 5)])
async def test_a_bitmap_that_calls_a_block_of_the_tree_free(
    freed: tuple[int, ...], tmp_path: Path
) -> None:
    """The tree leads to it, so names would be missing: that must be said."""
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=9)
    names = {
        f"file {number:02d}, whose name is so long that the root gets full" for number in range(49)
    }
    for name in names:
        volume.resident(name, b"", parent=folder)
    folder.freed_blocks = freed
    async with built(volume, tmp_path) as found:
        assert len(folder.block_offsets) == 6
        listed: list[bytes] = []
        with suppress(DamagedError):
            await collect(found, "folder", listed)
            assert {name.encode() for name in names} == set(listed)
        assert {name.decode() for name in listed} <= names
        for name in names:
            with suppress(DamagedError):
                await found.find(f"folder/{name}")


async def test_a_lost_bitmap_or_a_tree_that_turns_back(tmp_path: Path) -> None:
    """An inner node that points at itself ends with an error, soon."""
    volume = Volume()
    folder = volume.folder("folder", leaf_entries=1)
    for number in range(120):
        volume.resident(f"file {number:03d}", b"%d" % number, parent=folder)
    volume.write(tmp_path / "first.img")
    blocks = len(folder.block_offsets)
    again = Volume()
    turned = again.folder("folder", leaf_entries=1)
    for number in range(120):
        again.resident(f"file {number:03d}", b"%d" % number, parent=turned)

    def to_itself(block: bytearray) -> None:
        at = 24 + struct.unpack_from("<I", block, 24)[0]
        (vcn,) = struct.unpack_from("<Q", block, 16)
        (length,) = struct.unpack_from("<H", block, at + 8)
        struct.pack_into("<Q", block, at + length - 8, vcn)

    turned.damaged_blocks = {blocks - 1: to_itself}
    async with built(again, tmp_path) as found:
        reads = found.device.reads
        with pytest.raises(RestoreError):
            await found.find("folder/file 0000")
        try:
            entries = await found.entries("folder")
        except DamagedError:
            pass
        else:
            assert len(entries) == 120
        assert found.device.reads < reads + 500


async def test_the_mirror_stands_in_for_the_start_of_the_mft(tmp_path: Path) -> None:
    """Or there is an error; never an empty volume."""
    volume = Volume()
    volume.resident("file", b"content")
    image = volume.write(tmp_path / "image")
    with image.open("r+b") as file:
        file.seek(volume.mft_offset(0))
        file.write(b"BAAD")
    with suppress(DamagedError):
        async with opened(image) as found:
            assert await found.content("file") == b"content"


async def test_ntfs_3g_agrees_about_what_is_lost(tmp_path: Path) -> None:
    volume = Volume()
    volume.resident("lost", b"lost", damage=wrong_fixup)
    volume.resident("beside", b"beside")
    async with built(volume, tmp_path) as found:
        assert (await found.entries())[b"lost"].attributes is None
    with ntfs_3g(tmp_path / "built.img") as root:
        mount = Path(os.fsdecode(root))
        assert {path.name for path in mount.iterdir()} == {"lost", "beside"}
        with pytest.raises(OSError) as caught:  # noqa: PT011
            (mount / "lost").stat()
        assert caught.value.errno == errno.EIO
        assert (mount / "beside").read_bytes() == b"beside"
