"""Security descriptors: those that files share, in $Secure, and those of their own.

Owns the way from a security id to a descriptor, and a small memory of them. Source: linux-ntfs,
"$Secure" ($SII, $SDS) and "$SECURITY_DESCRIPTOR".

Concurrency: any number of calls may be in flight.
"""

import struct

from restorefs.block.base import ByteLength
from restorefs.errors import DamagedError, NotFoundError
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.index import Index, open_index
from restorefs.guestfs.ntfs.layout import DATA, SECURE, SECURITY_DESCRIPTOR
from restorefs.guestfs.ntfs.streams import Stream

_SII, _SDS = ("$SII".encode("utf-16-le"), "$SDS".encode("utf-16-le"))
_VIEW = struct.Struct("<HH")  # where an entry's data lies, and its length
_PLACE = struct.Struct("<IIQI")  # hash, id, offset, size: also what precedes a descriptor in $SDS
_COPY_AT = 0x40000  # each 256 KiB of descriptors is followed by a copy of it
_KEPT = 1024
_MAX_DESCRIPTOR: ByteLength = 1 << 20


class Security:
    """The security descriptors of a volume."""

    def __init__(self, files: FileTable) -> None:
        self._files = files
        self._shared: Lru[int, bytes] = Lru(_KEPT)
        self._opened: tuple[Index, Stream] | None = None

    async def descriptor(self, file: File, security_id: int) -> bytes:
        """Return a file's security descriptor, b"" where it has none. Raises DamagedError."""
        own = await self._files.value(file, SECURITY_DESCRIPTOR, _MAX_DESCRIPTOR)
        if own or not security_id:
            return own
        found = self._shared.get(security_id)
        if found is None:
            found = await self._read_shared(security_id)
            self._shared.put(security_id, found)
        return found

    async def _read_shared(self, security_id: int) -> bytes:
        index, stream = await self._secure()
        found = await index.find(security_id, lambda key: int.from_bytes(key[:4], "little"))
        if not found:
            raise DamagedError(f"there is no security descriptor {security_id}")
        node, entry = found[0]
        offset, length = _VIEW.unpack_from(node.data, entry.start)
        if length < _PLACE.size or offset + length > node.end - entry.start:
            raise DamagedError("the index of security descriptors is damaged")
        place = _PLACE.unpack_from(node.data, entry.start + offset)
        _, _, start, size = place
        if not _PLACE.size < size <= _MAX_DESCRIPTOR or place[1] != security_id:
            raise DamagedError(f"security descriptor {security_id} is damaged")
        for at in (start, start + _COPY_AT):
            try:
                raw = await self._files.read(stream, at, size)
            except DamagedError:
                continue
            if _PLACE.unpack_from(raw) == place and _hash(raw[_PLACE.size :]) == place[0]:
                return raw[_PLACE.size :]
        raise DamagedError(f"security descriptor {security_id} is damaged")

    async def _secure(self) -> tuple[Index, Stream]:
        if self._opened is None:
            try:
                file = await self._files.file(SECURE)
            except NotFoundError as error:
                raise DamagedError(f"$Secure: {error}") from None
            index = await open_index(self._files, file, _SII)
            stream = await self._files.stream(file, DATA, _SDS)
            if index is None or stream is None:
                raise DamagedError("$Secure has no security descriptors")
            self._opened = (index, stream)
        return self._opened


def _hash(descriptor: bytes) -> int:
    """Return what $Secure calls a descriptor's hash ("$Secure"): each little-endian 32-bit number
    is added to the sum before it, rotated left by 3."""
    found = 0
    for (number,) in struct.iter_unpack("<I", descriptor[: len(descriptor) & ~3]):
        found = (number + (found << 3 | found >> 29)) & 0xFFFFFFFF
    return found
