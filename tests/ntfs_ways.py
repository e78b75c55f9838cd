"""The two ways to what stat(2) shows of an NTFS file: at once, and attribute by attribute."""

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes
from restorefs.guestfs.decoders import ntfs_record
from restorefs.guestfs.ntfs.attributes import (
    plain_attributes,
    require_content,
    summarise,
)
from restorefs.guestfs.ntfs.files import decode_file
from restorefs.guestfs.ntfs.layout import checked_record
from tests.decoders import uncompiled

_UNCOMPILED = uncompiled(ntfs_record)


def long_way(piece: bytes, start: int, size: int, number: int) -> Attributes | None:
    """Return a plain file's attributes, None for any other."""
    try:
        file, lists = decode_file(checked_record(piece, start, size, number), number)
        summary = summarise(file)
        if lists or not summary.is_plain:
            return None
        require_content(file, summary)
        return plain_attributes(file, summary, number)
    except (DamagedError, NotFoundError):
        return None


def short_way(
    piece: bytes, start: int, size: int, number: int, sequence: int = 0
) -> Attributes | None:
    """Return the same, or None where the short way does not lead there. It must be the same
    whether or not the decoder is compiled.

    sequence: that the reference expects, 0 for any.
    """
    found, also = (
        decoder.plain_files(piece, [(number, start)], {number: sequence << 48 | number}, size)
        for decoder in (ntfs_record, _UNCOMPILED)
    )
    assert found == also
    attributes: Attributes | None = found[0]
    return attributes
