"""Devices made of others: each is read as the bytes that were laid out by hand."""

import itertools
from functools import reduce

import pytest

from restorefs.block.base import BlockDevice, Piece, Window
from restorefs.errors import DamagedError, StorageError
from restorefs.volumes.devices.concatenated import Concatenated
from restorefs.volumes.devices.galois import inverse, power, product, scaled, summed
from restorefs.volumes.devices.mirrored import Mirrored
from restorefs.volumes.devices.missing import Missing, Zeros, not_there
from restorefs.volumes.devices.parity import Parity, Rebuilt
from restorefs.volumes.devices.parity_layouts import LAYOUTS, Row, period, row_of
from restorefs.volumes.devices.striped import Striped
from restorefs.volumes.lvm2.snapshot import Snapshot
from tests.contracts.block import BlockDeviceContract
from tests.contracts.devices import MemoryDevice, WatchedDevice

CHUNK = 4096


def gone(size: int) -> Missing:
    return not_there(size, "a test took it away")


def multiplied(a: int, b: int) -> int:
    """Multiply bit by bit, as the definition of the field has it."""
    total = 0
    for bit in range(8):
        if b >> bit & 1:
            total ^= a << bit
    for bit in range(14, 7, -1):
        if total >> bit & 1:
            total ^= 0x11D << (bit - 8)
    return total


def two_to(exponent: int) -> int:
    return reduce(lambda value, _: multiplied(value, 2), range(exponent), 1)


