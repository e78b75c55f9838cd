"""Damaged NTFS volumes with what ntfs-3g does not write: the reader answers, or says why not."""

import random
import struct
from pathlib import Path

import pytest

from restorefs.guestfs.ntfs.reader import NtfsFilesystem
from tests.contracts.mutation import LINE, assert_survives, mutate, used_lines
from tests.images.ntfs_bytes import (
    A_COMPRESSED,
    A_REPARSE,
    A_SPARSE,
    DATA,
    DOS,
    SPARSE,
    WIN32,
    Attribute,
    Volume,
    compressed,
    extended_attributes,
    junction,
    reparse,
    symlink,
)
from tests.images.wim import METHODS, wof_compressed

ROUNDS = 4
MUTANTS = 40
UPCASE = 131_072


def everything() -> Volume:
    """Return a small volume with every structure that the reader decodes."""
    volume = Volume(
        cluster=1024, index=1024, mft_runs=[32, 3], mft_parts=[1, 2], mft_extensions=[24, 33]
    )
    text = b"text, and again text, " * 300
    parts = [
        Attribute(DATA, runs=volume.store(text[:2048]), size=6144, record=1, allocated=6144),
        Attribute(DATA, runs=volume.store(text[2048:4096]), lowest=2, record=2),
        Attribute(DATA, runs=volume.store(text[4096:6144]), lowest=4, record=2),
        Attribute(DATA, "stream", text[:100], record=1),
    ]
    volume.file("listed", *parts, list_outside=True)
    volume.file("also listed", *(parts[:3]))
    packed = compressed(volume, b"a" * 20_000 + text + bytes(30_000) + b"b" * 5000)
    packed.valid = packed.size - 700
    volume.file("compressed", packed, dos_attributes=A_COMPRESSED)
    hole = Attribute(DATA, runs=[(None, 9)], size=9000, valid=0, flags=SPARSE)
    for method, (number, _, _) in METHODS.items():
        stream = Attribute(DATA, "WofCompressedData", runs=[], size=0)
        content = wof_compressed((text + bytes(3000))[:9000], method)
        stream.runs, stream.size = volume.store(content), len(content)
        tag = reparse(0x80000017, struct.pack("<4I", 1, 2, 1, number))
        volume.file(method, hole, stream, tag, dos_attributes=A_REPARSE | A_SPARSE)
    volume.file("symlink", symlink("folder\\file 1", relative=True), dos_attributes=A_REPARSE)
    volume.file("junction", junction("\\??\\C:\\folder"), entries=[], dos_attributes=A_REPARSE)
    wsl = extended_attributes({b"$LXMOD": b"\xa4\x81\0\0", b"$LXDEV": bytes(range(8))})
    volume.file("device", reparse(0x80000025, b""), *wsl, dos_attributes=A_REPARSE)
    folder = volume.folder("folder", index_pieces=3, index_records=2, leaf_entries=3)
    for number in range(40):
        file = volume.resident(f"File {number}", text[:number], parent=folder, namespace=WIN32)
        volume.link(file, f"FILE~{number}", folder, DOS)
    return volume


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return everything().write(tmp_path_factory.mktemp("ntfs") / "image").read_bytes()


@pytest.fixture(scope="module")
def lines(image: bytes) -> list[int]:
    """The lines that may be damaged: not those of $UpCase, which are most of them."""
    table = image.find(b"".join(struct.pack("<H", number) for number in range(32)))
    assert table > 0
    return [
        at
        for at in used_lines(image)
        if not table <= at < table + UPCASE and image[at : at + LINE] != b"\xff" * LINE
    ]


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_a_damaged_volume(round_: int, image: bytes, lines: list[int]) -> None:
    sound = await assert_survives(NtfsFilesystem, image, "undamaged")
    assert sound > 50
    outcomes = set()
    for seed in range(round_ * MUTANTS, (round_ + 1) * MUTANTS):
        damaged = mutate(image, lines, seed)
        outcomes.add(await assert_survives(NtfsFilesystem, damaged, f"seed {seed}"))
    assert len(outcomes) > 1, "no damage made a difference"


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_damaged_records(round_: int, image: bytes, lines: list[int]) -> None:
    """Most of a volume is not FILE records: damage those alone, and in several places each."""
    records = [at for at in lines if image[at & ~1023 : (at & ~1023) + 4] in (b"FILE", b"INDX")]
    chance = random.Random(round_)
    for number in range(MUTANTS):
        damaged = bytearray(image)
        for _ in range(chance.choice((1, 2, 5, 30))):
            at = chance.choice(records) + chance.randrange(LINE)
            damaged[at] = chance.choice((0, 1, 0xFF, 0x80, damaged[at] ^ 1, chance.randrange(256)))
        await assert_survives(NtfsFilesystem, bytes(damaged), f"mutant {number}")


def test_the_volume_is_small(tmp_path: Path) -> None:
    assert everything().write(tmp_path / "image").stat().st_size < 1 << 20
