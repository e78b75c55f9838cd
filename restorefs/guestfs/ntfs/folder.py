"""Folders: the $I30 index of a file.

Owns the order of listings, their cookies and batches, and what a name means in a folder. A cookie
is the number of an index block (0 for the root, which is none) and a position in it. Must not know
what the files are. Source: linux-ntfs, "$FILE_NAME", "$INDEX_ROOT".

Names of the namespace DOS are other names for files that have one to be listed: they are found,
but not listed. A name is searched as it is, and then without regard to case, as Windows does;
where that fits several files, it is none.

Concurrency: any number of calls may be in flight.
"""

from collections.abc import Sequence
from typing import TypeAlias

import trio

from restorefs.errors import DamagedError, NotFoundError, UnsupportedError
from restorefs.guestfs.decoders.ntfs_names import plain_names
from restorefs.guestfs.ntfs.files import File, FileTable
from restorefs.guestfs.ntfs.index import Index, NameRecord, Node, decode_names, open_index
from restorefs.guestfs.ntfs.kept import Kept
from restorefs.guestfs.ntfs.layout import (
    DATA,
    DOS,
    FILE_NAME,
    I30,
    RECORD_MASK,
    ROOT,
    UPCASE,
    RecordNumber,
    decode_file_name,
)
from restorefs.guestfs.ntfs.names import (
    REPLACEMENT,
    UPCASE_SIZE,
    Upcase,
    shown_or_repaired,
    shown_together,
    stored,
)

_POSITION_BITS = 20
_FIRST_BLOCKS, _BLOCKS = 4, 128
_FEWEST = 64
_PACE = 32
_SCANNED_AT_ONCE = 16
_KEPT_INDEXES = 64
_NAME_IN_KEY = 0x42
_LENGTH_IN_KEY = 0x40


Name: TypeAlias = tuple[bytes, int, int, bool]
"""A name in a folder, as shown; the file's reference; a cookie; and whether it is impossible: no
file is named so, the shown name is a makeshift."""


