"""The two ways to what stat(2) shows of an NTFS file, and to the names in a folder: at once, and
one attribute or name by the other."""

from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.base import Attributes
from restorefs.guestfs.decoders import ntfs_names, ntfs_record
from restorefs.guestfs.ntfs.attributes import (
    plain_attributes,
    require_content,
    summarise,
)
from restorefs.guestfs.ntfs.files import decode_file
from restorefs.guestfs.ntfs.index import Node, decode_names
from restorefs.guestfs.ntfs.layout import DOS, checked_record
from restorefs.guestfs.ntfs.names import shown_or_repaired
from tests.compiled import uncompiled

_UNCOMPILED = uncompiled(ntfs_record)
_UNCOMPILED_NAMES = uncompiled(ntfs_names)
BASE = 7 << 20
Names = list[tuple[bytes, int, int, bool]]


def long_names(node: Node) -> Names | None:
    """Return the names of a node as a folder lists them, None for a damaged one."""
    try:
        return [
            (shown, reference, BASE | behind, impossible)
            for name, namespace, reference, behind in decode_names(node)
            if namespace != DOS
            for shown, impossible in [shown_or_repaired(name)]
        ]
    except DamagedError:
        return None


def short_names(node: Node) -> Names | None:
    """Return the same, or None where the short way does not lead there; compiled or not."""
    found: Names | None = ntfs_names.plain_names(*node, BASE)
    assert found == _UNCOMPILED_NAMES.plain_names(*node, BASE)
    return found


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
