"""The whole reader over images of 96 blocks that are built by hand, sound and damaged."""

import stat
import struct

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from restorefs.errors import (
    DamagedError,
    IsAFolderError,
    NotAFolderError,
    NotALinkError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from restorefs.guestfs.base import Extent, GuestFilesystem, Inode, Listing
from restorefs.guestfs.ext.reader import ExtFilesystem
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.contracts.mutation import assert_survives
from tests.listing import entries_of, listings
from tests.pure.ext_bytes import (
    BLOCK,
    EXTENTS_FL,
    FILETYPE,
    INLINE_DATA_FL,
    INODES,
    ROOT,
    TABLE,
    TinyImage,
    extent,
    extent_node,
    folder_block,
    index,
    inode,
    pointers,
    record,
    superblock,
)

FILE, LINK, FOLDER, OTHER = 11, 12, 13, 14
ENCRYPT_FL, EA_INODE_FL, SNAPFILE_FL, CASEFOLD_FL = 0x800, 0x200000, 0x01000000, 0x40000000


async def opened(image: TinyImage) -> ExtFilesystem:
    return await ExtFilesystem.open(MemoryDevice(image.bytes()))


async def names_of(fs: GuestFilesystem, folder: Inode = ROOT) -> list[bytes]:
    return [entry.name for entry in await entries_of(fs, folder)]


def sample() -> TinyImage:
    """A file, a link, a folder of two blocks with a file in each, and a name with no inode."""
    image = TinyImage()
    image.root((FILE, b"file"), (LINK, b"link"), (FOLDER, b"folder"), (99, b"beyond"))
    data = image.put(b"content")
    image.file(
        FILE,
        i_size_lo=7,
        i_flags=EXTENTS_FL,
        i_extra_isize=32,
        i_block=extent_node(0, extent(0, 1, data)),
    )
    image.file(LINK, 0o120777, i_size_lo=6, i_block=b"target")
    image.folder(
        FOLDER,
        ROOT,
        folder_block((FOLDER, b"."), (ROOT, b".."), (FILE, b"first")),
        folder_block((FILE, b"second"), (0, b"deleted")),
    )
    return image


async def test_a_sound_image() -> None:
    fs = await opened(sample())
    assert fs.identity.kind == "ext4"
    assert fs.identity.clean is True
    assert fs.identity.notes == ()
    assert await names_of(fs) == [b"file", b"link", b"folder", b"beyond"]
    file = await fs.lookup(ROOT, b"file")
    (piece,) = await fs.map(file, 0, 7)
    assert piece.offset is not None
    assert await MemoryDevice(sample().bytes()).read(piece.offset, piece.length) == b"content"
    assert await fs.readlink(await fs.lookup(ROOT, b"link")) == b"target"
    folder = await fs.lookup(ROOT, b"folder")
    assert await names_of(fs, folder) == [b"first", b"second"]
    assert await fs.lookup(folder, b"..") == ROOT
    assert await fs.lookup(folder, b".") == folder
    assert await fs.lookup(ROOT, b"..") == ROOT
    assert await fs.xattrs(file) == {}


async def test_entries_are_as_the_folder_records_them() -> None:
    image = sample()
    image.root((FILE, b"file"), (LINK, b"link"))
    fs = await opened(image)
    first, second = await entries_of(fs, ROOT)
    assert first.kind == second.kind == stat.S_IFREG  # the file type in the records above
    assert first.attributes == await fs.attributes(FILE)
    assert await entries_of(fs, ROOT, first.cookie) == [second]
    assert await entries_of(fs, ROOT, second.cookie) == []
    assert await entries_of(fs, ROOT, 1 << 62) == []


async def test_a_cookie_is_good_wherever_the_folder_is_continued() -> None:
    image = TinyImage()
    names = [b"%03d" % number + b"n" * 40 for number in range(36)]
    blocks = [
        folder_block(*((FILE, name) for name in names[start : start + 18])) for start in (0, 18)
    ]
    image.folder(ROOT, ROOT, folder_block((ROOT, b"."), (ROOT, b"..")), *blocks)
    image.file(FILE)
    fs = await opened(image)
    entries = await entries_of(fs, ROOT)
    assert [entry.name for entry in entries] == names
    assert len({entry.cookie for entry in entries}) == len(entries)
    for position, entry in enumerate(entries):
        assert await entries_of(fs, ROOT, entry.cookie) == entries[position + 1 :]


@pytest.mark.parametrize("places", [(), (0,), (30,), (49,), (0, 30), (0, 15, 16, 49)])
async def test_long_stretches_without_a_name_do_not_end_a_listing(places: tuple[int, ...]) -> None:
    """As folders have them whose files were deleted."""
    image = TinyImage()
    image.root((FOLDER, b"folder"))
    image.file(FILE)
    blocks = [folder_block((0, b"deleted")) for _ in range(50)]
    blocks[0] = folder_block((FOLDER, b"."), (ROOT, b".."))
    for place in places:
        dots = ((FOLDER, b"."), (ROOT, b"..")) if place == 0 else ()
        blocks[place] = folder_block(*dots, (FILE, b"in block %d" % place))
    first, *_ = [image.put(block) for block in blocks]
    image.inodes[FOLDER - 1] = inode(
        i_mode=0o40755,
        i_links_count=2,
        i_size_lo=len(blocks) * BLOCK,
        i_flags=EXTENTS_FL,
        i_block=extent_node(0, extent(0, len(blocks), first)),
    )
    fs = await opened(image)
    parts = [part async for part in listings(fs, FOLDER)]
    entries = [entry for part in parts for entry in part.entries]
    assert [entry.name for entry in entries] == [b"in block %d" % place for place in places]
    if len(places) > 1:
        assert len(parts) > 1, "the first name comes before all is read"
    for position, entry in enumerate(entries):
        assert await entries_of(fs, FOLDER, entry.cookie) == entries[position + 1 :]
        if entry == entries[-1]:
            behind, complete = await fs.readdir(FOLDER, entry.cookie)
            assert (list(behind), complete) == ([], True)


async def test_a_name_without_an_inode_is_listed_and_damaged() -> None:
    fs = await opened(sample())
    beyond = (await entries_of(fs, ROOT))[-1]
    assert (beyond.name, beyond.attributes) == (b"beyond", None)
    assert await fs.lookup(ROOT, b"beyond") == 99
    for question in (fs.attributes(99), fs.xattrs(99), fs.map(99, 0, 0), fs.readlink(99)):
        with pytest.raises(DamagedError):
            await question


@pytest.mark.parametrize("number", [0, 1, 7, 8, INODES + 1, 1 << 36, -1])
async def test_numbers_that_no_file_has(number: int) -> None:
    fs = await opened(sample())
    with pytest.raises(DamagedError):
        await fs.attributes(number)


async def test_the_last_inode() -> None:
    image = sample()
    image.root((INODES, b"last"))
    image.file(INODES, i_uid=5)
    (last,) = await entries_of(await opened(image), ROOT)
    assert last.attributes is not None
    assert last.attributes.uid == 5


async def test_a_deleted_inode_is_not_found() -> None:
    image = sample()
    image.root((FILE, b"deleted"), (OTHER, b"never used"))
    image.inodes[FILE - 1] = inode(i_mode=0o100644, i_dtime=1)
    fs = await opened(image)
    assert [entry.attributes for entry in await entries_of(fs, ROOT)] == [None, None]
    for number in (FILE, OTHER):
        with pytest.raises(NotFoundError):
            await fs.attributes(number)


async def test_questions_to_the_wrong_kind_of_file() -> None:
    fs = await opened(sample())
    with pytest.raises(IsAFolderError):
        await fs.map(FOLDER, 0, 1)
    with pytest.raises(NotALinkError):
        await fs.readlink(FILE)
    with pytest.raises(NotAFolderError):
        await fs.lookup(FILE, b"name")
    with pytest.raises(NotAFolderError):
        await entries_of(fs, LINK)
    with pytest.raises(NotFoundError):
        await fs.lookup(ROOT, b"no such name")
    with pytest.raises(NotFoundError):
        await fs.lookup(ROOT, b"")
    with pytest.raises(NotFoundError):
        await fs.lookup(ROOT, b"n" * 256)
    with pytest.raises(DamagedError):
        await fs.map(FILE, 0, 8)


async def test_names_are_bytes() -> None:
    image = sample()
    names = [b"\xff\xfe", b"\x80", "\u00e4".encode(), b"new\nline", b" ", b"n" * 255]
    image.root(*((FILE, name) for name in names))
    fs = await opened(image)
    assert await names_of(fs) == names
    for name in names:
        assert await fs.lookup(ROOT, name) == FILE


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b", b"/"])
async def test_a_name_that_cannot_be(name: bytes) -> None:
    image = sample()
    image.root((FILE, b"file"), (FILE, name))
    fs = await opened(image)
    with pytest.raises(DamagedError):
        await names_of(fs)
    assert await fs.lookup(ROOT, b"file") == FILE


async def test_a_damaged_block_never_shortens_a_listing() -> None:
    image = sample()
    good = folder_block((FOLDER, b"."), (ROOT, b".."), (FILE, b"good"))
    bad = record(FILE, b"one", 16) + record(FILE, b"two", 10)
    image.folder(FOLDER, ROOT, good, bad)
    fs = await opened(image)
    with pytest.raises(DamagedError):
        await names_of(fs, FOLDER)
    assert await fs.lookup(FOLDER, b"good") == FILE
    with pytest.raises(DamagedError):
        await fs.lookup(FOLDER, b"two")


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK + 1, 97 * BLOCK, 0xFFFFFC00])
async def test_a_folder_with_an_impossible_size(size: int) -> None:
    image = sample()
    image.inodes[FOLDER - 1] = inode(
        i_mode=0o40755, i_links_count=2, i_size_lo=size, i_block=pointers(20)
    )
    fs = await opened(image)
    for question in (names_of(fs, FOLDER), fs.lookup(FOLDER, b"first")):
        with pytest.raises(DamagedError):
            await question