class Folders:
    """All folders of a volume."""

    def __init__(self, files: FileTable, show_system_files: bool) -> None:
        self._files = files
        self._show_system_files = show_system_files
        self._indexes: Kept[tuple[RecordNumber, int], Index] = Kept(_KEPT_INDEXES)
        self._upcase: Upcase | None = None

    async def _index(self, folder: File) -> Index:
        key = (folder.number, folder.sequence)
        index = self._indexes.get(key)
        if index is None:
            index = await open_index(self._files, folder, I30, decode_names)
            if index is None:
                raise DamagedError(f"folder {folder.number} has no index")
            self._indexes.put(key, index, index.block_count)
        return index

    # --- listing ------------------------------------------------------------------------------

    async def names(self, folder: File, cookie: int) -> tuple[list[Name], bool]:
        """Return some next names behind a cookie, and whether none come behind them.

        Raises DamagedError for blocks that cannot be read, when all others are listed.
        """
        index = await self._index(folder)
        place, position = cookie >> _POSITION_BITS, cookie & (1 << _POSITION_BITS) - 1
        names: list[Name] = []
        if not place:
            self._add(names, folder, index.root, 0, position)
            place, position = 1, 0
        most = _BLOCKS if cookie else _FIRST_BLOCKS
        complete = False
        first = place - 1
        while not complete:
            nodes, behind, complete = await index.walk(first, most)
            for count, (number, node) in enumerate(nodes, 1):
                if not count % _PACE:
                    await trio.lowlevel.checkpoint()
                try:
                    self._add(names, folder, node, number + 1, position if number == first else 0)
                except DamagedError as error:
                    index.damage = error
            first, position = behind, 0
            if len(names) >= _FEWEST:
                break
        if complete and index.damage:
            if not names:
                raise index.damage
            return names, False
        return names, complete

    def _add(self, names: list[Name], folder: File, node: Node, block: int, behind: int) -> None:
        """Append the names of a node behind a position in it."""
        base = block << _POSITION_BITS
        if not behind and folder.number != ROOT:
            plain = plain_names(*node, base)
            if plain is not None:
                names += plain
                return
        records = [record for record in decode_names(node) if record[1] != DOS]
        if behind:
            records = [record for record in records if record[3] > behind]
        if folder.number == ROOT:
            records = [record for record in records if self._is_shown(record[2] & RECORD_MASK)]
        texts = shown_together([record[0] for record in records])
        if texts is None:
            for name, _, reference, end in records:
                text, impossible = shown_or_repaired(name)
                names.append((text, reference, base | end, impossible))
            return
        names += [
            (text, reference, base | end, False)
            for text, (_, _, reference, end) in zip(texts, records, strict=True)
        ]

    def _is_shown(self, number: RecordNumber) -> bool:
        """Tell whether the root lists a file: its "." never, the system's own ones if wanted."""
        return number > _LAST_SYSTEM_FILE or (self._show_system_files and number != ROOT)

    # --- lookup -------------------------------------------------------------------------------

    async def find(self, folder: File, name: bytes) -> int:
        """Return the reference of a name. Raises NotFoundError, DamagedError."""
        return (await self.find_entry(folder, name))[0]

    async def find_entry(self, folder: File, name: bytes) -> tuple[int, bytes]:
        """Return the reference of a name, and the name as it is stored (UTF-16LE). Raises
        NotFoundError, DamagedError."""
        index = await self._index(folder)
        wanted = stored(name)
        upcase, damage = await self._upcase_or_damage()
        matches: list[NameRecord] | None = None
        if upcase is not None:
            key_of = upcase.key
            try:
                found = await index.find(
                    key_of(wanted),
                    lambda key: (
                        key_of(key[_NAME_IN_KEY : _NAME_IN_KEY + 2 * key[_LENGTH_IN_KEY]])
                        if len(key) > _NAME_IN_KEY
                        else b""
                    ),
                )
                matches = [
                    (e.key[_NAME_IN_KEY:][: 2 * e.key[64]], e.key[65], e.head, 0) for _, e in found
                ]
            except DamagedError as error:
                damage = error
        if matches is None or (not matches and REPLACEMENT in name):
            matches, block_damage = await self._scan(index, wanted, name, upcase)
            damage = block_damage or damage
        chosen = _choose(matches, wanted)
        if chosen is None:
            if damage is not None:
                raise damage
            raise NotFoundError(f"folder {folder.number} has no such name")
        return chosen[2], chosen[0]

    async def _scan(
        self, index: Index, wanted: bytes, name: bytes, upcase: Upcase | None
    ) -> tuple[list[NameRecord], DamagedError | None]:
        """Return the names that may be meant from all nodes, and what is wrong with some of them:
        without $UpCase, or where the tree is damaged."""
        key = upcase.key(wanted) if upcase else b""
        matches: list[NameRecord] = []
        damage: DamagedError | None = None
        nodes = [index.root]
        place, complete = 0, False
        while nodes or not complete:
            for node in nodes:
                await trio.lowlevel.checkpoint()
                try:
                    records = decode_names(node)
                except DamagedError as error:
                    damage = index.damage = error  # a listing behind it will not look there
                    continue
                for record in records:
                    if record[0] == wanted or (upcase and upcase.key(record[0]) == key):
                        matches.append(record)
                    elif REPLACEMENT in name and shown_or_repaired(record[0]) == (name, True):
                        damage = DamagedError("this name in a folder is damaged")
            if complete:
                break
            found, place, complete = await index.walk(place, _SCANNED_AT_ONCE)
            nodes = [node for _, node in found]
        return matches, damage or index.damage

    async def _upcase_or_damage(self) -> tuple[Upcase | None, DamagedError | None]:
        """Return the volume's table of upper case, or why there is none."""
        if self._upcase is None:
            try:
                file = await self._files.file(UPCASE)
                stream = await self._files.stream(file, DATA)
                if stream is None or stream.size > UPCASE_SIZE:
                    raise DamagedError("$UpCase is damaged")  # noqa: TRY301
                self._upcase = Upcase(await self._files.read(stream, 0, stream.size))
            except (DamagedError, NotFoundError, UnsupportedError) as error:
                return None, DamagedError(str(error))
        return self._upcase, None

    # --- parents ------------------------------------------------------------------------------

    async def parent(self, file: File) -> File:
        """Return the folder that a file is in: the first one, if it has several names. Of the
        root, itself. Raises DamagedError."""
        if file.number == ROOT:
            return file
        names = sorted(
            (decode_file_name(a.body) for a in file.attributes if a.kind == FILE_NAME),
            key=lambda name: name.namespace == DOS,
        )
        if not names:
            raise DamagedError(f"file {file.number} has no name")
        reference = names[0].parent
        try:
            parent = await self._files.file(reference & RECORD_MASK, reference >> 48)
        except NotFoundError as error:
            raise DamagedError(f"the folder that file {file.number} is in: {error}") from None
        if not parent.is_folder:
            raise DamagedError(f"file {file.number} is in a file that is not a folder")
        return parent


_LAST_SYSTEM_FILE = 15
"""The last of the system's own files."""


def _choose(matches: Sequence[NameRecord], wanted: bytes) -> NameRecord | None:
    """Return what is meant among names that are equal but for case: the exact one, or the only
    one."""
    exact = [record for record in matches if record[0] == wanted]
    for group in (exact, [] if exact else matches):
        for dos in (False, True):
            found = {record[2]: record for record in group if (record[1] == DOS) == dos}
            if len(found) == 1:
                return found.popitem()[1]
            if found:
                return None
    return None
