"""The two ways to what stat(2) shows of an NTFS file: at once, and attribute by attribute."""

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes
from restorefs.guestfs.ntfs.attributes import (
    RecordForm,
    plain_attributes,
    quick_attributes,
    require_content,
    summarise,
)
from restorefs.guestfs.ntfs.files import decode_file
from restorefs.guestfs.ntfs.layout import checked_record


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


def short_way(piece: bytes, start: int, size: int, number: int) -> Attributes | None:
    """Return the same, or None where the short way does not lead there."""
    return quick_attributes(piece, start, RecordForm.of(size), number, 0)
