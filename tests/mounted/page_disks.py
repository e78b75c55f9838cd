"""Backups that the page has a hard time with, beside the sample's.

Owns what is in them. Knows nothing of restorefs. Concurrency: none.
"""

import os
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path

from tests.mounted.disks import LINUX, MIB, Sample, empty, ext, gpt, qcow2
from tests.tools import loop_mount, require, run

MANY = 100_000
DEPTH = 103  # of the folders in `deep`
ANNA, STAFF = 1000, 50  # who owns what is in `home`
SCRIPT = "window.ranFromGuest = true; alert('ran'); console.error('ran')"
HTML = f'<!doctype html><title>ran</title><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}">'
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{SCRIPT}"><script>{SCRIPT}</script></svg>'

HOSTILE: dict[bytes, bytes] = {
    b"evil.html": HTML.encode(),
    b"evil.svg": SVG.encode(),
    b"html-as.png": HTML.encode(),
    b"svg-as.jpg": SVG.encode(),
    b"<img src=x onerror=alert(1)>.txt": b"a name of markup\n",
    b'"><script>alert(2)<&#47;script>': b"another\n",
    b"javascript:alert(3)": b"a third\n",
    b"..%2f..%2fetc%2fpasswd?x=1#y&z": b"signs of addresses\n",
    b"latin1-gr\xf6\xdfe \xff.txt": b"bytes that are no UTF-8\n",
    b"line\nbreak\x01\x7f.txt": b"controls\n",
    "turn\u202etxt.exe".encode(): b"another direction\n",
    "עברית-العربية.txt".encode(): b"from right to left\n",
    b"n" * 255: b"long\n",
}


# What somebody has at home: a size of None is a folder, and the time is that of the change.
HOME: dict[str, tuple[int | None, str]] = {
    "Documents": (None, "2023-11-13 08:12"),
    "Pictures": (None, "2023-08-27 19:40"),
    "Projects": (None, "2023-11-14 16:02"),
    "Budget 2023.xlsx": (48_213, "2023-11-10 09:31"),
    "Invoice 0417.pdf": (186_412, "2023-10-02 11:05"),
    "Letter to the bank.odt": (23_552, "2023-11-14 15:47"),
    "Map of the office.svg": (9_120, "2022-03-18 13:22"),
    "backup-keys.kdbx": (2_734, "2023-09-30 22:10"),
    "mail-archive.mbox": (31_457_280, "2023-11-14 21:58"),
    "notes.txt": (1_204, "2023-11-14 20:15"),
    "übersetzung-日本語.docx": (71_680, "2023-07-05 10:00"),
}


def png(width: int, height: int) -> bytes:
    """A picture: a gradient."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, 160)) for x in range(width))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


class PageSample:
    """The sample's images and two more backups, in a folder of its own.

    backup-files-1700000000/disk0   GPT: ext4 with `hostile`, `pictures`, `home`, `deep` and
                                    `many`, and a Btrfs
    backup-gone-1700000000/disk0    an image that can be removed
    """

    files = "backup-files-1700000000"
    gone = "backup-gone-1700000000"

    def __init__(self, folder: Path, sample: Sample) -> None:
        require("mkfs.btrfs")
        self.sample = sample
        self.repository = folder / "repository"
        run("cp", "--recursive", "--link", sample.repository, self.repository)
        source = folder / "source"
        self.pictures = source / "pictures"
        for each in (source / "hostile", self.pictures):
            each.mkdir(parents=True)
        for name, content in HOSTILE.items():
            Path(os.fsdecode(os.fsencode(source / "hostile") + b"/" + name)).write_bytes(content)
        picture = png(320, 200)
        (self.pictures / "gradient.png").write_bytes(picture)
        (self.pictures / "cut.png").write_bytes(picture[: len(picture) // 2])
        (self.pictures / "fake.gif").write_bytes(b"GIF89a" + b"\x40\x01" * 2 + bytes(100))
        below = source / "deep"
        for level in range(DEPTH):
            below /= str(level)
        below.mkdir(parents=True)
        self._make_home(source / "home" / "anna")
        root = ext(
            folder / "root",
            "ext4",
            source,
            96 * MIB,
            "-N",
            "110000",
            "-I",
            "256",
            "-L",
            "files",
        )
        with loop_mount(root, "ext4", "rw") as mounted:
            many = mounted / "many"
            many.mkdir()
            for number in range(MANY):
                # Sizes and times, so that there is something to sort by.
                path = many / f"entry-{number:06d}.log"
                fd = os.open(path, os.O_CREAT | os.O_WRONLY)
                if number % 25_000 == 7:
                    os.write(fd, b"x" * (1 + number // 25_000))
                os.close(fd)
            for path in (mounted / "home" / "anna").rglob("*"):
                os.chown(path, ANNA, STAFF)
        btrfs = empty(folder / "btrfs", 128 * MIB)
        run("mkfs.btrfs", "--quiet", "--label", "pool", btrfs)
        disk = gpt(folder / "disk", (LINUX, root), (LINUX, btrfs))
        qcow2(disk, self.repository / self.files / "disk0.qcow2")
        (self.repository / self.gone).mkdir()
        self.image = self.repository / self.gone / "disk0.qcow2"
        self.restore()
        for left in (root, btrfs, disk):
            left.unlink()

    def _make_home(self, home: Path) -> None:
        home.mkdir(parents=True)
        for name, (size, changed) in HOME.items():
            path = home / name
            if size is None:
                path.mkdir()
            else:
                empty(path, size)
            at = datetime.fromisoformat(changed).replace(tzinfo=UTC).timestamp()
            os.utime(path, (at, at))

    def restore(self) -> None:
        """Have the image there that a test removed."""
        self.image.unlink(missing_ok=True)
        os.link(self.sample.repository / Sample.other / "disk0.qcow2", self.image)