async def test_a_folder_with_a_hole() -> None:
    image = sample()
    image.inodes[FOLDER - 1] = inode(i_mode=0o40755, i_links_count=2, i_size_lo=2 * BLOCK)
    fs = await opened(image)
    for question in (names_of(fs, FOLDER), fs.lookup(FOLDER, b"n"), fs.lookup(FOLDER, b"..")):
        with pytest.raises(DamagedError):
            await question


async def test_a_folder_that_does_not_record_file_types() -> None:
    image = sample()
    image.blocks[1] = superblock(s_feature_incompat=0x40)
    assert [entry.kind for entry in await entries_of(await opened(image), ROOT)] == [0] * 4


async def test_a_tree_that_points_to_itself() -> None:
    image = sample()
    block = image.put(extent_node(1, index(0, 0), capacity=84))
    image.blocks[block] = extent_node(1, index(0, block), capacity=84).ljust(BLOCK, b"\0")
    image.file(OTHER, i_size_lo=7, i_flags=EXTENTS_FL, i_block=extent_node(1, index(0, block)))
    fs = await opened(image)
    with pytest.raises(DamagedError):
        await fs.map(OTHER, 0, 7)
    assert (await fs.attributes(OTHER)).size == 7


async def test_a_sparse_file_of_ext2() -> None:
    image = sample()
    data = image.put(b"d" * BLOCK)
    image.file(OTHER, i_size_lo=5000, i_block=pointers(0, data))
    fs = await opened(image)
    assert await fs.map(OTHER, 0, 5000) == [
        Extent(None, BLOCK),
        Extent(data * BLOCK, BLOCK),
        Extent(None, 5000 - 2 * BLOCK),
    ]


