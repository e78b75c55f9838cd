"""Overlay-compressed content that wimlib made of real files: whole, and in any piece of it.

The stream of the Windows Overlay Filter is laid out as a WIM's compressed resource is, so wimlib is
an encoder of it that is not ours.
"""

import random
import struct
import sys
from pathlib import Path

import pytest

from restorefs.guestfs.ntfs.wof import WofFile
from tests.images.wim import METHODS, wof_compressed


def program() -> bytes:
    """x86 code, for the translation of calls, and much else."""
    return Path(sys.executable).read_bytes()[:3_000_000]


def text() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(Path(random.__file__).parent.glob("*.py")))


def mixed() -> bytes:
    """Runs, noise (chunks that are kept plainly) and text, and an end that fits no chunk."""
    choose = random.Random("wof")
    words = text()[:100_000]
    out = b""
    while len(out) < 1_000_000:
        start = choose.randrange(50_000)
        out += choose.choice(
            (
                choose.randbytes(choose.randrange(40_000)),
                bytes([choose.randrange(256)]) * choose.randrange(50_000),
                words[start : start + choose.randrange(50_000)],
            )
        )
    return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [program, text, mixed], ids=lambda make: make.__name__)
async def test_content_is_what_was_compressed(make, method) -> None:
    content = make()[:2_000_000]
    stream = wof_compressed(content, method)
    assert len(stream) < len(content)

    async def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(stream)
        return stream[offset : offset + length]

    number = METHODS[method][0]
    reparse = struct.pack("<4I", 1, 2, 1, number)
    file = WofFile(reparse, len(content), read, len(stream))
    assert await file.read(0, len(content)) == content
    choose = random.Random(number)
    for _ in range(60):
        start = choose.randrange(len(content))
        length = choose.randrange(min(100_000, len(content) - start) + 1)
        assert await file.read(start, length) == content[start : start + length]
