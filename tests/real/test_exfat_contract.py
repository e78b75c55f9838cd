"""The contract of every GuestFilesystem, kept by the exFAT reader."""

import datetime
import struct

import pytest

from restorefs.guestfs.exfat.reader import ExfatFilesystem
from tests.contracts.devices import MemoryDevice, WatchedDevice
from tests.contracts.guestfs import GuestFilesystemContract, Known
from tests.images.exfat import (
    ATTRIBUTES,
    CREATED,
    CREATED_10MS,
    VALID_LENGTH,
    Image,
    Images,
    mounted,
)


class TestExfatContract(GuestFilesystemContract):
    reader = ExfatFilesystem

    @pytest.fixture(params=["exfat_512", "exfat_4k"])
    async def known(self, request: pytest.FixtureRequest, exfat_images: Images) -> Known:
        path = exfat_images(request.param)
        with mounted(path) as root:
            content = (root / "sizes/300000").read_bytes()
            sparse_content = bytearray((root / "pieces/one").read_bytes())
            names = frozenset(path.name.encode() for path in (root / "folders/many").iterdir())
        image = Image(path.read_bytes())
        # A file about which there is nothing that Linux would not show anyway.
        image.put("300000", ATTRIBUTES, "<H", 0)
        image.put("300000", CREATED, "<I", 0)
        image.put("300000", CREATED_10MS, "<B", 0)
        # "one" is also a folder's name: the file is the one behind it.
        end = len(sparse_content) - 1000
        start = next(at for at in sets_of(image, "one") if not image.data[at + ATTRIBUTES] & 0x10)
        struct.pack_into("<Q", image.data, start + VALID_LENGTH, end)
        image.seal(start)
        sparse_content[end:] = bytes(1000)
        deep = image.set_of("deep-1")
        stamp, ten_ms, zone = (
            image.get("deep-1", CREATED, "<I"),
            image.get("deep-1", CREATED_10MS, "<B"),
            image.get("deep-1", CREATED + 14, "<B"),
        )
        assert zone == 0x80
        device = WatchedDevice(MemoryDevice(bytes(image.data)))
        return Known(
            fs=await ExfatFilesystem.open(device),
            device=device,
            file=b"sizes/300000",
            content=content,
            sparse=b"pieces/one",
            sparse_content=bytes(sparse_content),
            folder=b"folders/many",
            names=names,
            nested=b"deep-0/deep-1",
            link=None,
            target=None,
            attributed=b"deep-0/deep-1",
            xattrs={b"user.DOSATTRIB": samba_attributes(0x10, stamp, ten_ms)},
            unused=deep // 32 + 1,
        )


def sets_of(image: Image, name: str) -> list[int]:
    """Return where all sets with a name of up to 15 characters begin."""
    raw = name.encode("utf-16-le")
    found = []
    for at in range(image.heap, len(image.data), 32):
        if image.data[at] == 0x85 and image.data[at + 64] == 0xC1:
            length = 2 * image.data[at + 35]
            if image.data[at + 66 : at + 66 + length] == raw:
                found.append(at)
    return found


def samba_attributes(attributes: int, stamp: int, ten_ms: int) -> bytes:
    """Return what Samba's NDR makes of attributes and a DOS time in UTC, version 3."""
    time = datetime.datetime(
        1980 + (stamp >> 25),
        stamp >> 21 & 15,
        stamp >> 16 & 31,
        stamp >> 11 & 31,
        stamp >> 5 & 63,
        (stamp & 31) * 2,
    )
    since_1601 = time - datetime.datetime(1601, 1, 1)
    units = (since_1601.days * 86400 + since_1601.seconds) * 10**7 + ten_ms * 10**5
    return b"0x%x\0\0\3\0\3\0\0\0" % attributes + struct.pack(
        "<IIIQQQQ", 0x11, attributes, 0, 0, 0, units, 0
    )