def inline_folder(*entries: tuple[int, bytes]) -> bytes:
    """Return an inode with a folder inside: all entries but the last in i_block."""
    first = folder_block(*entries[:-1], size=56)
    rest = folder_block(entries[-1], size=24)
    raw = bytearray(
        inode(
            i_mode=0o40755,
            i_links_count=2,
            i_size_lo=84,
            i_flags=INLINE_DATA_FL,
            i_extra_isize=32,
            i_block=struct.pack("<I", ROOT) + first,
        )
    )
    raw[160:164] = b"\x00\x00\x02\xea"
    raw[164:184] = struct.pack("<BBHIII", 4, 7, 64, 0, 24, 0) + b"data"
    raw[228:252] = rest
    return bytes(raw)


async def test_a_folder_inside_its_inode() -> None:
    image = sample()
    image.inodes[FOLDER - 1] = inline_folder((FILE, b"one"), (0, b"gone"), (LINK, b"in the rest"))
    fs = await opened(image)
    entries = await entries_of(fs, FOLDER)
    assert [(entry.name, entry.inode) for entry in entries] == [
        (b"one", FILE),
        (b"in the rest", LINK),
    ]
    assert await entries_of(fs, FOLDER, entries[0].cookie) == entries[1:]
    assert await fs.lookup(FOLDER, b"in the rest") == LINK
    assert await fs.lookup(FOLDER, b"..") == ROOT
    with pytest.raises(NotFoundError):
        await fs.lookup(FOLDER, b"gone")


