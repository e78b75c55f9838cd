"""Damaged LVM2 members, always the same ones: an answer or a RestoreError, and soon.

Checksums are made right again for most of them, so that damage gets past the first look: the text,
the superblocks and bitmaps of arrays, mirror logs, a thin pool's trees and the tables of snapshots.
"""

import random
import re
from functools import cache

import pytest

from restorefs.errors import RestoreError
from restorefs.volumes.lvm2.scheme import Lvm2
from tests.contracts.devices import MeteredDevice, TooManySteps
from tests.contracts.groups import check_group, digest
from tests.contracts.mutation import LINE, bounded_processor_time, mutate
from tests.images.lvm.repair import BLOCK, areas, repaired, text_of, thin_blocks
from tests.images.lvm.stored import disks

ROUNDS = 3
SETS = ("degraded", "thin", "snapshots", "others", "syncing", "crashed", "nested")
MUTANTS = 25
READS = 200_000
LENGTH = 1 << 30
SECONDS = 20

WORD = re.compile(rb"[A-Za-z0-9_-]+")
MAGICS = (b"DmRd", b"bitm", b"RiMD", b"SnAp", b"rRiM")


@cache
def lines_of(name: str, number: int) -> tuple[list[int], dict[int, int]]:
    """Return where a disk has what describes something, and its thin metadata's blocks."""
    disk = disks(name)[number]
    places = [(512, 512)]
    for start, _ in areas(disk):
        places.append((start, 64))
        text = text_of(disk, start)
        assert text is not None
        places += [text] * 4  # most of what there is to understand
    blocks = thin_blocks(disk)
    places += [(at, BLOCK) for at in blocks]
    for at in range(0, len(disk), 512):
        head = disk[at : at + 4]
        if head in MAGICS:
            places += [(at, 512), (at + 4096, 256)]
        if head in (b"SnAp", b"pAnS", b"sNaP"):
            places += [(at, 16), (at + 4096, 2048), (at + 16384, 1024)]
    lines = [
        line
        for at, size in places
        for line in range(at // LINE * LINE, min(at + size, len(disk)), LINE)
        if any(disk[line : line + LINE])
    ]
    return lines, blocks


async def outcome(contents: list[bytes], what: str) -> str:
    """Return what all volumes read as, in one string."""
    try:
        with bounded_processor_time(SECONDS):
            members = []
            for content in contents:
                try:
                    device = MeteredDevice(content, READS, LENGTH)
                    members.append(await Lvm2.read_member(device))
                except RestoreError:
                    continue
            found = []
            for group in await Lvm2.assemble(members):
                await check_group(Lvm2, group)
                found += [await digest(volume) for volume in group.volumes]
            return " ".join(found)
    except TooManySteps as error:
        raise AssertionError(f"{what}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("name", SETS)
async def test_damaged_members(name: str, round_: int) -> None:
    sound = disks(name)
    outcomes = {await outcome(list(sound), f"{name} undamaged")}
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        chance = random.Random(seed)
        number = chance.randrange(len(sound))
        lines, blocks = lines_of(name, number)
        worded = chance.random() < 0.5
        damaged = reworded(sound[number], chance) if worded else mutate(sound[number], lines, seed)
        if chance.random() < 0.9:
            damaged = repaired(damaged, sound[number], blocks)
        contents = list(sound)
        contents[number] = damaged
        if worded or chance.random() < 0.5:  # it is the only one then to say anything
            contents = [damaged if n == number else _silent(c) for n, c in enumerate(contents)]
        outcomes.add(await outcome(contents, f"{name}, seed {seed}"))
    assert len(outcomes) > 2, "no damage made a difference"


def reworded(disk: bytes, chance: random.Random) -> bytes:
    """Return a member whose text has other numbers and names in some places."""
    changed = bytearray(disk)
    for start, _ in areas(disk):
        place = text_of(disk, start)
        assert place is not None
        at, size = place
        words = list(WORD.finditer(disk, disk.index(b"logical_volumes", at), at + size))
        for _ in range(chance.choice((1, 2, 4, 8))):
            word = chance.choice(words)
            length = len(word[0])
            others = [other[0] for other in words if len(other[0]) == length]
            if word[0].isdigit():
                others = [b"%0*d" % (length, chance.randrange(10**length)), b"0" * length]
            changed[word.start() : word.end()] = chance.choice(others)
    return bytes(changed)


def _silent(disk: bytes) -> bytes:
    """Return a member without its copy of the text."""
    content = bytearray(disk)
    for start, _ in areas(disk):
        content[start : start + 512] = bytes(512)
    return bytes(content)
