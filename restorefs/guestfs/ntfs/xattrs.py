"""Extended attributes: what NTFS knows about a file and stat(2) has no place for.

Owns their names and the layouts of their values:

- user.DOSATTRIB as Samba reads it (guestfs/dosattrib.py).
- system.ntfs_attrib_be, system.ntfs_crtime_be, system.ntfs_acl, system.ntfs_object_id,
  system.ntfs_dos_name, system.ntfs_reparse_data as NTFS-3G's documentation describes them
  ("Extended Attributes"): big-endian DOS attributes and creation time, the descriptor as stored,
  16 to 64 bytes of object id, the 8.3 name, and the whole reparse point.
- user.<name>: a named stream of at most 64 KiB. Larger and encrypted ones are not among them, nor
  count; where the others are too many, that is an error, as some of them would be missing.

Concurrency: any number of calls may be in flight.
"""

import stat

import trio

from restorefs.errors import DamagedError, UnsupportedError
from restorefs.guestfs import dosattrib
from restorefs.guestfs.base import Inode
from restorefs.guestfs.ntfs.attributes import summarise
from restorefs.guestfs.ntfs.content import Content
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.inodes import Inodes, Special, stream_names
from restorefs.guestfs.ntfs.layout import (
    DOS,
    DOS_FOLDER,
    FILE_NAME,
    OBJECT_ID,
    decode_file_name,
    to_ns,
)
from restorefs.guestfs.ntfs.names import shown
from restorefs.guestfs.ntfs.reparse import KINDS, WOF
from restorefs.guestfs.ntfs.security import Security

LARGEST_VALUE = 64 << 10
_LARGEST_NAME = 255
_DOS_ATTRIBUTES = 0xFFFF
_HIDDEN_BY_WOF = 0x0600  # sparse, reparse point
_OBJECT_ID_BYTES = 64
_PACE = 64


class Xattrs:
    """The extended attributes of all files of a volume."""

    def __init__(
        self, files: FileTable, inodes: Inodes, content: Content, security: Security
    ) -> None:
        self._files = files
        self._inodes = inodes
        self._content = content
        self._security = security

    async def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """As GuestFilesystem.xattrs()."""
        file, stream = (await self._inodes.node(inode))[1:]
        if stream:
            return {}
        summary = summarise(file)
        special = await self._inodes.special(file)
        kind = KINDS.get(special.tag)
        standard = summary.standard
        dos = shown_dos(standard.dos, file, special)
        found = {
            b"system.ntfs_attrib_be": dos.to_bytes(4, "big"),
            b"system.ntfs_crtime_be": standard.created.to_bytes(8, "big"),
        }
        descriptor = await self._security.descriptor(file, standard.security)
        if descriptor:
            found[b"system.ntfs_acl"] = descriptor
        object_id = await self._files.value(file, OBJECT_ID, _OBJECT_ID_BYTES)
        if object_id:
            found[b"system.ntfs_object_id"] = object_id
        for attribute in file.attributes:
            if attribute.kind == FILE_NAME:
                name = decode_file_name(attribute.body)
                if name.namespace == DOS:
                    found[b"system.ntfs_dos_name"] = shown(name.name)
        if special.reparse is not None and special.tag != WOF:
            found[b"system.ntfs_reparse_data"] = special.reparse.raw
        if kind is None or kind in (stat.S_IFREG, stat.S_IFDIR):
            # Linux has no user attributes on what is neither a file nor a folder.
            found[dosattrib.NAME] = dosattrib.encode(dos & _DOS_ATTRIBUTES, to_ns(standard.created))
            await self._add_streams(found, file)
        return found

    async def _add_streams(self, found: dict[bytes, bytes], file: File) -> None:
        room = self._files.mft.limits.xattr_bytes
        for count, stored in enumerate(stream_names(file)):
            if not count % _PACE:
                await trio.lowlevel.checkpoint()
            name = b"user." + shown(stored)
            if name in found or len(name) > _LARGEST_NAME or b"\0" in name:
                continue
            try:
                source = await self._content.named(file, stored)
            except UnsupportedError:
                continue  # reading it as file:stream says why
            size = source.stream.size
            if size > LARGEST_VALUE:
                continue
            room -= size
            if room < 0:
                raise DamagedError(f"the named streams of file {file.number} are too large")
            found[name] = await self._content.read(source, 0, size)


def shown_dos(dos: int, file: File, special: Special) -> int:
    """Return DOS attributes as Windows shows them: of a file compressed by WOF, which it unpacks,
    without what says so; of a folder, with the bit that the record's header has."""
    if special.tag == WOF:
        dos &= ~_HIDDEN_BY_WOF
    dos &= 0x0FFFFFFF
    return dos | DOS_FOLDER if file.is_folder else dos