async def test_a_fast_link_with_an_attribute_block() -> None:
    image = sample()
    block = image.put(
        struct.pack("<IIII16x", 0xEA020000, 1, 1, 0)
        + struct.pack("<BBHIII", 1, 4, 1020, 0, 4, 0)
        + b"a\0\0\0"
    )
    image.blocks[block] = image.blocks[block][:1020] + b"1234"
    image.file(LINK, 0o120777, i_size_lo=6, i_blocks_lo=2, i_block=b"target", i_file_acl_lo=block)
    fs = await opened(image)
    assert await fs.readlink(LINK) == b"target"
    assert await fs.xattrs(LINK) == {b"trusted.a": b"1234"}


@pytest.mark.parametrize("size", [0, 60, 65_537])
async def test_a_link_with_an_impossible_target(size: int) -> None:
    image = sample()
    image.file(LINK, 0o120777, i_size_lo=size, i_block=bytes(60))
    with pytest.raises(DamagedError):
        await (await opened(image)).readlink(LINK)


async def test_a_link_with_a_zero_in_its_target() -> None:
    image = sample()
    image.file(LINK, 0o120777, i_size_lo=6, i_block=b"tar\0et")
    with pytest.raises(DamagedError):
        await (await opened(image)).readlink(LINK)


async def test_what_is_not_read_is_refused_by_name() -> None:
    image = sample()
    content = {"i_size_lo": 7, "i_block": pointers(20)}
    image.file(FILE, i_flags=ENCRYPT_FL, **content)
    image.file(OTHER, i_flags=SNAPFILE_FL, **content)
    image.file(LINK, 0o120777, i_size_lo=18, i_flags=ENCRYPT_FL)
    fs = await opened(image)
    with pytest.raises(UnsupportedError, match="encrypted"):
        await fs.map(FILE, 0, 7)
    with pytest.raises(UnsupportedError, match="snapshot"):
        await fs.map(OTHER, 0, 7)
    with pytest.raises(UnsupportedError, match="encrypted"):
        await fs.readlink(LINK)


