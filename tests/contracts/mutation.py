"""Damaged images: whatever the bytes say, a reader answers or raises a RestoreError, and ends.

Owns how an image is damaged (always the same way for the same seed) and what "ends" means: so
many reads, bytes, entries and seconds of processor time, all far above what a sound image takes.
Knows no format. Concurrency: none; the processor-time guard belongs to the main thread.
"""

import random
import signal
import stat
import struct
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

from restorefs.errors import RestoreError
from restorefs.guestfs.base import Attributes, GuestFilesystem, Inode
from restorefs.guestfs.limits import Limits
from tests.contracts.devices import MeteredDevice, TooManySteps
from tests.listing import listings

LINE = 64
LIMITS = Limits(folder_bytes=1 << 20, xattr_bytes=1 << 20, extents_per_map=1 << 16)
READS = 200_000
LENGTH = 1 << 30
ENTRIES = 50_000
SECONDS = 20


def used_lines(image: bytes) -> list[int]:
    """Return the offsets of the image's lines of 64 bytes that are not all zero."""
    nothing = bytes(LINE)
    return [at for at in range(0, len(image), LINE) if image[at : at + LINE] != nothing]


def mutate(image: bytes, lines: list[int], seed: int) -> bytes:
    """Return a damaged copy: numbers changed, bytes flipped, blocks moved or cleared, or cut."""
    chance = random.Random(seed)
    if chance.random() < 0.05:
        return image[: chance.choice((chance.randrange(len(image)), chance.choice(lines)))]
    damaged = bytearray(image)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.choice(lines)
        what = chance.random()
        if what < 0.45:
            at += 4 * chance.randrange(LINE // 4)
            numbers = (0, 1, 2, 12, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.getrandbits(32))
            near = (struct.unpack_from("<I", damaged, at)[0] + chance.choice((-1, 1))) % (1 << 32)
            struct.pack_into("<I", damaged, at, chance.choice((*numbers, at // 1024, near)))
        elif what < 0.65:
            at += 2 * chance.randrange(LINE // 2)
            number = chance.choice(
                (0, 1, 4, 8, 255, 0x7FFF, 0x8000, 0xFFFF, chance.getrandbits(16))
            )
            struct.pack_into("<H", damaged, at, number)
        elif what < 0.9:
            damaged[at + chance.randrange(LINE)] ^= 1 << chance.randrange(8)
        else:
            start = at // 1024 * 1024
            source = chance.choice(lines) // 1024 * 1024
            block = bytes(1024) if chance.random() < 0.3 else damaged[source : source + 1024]
            damaged[start : start + len(block)] = block
    return bytes(damaged)


@contextmanager
def bounded_processor_time(seconds: int) -> Iterator[None]:
    """Raise TooManySteps in the block once it has used so much processor time."""

    def stop(number: int, frame: object) -> None:
        raise TooManySteps(f"more than {seconds} s of processor time")

    previous = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


async def assert_survives(reader: type[GuestFilesystem], image: bytes, what: str) -> int:
    """Walk everything an image shows; return how many entries that were.

    AssertionError, with `what` in its message, for any exception but RestoreError, for answers
    that contradict the seam, and for a walk that does not end in time.
    """
    device = MeteredDevice(image, READS, LENGTH)
    try:
        with bounded_processor_time(SECONDS):
            return await walk(reader, device)
    except TooManySteps as error:
        raise AssertionError(f"{what}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error


async def walk(reader: type[GuestFilesystem], device: MeteredDevice) -> int:
    """Ask for everything below the root, each folder once; RestoreErrors are answers."""
    try:
        await reader.probe(device)
        fs = await reader.open(device, limits=LIMITS)
    except RestoreError:
        return 0
    pending = [fs.root]
    seen = {fs.root}
    entries = 0
    while pending:
        folder = pending.pop()
        await look_at(fs, device, folder)
        try:
            async with aclosing(listings(fs, folder)) as parts:
                async for part in parts:
                    for entry in part.entries:
                        entries += 1
                        if entries > ENTRIES:
                            raise TooManySteps("too many entries")
                        assert isinstance(entry.name, bytes)
                        assert entry.name not in (b"", b".", b"..")
                        assert b"/" not in entry.name
                        assert b"\0" not in entry.name
                        assert 0 < entry.cookie < 1 << 63
                        if entry.inode not in seen:
                            seen.add(entry.inode)
                            pending.append(entry.inode)
                        await settle(fs.lookup(folder, entry.name))
        except RestoreError:
            pass
    return entries


async def settle(awaitable: object) -> object:
    """Await something; a RestoreError is as good as None."""
    try:
        return await awaitable  # type: ignore[misc]
    except RestoreError:
        return None


async def look_at(fs: GuestFilesystem, device: MeteredDevice, inode: Inode) -> None:
    """Ask for everything about one inode but its names."""
    attributes = await settle(fs.attributes(inode))
    await settle(fs.lookup(inode, b".."))
    await settle(fs.lookup(inode, b"no such name"))
    await settle(fs.xattrs(inode))
    await settle(fs.readlink(inode))
    if not isinstance(attributes, Attributes):
        return
    assert attributes.size >= 0
    assert attributes.blocks >= 0
    if stat.S_ISDIR(attributes.mode):
        return
    try:
        extents = await fs.map(inode, 0, attributes.size)
        assert sum(extent.length for extent in extents) == attributes.size
        assert all(extent.length > 0 for extent in extents)
        for extent in (*extents[:32], *extents[-32:]):
            if extent.offset is not None:
                assert extent.offset >= 0
                await device.read(extent.offset, min(extent.length, 4096))
            elif extent.encoded:
                await fs.read_encoded(inode, 0, min(extent.length, 4096))
    except RestoreError:
        pass
