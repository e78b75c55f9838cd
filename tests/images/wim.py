"""Content compressed as Windows' overlay filter (WOF) stores it, by wimlib.

A compressed resource of a WIM file and a WofCompressedData stream have the same bytes: a table of
where each chunk but the first begins, then the chunks. So wimlib-imagex captures the content, and
the resource is cut out of the WIM ("Windows Imaging File Format (WIM)", Microsoft's white paper:
the header's lookup table, and its entries of 50 bytes with a SHA-1 each).

Concurrency: none.
"""

import hashlib
import struct
import tempfile
from pathlib import Path

from tests.tools import require, run

METHODS = {
    "XPRESS4K": (0, "XPRESS", 4096),
    "LZX": (1, "LZX", 32_768),
    "XPRESS8K": (2, "XPRESS", 8192),
    "XPRESS16K": (3, "XPRESS", 16_384),
}
"""By name: the number in FILE_PROVIDER_EXTERNAL_INFO_V1, wimlib's name, and the chunk size."""


def wof_compressed(content: bytes, method: str) -> bytes:
    """Return a WofCompressedData stream. Skips the test where wimlib is missing; AssertionError
    if the content does not become smaller."""
    require("wimlib-imagex")
    _, name, chunk = METHODS[method]
    with tempfile.TemporaryDirectory() as folder:
        source, wim = Path(folder, "source"), Path(folder, "out.wim")
        source.mkdir()
        (source / "content").write_bytes(content)
        options = ["--compress", name, "--chunk-size", str(chunk), "--no-acls"]
        run("wimlib-imagex", "capture", source, wim, *options)
        data = wim.read_bytes()
    assert data[:8] == b"MSWIM\0\0\0"
    size, table = struct.unpack_from("<QQ", data, 48)
    for entry in range(table, table + (size & (1 << 56) - 1), 50):
        if data[entry + 30 : entry + 50] == hashlib.sha1(content).digest():
            size, offset = struct.unpack_from("<QQ", data, entry)
            assert size >> 56 & 4, "stored without compression"
            return data[offset : offset + (size & (1 << 56) - 1)]
    raise AssertionError("wimlib did not keep the content")