async def test_a_folder_that_ignores_case() -> None:
    image = sample()
    image.blocks[1] = superblock(s_feature_incompat=FILETYPE | 0x20000, s_encoding=1)
    image.folder(
        FOLDER,
        ROOT,
        folder_block(
            (FOLDER, b"."), (ROOT, b".."), (FILE, b"File"), (OTHER, b"file"), (LINK, b"\xffX")
        ),
    )
    image.inodes[FOLDER - 1] = (
        image.inodes[FOLDER - 1][:0x20]
        + struct.pack("<I", CASEFOLD_FL)
        + image.inodes[FOLDER - 1][0x24:]
    )
    fs = await opened(image)
    assert await fs.lookup(FOLDER, b"file") == OTHER  # the same bytes come first
    assert await fs.lookup(FOLDER, b"FILE") == FILE
    assert await fs.lookup(FOLDER, b"\xffX") == LINK
    with pytest.raises(NotFoundError):
        await fs.lookup(FOLDER, b"\xffx")
    with pytest.raises(NotFoundError):
        await fs.lookup(ROOT, b"FILE")
    image.blocks[1] = superblock(s_feature_incompat=FILETYPE | 0x20000, s_encoding=2)
    fs = await opened(image)
    assert await fs.lookup(FOLDER, b"File") == FILE
    with pytest.raises(UnsupportedError, match="encoding 2"):
        await fs.lookup(FOLDER, b"FILE")


def with_value_inode(flags: int = EA_INODE_FL, checksum: int = 0, owner: int = 0) -> TinyImage:
    image = sample()
    data = image.put(b"value")
    raw = bytearray(inode(i_mode=0o100644, i_links_count=1, i_extra_isize=32, i_generation=77))
    raw[160:164] = b"\x00\x00\x02\xea"
    raw[164:184] = struct.pack("<BBHIII", 1, 1, 0, OTHER, 5, 0) + b"n\0\0\0"
    image.inodes[FILE - 1] = bytes(raw)
    image.file(
        OTHER,
        i_size_lo=5,
        i_flags=flags,
        i_block=pointers(data),
        i_atime=checksum,
        i_mtime=owner,
        i_generation=77,
    )
    return image


async def test_a_value_in_an_inode_of_its_own() -> None:
    with pytest.raises(DamagedError, match="checksum"):
        await (await opened(with_value_inode())).xattrs(FILE)
    with pytest.raises(DamagedError):
        await (await opened(with_value_inode(flags=0))).xattrs(FILE)
    # An old implementation wrote the owner and its generation in place of the checksum.
    fs = await opened(with_value_inode(owner=FILE))
    assert await fs.xattrs(FILE) == {b"user.n": b"value"}
    with pytest.raises(DamagedError):
        await fs.attributes(OTHER)


async def test_a_superblock_that_is_damaged_beyond_repair() -> None:
    image = sample()
    image.blocks[1] = superblock(s_inode_size=100)
    device = MemoryDevice(image.bytes())
    identity = await ExtFilesystem.probe(device)
    assert identity is not None
    assert identity.notes
    with pytest.raises(DamagedError, match="inode size"):
        await ExtFilesystem.open(device)


async def test_a_root_that_is_no_folder() -> None:
    for record_of_root in (bytes(256), inode(i_mode=0o100644, i_links_count=1)):
        image = sample()
        image.inodes[ROOT - 1] = record_of_root
        with pytest.raises(DamagedError):
            await opened(image)


async def test_a_volume_that_is_cut() -> None:
    content = sample().bytes()
    device = MemoryDevice(content[: (TABLE + 3) * BLOCK + 100])
    identity = await ExtFilesystem.probe(device)
    assert identity is not None
    assert any("its volume only" in note for note in identity.notes)
    with pytest.raises(DamagedError):  # the root's block is gone
        await names_of(await ExtFilesystem.open(device))


