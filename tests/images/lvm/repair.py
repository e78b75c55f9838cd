"""Makes checksums right again, so that what a test has changed is read.

Knows where LVM2's label and metadata areas are, and a thin pool's blocks, from the same
documentation as the readers; calculates by itself.
"""

import struct

from google_crc32c import extend

from tests.images.lvm.handmade import crc

SECTOR, BLOCK = 512, 4096
LABEL_AT = 512
THIN_XORS = (160774, 121107)


def areas(disk: bytes) -> list[tuple[int, int]]:
    """Return offset and size of the metadata areas of a volume with its label in sector 1."""
    places = [struct.unpack_from("<QQ", disk, LABEL_AT + 72 + 16 * n) for n in range(8)]
    ends = [number for number, place in enumerate(places) if place[0] == 0]
    return places[ends[0] + 1 : ends[1]] if len(ends) > 1 else []


def text_of(disk: bytes, start: int) -> tuple[int, int] | None:
    """Return offset and size of the text of an area, if it is in one piece."""
    _, _, size = struct.unpack_from("<IQQ", disk, start + 20)
    offset, length, _, _ = struct.unpack_from("<QQII", disk, start + 40)
    if offset == 0 or offset + length > size or start + offset + length > len(disk):
        return None
    return start + offset, length


def thin_blocks(disk: bytes) -> dict[int, int]:
    """Return where sound blocks of a thin pool's metadata are, and what their checksum is of."""
    found = {}
    for at in range(0, len(disk) - BLOCK + 1, BLOCK):
        stored = int.from_bytes(disk[at : at + 4], "little")
        if stored:
            for xor in THIN_XORS:
                if stored == thin_checksum(disk, at, xor):
                    found[at] = xor
    return found


def thin_checksum(disk: bytes, at: int, xor: int) -> int:
    return int(extend(0, bytes(disk[at + 4 : at + BLOCK]))) ^ 0xFFFFFFFF ^ xor


def repaired(disk: bytes, sound: bytes, blocks: dict[int, int] | None = None) -> bytes:
    """Return a changed disk with right checksums, wherever the sound one has any."""
    fixed = bytearray(disk)
    if len(disk) != len(sound):
        return disk
    for at, xor in (thin_blocks(sound) if blocks is None else blocks).items():
        struct.pack_into("<I", fixed, at, thin_checksum(fixed, at, xor))
    for start, _ in areas(sound):
        place = text_of(fixed, start)
        if place is not None:
            text = bytes(fixed[place[0] : sum(place)])
            struct.pack_into("<I", fixed, start + 56, crc(text))
        struct.pack_into("<I", fixed, start, crc(bytes(fixed[start + 4 : start + SECTOR])))
    label = bytes(fixed[LABEL_AT + 20 : LABEL_AT + SECTOR])
    struct.pack_into("<I", fixed, LABEL_AT + 16, crc(label))
    return bytes(fixed)


def with_text(disk: bytes, old: bytes, new: bytes) -> bytes:
    """Return a disk on which the current text says something else, as long as before."""
    assert len(old) == len(new)
    changed = bytearray(disk)
    for start, _ in areas(disk):
        place = text_of(disk, start)
        assert place is not None
        text = disk[place[0] : sum(place)]
        assert old in text
        changed[place[0] : sum(place)] = text.replace(old, new)
    return repaired(bytes(changed), disk)
