"""Files and folders by inode.

Owns the way from an inode to its entry, its attributes, its folder or its extents, and a small
memory of folders. The root, which has no entry, has the inode 1, where the boot sector is. Must
not know names.

Concurrency: any number of calls may be in flight.
"""

from restorefs.block.base import ByteLength, ByteOffset
from restorefs.errors import DamagedError, IsAFolderError, NotAFolderError, NotFoundError
from restorefs.guestfs.base import Attributes, Extent, Inode
from restorefs.guestfs.fat.directory import (
    Entry,
    attributes_of,
    begins_as_folder,
    decode_entry,
    root_attributes,
)
from restorefs.guestfs.fat.folder import Folder, Stretch
from restorefs.guestfs.fat.layout import ENTRY_SIZE, Geometry
from restorefs.guestfs.fat.table import Table
from restorefs.guestfs.limits import Limits
from restorefs.guestfs.lru import Lru
from restorefs.guestfs.pieces import PieceReader

ROOT: Inode = 1
ROOT_CLUSTER = 0
"""How ".." entries call the root, whatever its cluster."""

NAMELESS: Inode = 1 << 48
"""Added to the inode of an entry with an impossible name: asking for that is an error."""

_KEPT_FOLDERS = 256


class FileTable:
    """All files and folders of a volume."""

    def __init__(
        self, reader: PieceReader, geometry: Geometry, codepage: str, limits: Limits
    ) -> None:
        self.geometry = geometry
        self.table = Table(reader.device, geometry, limits)
        self._reader = reader
        self._codepage = codepage
        self._limits = limits
        self._folders: Lru[int, Folder] = Lru(_KEPT_FOLDERS)

    async def entry(self, inode: Inode) -> Entry:
        """Return the entry of any inode but the root. Raises NotFoundError, DamagedError."""
        if inode & NAMELESS:
            raise DamagedError("a folder has an entry with an impossible name")
        offset = inode * ENTRY_SIZE
        geometry = self.geometry
        in_root = geometry.root_start <= offset < geometry.root_start + geometry.root_size
        data_end = geometry.cluster_start(geometry.end_cluster)
        if not in_root and not geometry.data_start <= offset < data_end:
            raise NotFoundError(f"there is no inode {inode}")
        entry = decode_entry(await self._reader.read(offset, ENTRY_SIZE))
        if entry is None:
            raise NotFoundError(f"inode {inode} is not in use")
        return entry

    async def attributes(self, inode: Inode) -> Attributes:
        """Raises NotFoundError, DamagedError."""
        if inode == ROOT:
            size = self.geometry.root_size or await self._chain_size(self.geometry.root_cluster)
            return root_attributes(ROOT, size, self.geometry.cluster_size)
        return await self.attributes_of(inode, await self.entry(inode))

    async def attributes_of(self, inode: Inode, entry: Entry) -> Attributes:
        """Return the attributes that an entry, known to be this inode's, says. Raises
        DamagedError."""
        if not entry.is_folder:
            return self.file_attributes(inode, entry)
        size = await self._chain_size(entry.cluster(self.geometry.bits))
        return attributes_of(entry, inode, size, self.geometry.cluster_size)

    def file_attributes(self, inode: Inode, entry: Entry) -> Attributes:
        """Return the attributes of what is no folder, without I/O."""
        return attributes_of(entry, inode, entry.size, self.geometry.cluster_size)

    async def _chain_size(self, cluster: int) -> ByteLength:
        return (await self.table.whole_chain(cluster)).length * self.geometry.cluster_size

    async def folder(self, inode: Inode) -> Folder:
        """Raises NotAFolderError, NotFoundError, DamagedError."""
        if inode == ROOT:
            return await self.folder_at(ROOT_CLUSTER)
        entry = await self.entry(inode)
        if not entry.is_folder:
            raise NotAFolderError(f"inode {inode} is not a folder")
        cluster = entry.cluster(self.geometry.bits)
        if cluster == ROOT_CLUSTER:
            raise DamagedError(f"folder {inode} has no clusters")
        return await self.folder_at(cluster)

    async def folder_at(self, cluster: int) -> Folder:
        """Return the folder that begins at a cluster. Raises DamagedError where none does."""
        folder = self._folders.get(cluster)
        if folder is None:
            folder = await self._open_folder(cluster)
            self._folders.put(cluster, folder)
        return folder

    async def _open_folder(self, cluster: int) -> Folder:
        geometry = self.geometry
        is_root = cluster in (ROOT_CLUSTER, geometry.root_cluster)
        if is_root and geometry.root_size:
            stretches = [Stretch(0, geometry.root_start, geometry.root_size)]
            return Folder(self._reader, stretches, "", self._codepage)
        chain = await self.table.whole_chain(geometry.root_cluster if is_root else cluster)
        size = geometry.cluster_size
        stretches = [
            Stretch(run.place * size, geometry.cluster_start(run.cluster), run.length * size)
            for run in chain.runs(0, chain.length)
        ]
        folder = Folder(self._reader, stretches, chain.fault, self._codepage)
        if not chain.length:
            raise DamagedError(f"a folder has no cluster {cluster}")
        if not is_root and not begins_as_folder(await folder.read(0, 2 * ENTRY_SIZE)):
            raise DamagedError(f"what begins at cluster {cluster} is not a folder")
        return folder

    async def extents(self, inode: Inode, offset: ByteOffset, length: ByteLength) -> list[Extent]:
        """Say where a range of a file lies.

        Raises IsAFolderError, NotFoundError, and DamagedError where the chain of clusters breaks
        off before the range's end.
        """
        if inode == ROOT:
            raise IsAFolderError("the root is a folder")
        entry = await self.entry(inode)
        if entry.is_folder:
            raise IsAFolderError(f"inode {inode} is a folder")
        if not 0 <= offset <= offset + length <= entry.size:
            raise DamagedError(f"inode {inode} ends before byte {offset + length}")
        if not length:
            return []
        geometry = self.geometry
        size = geometry.cluster_size
        chain = await self.table.chain(entry.cluster(geometry.bits), -(-entry.size // size))
        if offset + length > chain.length * size:
            raise DamagedError(
                f"the chain of clusters of inode {inode} breaks off at byte {chain.length * size}: "
                f"{chain.fault}"
            )
        extents = []
        for run in chain.runs(offset // size, -(-(offset + length) // size)):
            start = max(offset, run.place * size)
            end = min(offset + length, (run.place + run.length) * size)
            place = geometry.cluster_start(run.cluster) + start - run.place * size
            self._reader.device.check_range(place, end - start)
            extents.append(Extent(place, end - start))
        return extents