async def test_a_storage_error_is_not_taken_for_damage() -> None:
    content = bytearray(sample().bytes())
    struct.pack_into("<I", content, 2 * BLOCK + 8, 80)  # the inode table in another piece
    content[80 * BLOCK : 88 * BLOCK] = content[TABLE * BLOCK : (TABLE + 8) * BLOCK]

    async def names(device: WatchedDevice) -> list[bytes]:
        return await names_of(await ExtFilesystem.open(device))

    sound = WatchedDevice(MemoryDevice(bytes(content)))
    assert len(await names(sound)) == 4
    assert sound.reads >= 2
    for number in range(sound.reads):
        broken = WatchedDevice(MemoryDevice(bytes(content)))
        broken.fail_at = frozenset((number,))
        with pytest.raises(StorageError):
            await names(broken)


async def test_no_io_for_what_was_just_listed() -> None:
    device = WatchedDevice(MemoryDevice(sample().bytes()))
    fs = await ExtFilesystem.open(device)
    entries = await entries_of(fs, ROOT)
    before = device.reads
    for entry in entries[:-1]:
        assert await fs.xattrs(entry.inode) == {}
        assert await fs.attributes(entry.inode) == entry.attributes
    await fs.readlink(LINK)
    await fs.map(FILE, 0, 7)
    assert device.reads == before


def changed(image: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(image)
    for offset, byte in changes:
        damaged[offset % len(image)] = byte
    return bytes(damaged)


def rich() -> bytes:
    """Everything that a small image can hold."""
    image = with_value_inode(owner=FILE)
    image.inodes[15] = inline_folder((FILE, b"one"), (LINK, b"two"), (FOLDER, b"three"))
    leaf = image.put(extent_node(0, extent(0, 1, 30), extent(3, 2, 31), capacity=84))
    image.file(17, i_size_lo=5000, i_flags=EXTENTS_FL, i_block=extent_node(1, index(0, leaf)))
    pointer_block = image.put(pointers(20, 0, 21, count=BLOCK // 4))
    image.file(18, i_size_lo=1 << 24, i_block=pointers(*[0] * 12, pointer_block, pointer_block))
    image.root(*((number, b"name-%d" % number) for number in range(11, 19)))
    return image.bytes()


RICH = rich()
# Where there is something to change: the superblock, the descriptor, the inodes, what is used.
PLACES = st.one_of(
    st.integers(BLOCK, BLOCK + 0x280),
    st.integers(2 * BLOCK, 2 * BLOCK + 32),
    st.integers(TABLE * BLOCK, TABLE * BLOCK + 18 * 256),
    st.integers(11 * BLOCK, 21 * BLOCK),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_the_bytes_say(changes: list[tuple[int, int]]) -> None:
    damaged = changed(RICH, changes)
    trio.run(assert_survives, ExtFilesystem, damaged, repr(changes))


@settings(max_examples=30)
@given(st.integers(0, len(RICH)))
def test_wherever_the_image_ends(length: int) -> None:
    trio.run(assert_survives, ExtFilesystem, RICH[:length], f"{length} bytes")


class Endless(ExtFilesystem):
    """Says for ever that more comes, and what came before."""

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        return (await super().readdir(folder))._replace(complete=False)


class Stuck(ExtFilesystem):
    """Says for ever that something comes, and nothing else."""

    async def readdir(self, folder: Inode, cookie: int = 0) -> Listing:
        return Listing((), complete=False)


@pytest.mark.parametrize(
    ("reader", "seen_by_walk", "seen_by_listing"),
    [
        (Endless, "too many entries", "does not end"),
        (Stuck, "not complete", "not complete"),
    ],
)
async def test_a_listing_that_never_ends_is_noticed(
    reader: type[ExtFilesystem], seen_by_walk: str, seen_by_listing: str
) -> None:
    with pytest.raises(AssertionError, match=seen_by_walk):
        await assert_survives(reader, RICH, reader.__name__)
    with pytest.raises(AssertionError, match=seen_by_listing):
        await entries_of(await reader.open(MemoryDevice(RICH)), ROOT)


async def test_the_image_for_this_is_sound() -> None:
    assert await assert_survives(ExtFilesystem, RICH, "sound") == 8 + 3 + 2