def members_of(content: bytes, layout: str, count: int) -> list[bytes]:
    """Lay content out with P and Q calculated byte by byte."""
    data = len(row_of(layout, 0, count).data)
    rows = -(-len(content) // (CHUNK * data))
    content = content.ljust(rows * data * CHUNK, b"\0")
    members = [bytearray(rows * CHUNK) for _ in range(count)]
    for number in range(rows):
        row: Row = row_of(layout, number % period(layout, count), count)
        chunks = {}
        for index, member in enumerate(row.data):
            at = (number * data + index) * CHUNK
            chunks[member] = content[at : at + CHUNK]
        p = bytes(
            reduce(lambda a, b: a ^ b, column) for column in zip(*chunks.values(), strict=True)
        )
        chunks_with = {**chunks, row.p: p}
        if row.q is not None:
            tables = {m: [multiplied(two_to(row.powers[m] or 0), v) for v in range(256)]
                      for m in chunks}  # fmt: skip
            weighed = [[tables[m][v] for v in chunk] for m, chunk in chunks.items()]
            chunks_with[row.q] = bytes(
                reduce(lambda a, b: a ^ b, column) for column in zip(*weighed, strict=True)
            )
        for member, chunk in chunks_with.items():
            members[member][number * CHUNK : (number + 1) * CHUNK] = chunk
    return [bytes(member) for member in members]


class TestConcatenated(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        cuts = (0, 1, 4096, 4096, 100_000, len(content))
        return Concatenated([MemoryDevice(content[a:b]) for a, b in itertools.pairwise(cuts)])


class TestStriped(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        padded = content + bytes(-len(content) % (3 * CHUNK))
        chunks = [padded[at : at + CHUNK] for at in range(0, len(padded), CHUNK)]
        members = [MemoryDevice(b"".join(chunks[n::3])) for n in range(3)]
        return Striped(members, CHUNK, len(content))


class TestMirrored(BlockDeviceContract):
    """No copy is whole."""

    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        disk = MemoryDevice(content)
        size = len(content)
        left = Concatenated([Window(disk, 0, 100_352), gone(size - 100_352)])
        right = Concatenated([gone(100_352), Window(disk, 100_352, size - 100_352)])
        return Mirrored([gone(size), right, left])


class TestZeros(BlockDeviceContract):
    @pytest.fixture
    def content(self) -> bytes:
        return bytes(300_000)

    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        return Zeros(len(content))


class TestParity(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        members = members_of(content, "raid5_ls", 4)
        return Parity([MemoryDevice(m) for m in members], CHUNK, "raid5_ls", len(content))


class TestParityWithoutTwo(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        members: list[BlockDevice] = [
            MemoryDevice(member) for member in members_of(content, "raid6_nr", 5)
        ]
        members[1] = gone(members[1].size)
        members[3] = Concatenated([gone(50_176), Window(members[3], 50_176, 20_480),
                                   gone(members[3].size - 70_656)])  # fmt: skip
        return Parity(members, CHUNK, "raid6_nr", len(content))


class TestRebuilt(BlockDeviceContract):
    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        rest = bytes(reversed(content))
        both = bytes(a ^ b for a, b in zip(content, rest, strict=True))
        members = [gone(len(content)), MemoryDevice(rest), MemoryDevice(both)]
        return Rebuilt(Parity(members, 512, "raid5_ls"), 0)


class TestSnapshot(BlockDeviceContract):
    """Every third chunk has changed since."""

    @pytest.fixture
    def device(self, content: bytes) -> BlockDevice:
        chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
        changed = range(0, len(chunks), 3)
        table = b"".join(
            old.to_bytes(8, "little") + new.to_bytes(8, "little")
            for new, old in enumerate(changed, 2)
        )
        store = bytes(CHUNK) + table.ljust(CHUNK, b"\0")
        store += b"".join(chunks[number].ljust(CHUNK, b"\0") for number in changed)
        now = b"".join(
            b"later".ljust(len(chunk)) if number % 3 == 0 else chunk
            for number, chunk in enumerate(chunks)
        )
        return Snapshot(MemoryDevice(now), MemoryDevice(store), CHUNK)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("count", [4, 5, 6])
async def test_an_array_is_read_without_any_members_that_its_parity_replaces(
    layout: str, count: int
) -> None:
    content = b"".join(number.to_bytes(4, "little") * 1024 for number in range(1, 61))
    members = members_of(content, layout, count)
    lost = 2 if layout.startswith("raid6") else 1
    for missing in itertools.combinations(range(count), lost):
        devices = [
            gone(len(member)) if number in missing else MemoryDevice(member)
            for number, member in enumerate(members)
        ]
        array = Parity(devices, CHUNK, layout)
        assert (await array.read(0, array.size))[: len(content)] == content, missing
    devices = [gone(len(m)) if n <= lost else MemoryDevice(m) for n, m in enumerate(members)]
    array = Parity(devices, CHUNK, layout)
    with pytest.raises(StorageError):
        await array.read(0, array.size)
    with pytest.raises(StorageError):
        await array.map(0, array.size)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("count", [4, 7])
def test_each_row_has_each_member_once(layout: str, count: int) -> None:
    for number in range(period(layout, count)):
        row = row_of(layout, number, count)
        used = [row.p, *row.data, *([] if row.q is None else [row.q])]
        assert sorted(used) == list(range(count))
        powers = [power for power in row.powers if power is not None]
        assert len(set(powers)) == len(powers) == (0 if row.q is None else count - 2)


async def test_what_is_not_consistent_is_not_computed() -> None:
    members = members_of(bytes(range(256)) * 192, "raid5_ls", 3)
    devices = [gone(len(members[0])), *(MemoryDevice(member) for member in members[1:])]

    def consistent(offset: int, length: int) -> bool:
        return offset + length <= CHUNK

    array = Parity(devices, CHUNK, "raid5_ls", None, consistent)
    assert await array.read(0, 2 * CHUNK) == bytes(range(256)) * 32
    with pytest.raises(StorageError, match=r"took it away; the parity of .* is not up to date"):
        await array.read(0, array.size)


async def test_a_stripe_reads_what_lies_together_at_once() -> None:
    disks = [WatchedDevice(MemoryDevice(bytes(16 * CHUNK))) for _ in range(2)]
    striped = Striped(disks, CHUNK)
    await striped.read(CHUNK, 20 * CHUNK)
    assert [disk.reads for disk in disks] == [1, 1]


async def test_a_damaged_copy_is_not_replaced_silently() -> None:
    broken = Missing(4096, DamagedError("wrong"))
    with pytest.raises(DamagedError):
        await Mirrored([broken, MemoryDevice(bytes(4096))]).read(0, 1)


async def test_what_is_computed_maps_to_a_device_that_computes_it() -> None:
    members = members_of(bytes(range(256)) * 96, "raid5_ls", 3)
    devices = [*(MemoryDevice(member) for member in members[:2]), gone(len(members[2]))]
    array = Parity(devices, CHUNK, "raid5_ls")
    pieces = await array.map(0, 2 * CHUNK)
    assert pieces[0] == Piece(devices[0], 0, CHUNK)
    computing = pieces[1].disk if len(pieces) > 1 else None
    for piece in await array.map(0, array.size):
        computing = piece.disk if isinstance(piece.disk, Rebuilt) else computing
    assert isinstance(computing, Rebuilt)


@pytest.mark.parametrize("members", [0, 1, 254])
def test_an_array_needs_members(members: int) -> None:
    with pytest.raises(DamagedError):
        Parity([MemoryDevice(bytes(CHUNK))] * members, CHUNK, "raid5_ls")


def test_more_bytes_than_there_is_room_for_are_damage() -> None:
    disks = [MemoryDevice(bytes(2 * CHUNK))] * 3
    with pytest.raises(DamagedError):
        Striped(disks, CHUNK, 6 * CHUNK + 1)
    with pytest.raises(DamagedError):
        Striped(disks, 0)
    with pytest.raises(DamagedError):
        Parity(disks, CHUNK, "raid5_ls", 4 * CHUNK + 1)
    with pytest.raises(DamagedError):
        Mirrored(disks, 2 * CHUNK + 1)


def test_the_field_is_that_of_raid_6() -> None:
    for a in range(256):
        assert product(a, 2) == multiplied(a, 2)
        assert product(a, 0xB7) == multiplied(a, 0xB7)
    assert [power(n) for n in range(255)] == [two_to(n) for n in range(255)]
    assert all(product(a, inverse(a)) == 1 for a in range(1, 256))
    assert scaled(bytes(range(256)), 3) == bytes(multiplied(a, 3) for a in range(256))
    assert summed([b"\x01\x02", b"\x03\x04"], 2) == b"\x02\x06"
