"""What the text says of a volume group, as types.

Pure: no I/O. Owns which keys there are and which numbers are possible; not how a segment's type is
read. Extents are numbers, not bytes, unless a name says so; sectors have 512 bytes.

Source: vgcfgbackup(8) and lvmsystemid(7) show the text; libvslvm, "Logical Volume Manager (LVM)
format", chapter "Metadata".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from restorefs.errors import DamagedError
from restorefs.volumes.lvm2.layout import SECTOR, uuid_text
from restorefs.volumes.lvm2.text import Scalar, Section, Value

MAX_BYTES = 1 << 63
"""No device has more; lvm(8): 8 EiB."""

_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")
"""lvm(8), "VALID NAMES"."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a volume's extents. start, count: extents. type: may end with flags, each after a
    "+". keys: what else the text says of it."""

    start: int
    count: int
    type: str
    keys: Section

    @property
    def kind(self) -> str:
        """The type without its flags."""
        return self.type.partition("+")[0]

    @property
    def flags(self) -> frozenset[str]:
        """The flags of its type."""
        return frozenset(self.type.split("+")[1:])

    def number(self, key: str, default: int | None = None) -> int:
        """Return a number that is not negative. Raises DamagedError."""
        return _number(self.keys, key, default)

    def text(self, key: str) -> str:
        """Return a name, such as that of another volume. Raises DamagedError."""
        return _text(self.keys, key)

    def names(self, key: str) -> list[str]:
        """Return an array of names. Raises DamagedError."""
        values = _array(self.keys, key)
        if not all(isinstance(value, str) for value in values):
            raise DamagedError(f"{key} of an LVM2 segment is no array of names")
        return [str(value) for value in values]

    def areas(self, key: str) -> list[tuple[str, int]]:
        """Return an array of pairs: a physical or logical volume, and the extent where to begin."""
        values = _array(self.keys, key)
        pairs: list[tuple[str, int]] = []
        for name, extent in zip(values[::2], values[1::2], strict=False):
            if not isinstance(name, str) or not isinstance(extent, int) or extent < 0:
                break
            pairs.append((name, extent))
        if 2 * len(pairs) != len(values):
            raise DamagedError(f"{key} of an LVM2 segment are no pairs of name and extent")
        return pairs


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A volume. extents: how many it has, those of its segments. flags: of its status.

    error: why its description cannot be used; it has no segments then.
    """

    name: str
    uuid: str
    flags: frozenset[str]
    segments: Sequence[Segment]
    extents: int
    error: DamagedError | None = field(default=None, compare=False)

    @property
    def visible(self) -> bool:
        return "VISIBLE" in self.flags


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A member. device_hint: what it was called when the text was written. start: its first extent,
    in bytes. extents: how many."""

    name: str
    uuid: str
    device_hint: str
    start: int
    extents: int
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A group. extent_size: in bytes. seqno: grows with every change."""

    name: str
    uuid: str
    seqno: int
    extent_size: int
    flags: frozenset[str]
    members: dict[str, PhysicalVolume]
    volumes: dict[str, LogicalVolume]


def decode_group(root: Section) -> VolumeGroup:
    """Decode a parsed text. Raises DamagedError where the group or its members are not what they
    must be; what is wrong with a volume stays with that volume."""
    if root.get("contents") != "Text Format Volume Group" or root.get("version") != 1:
        raise DamagedError("LVM2 metadata is not of a volume group, version 1")
    groups = [(name, value) for name, value in root.items() if isinstance(value, dict)]
    if len(groups) != 1:
        raise DamagedError(f"LVM2 metadata describes {len(groups)} volume groups")
    name, group = groups[0]
    check_name(name)
    if group.get("format", "lvm2") != "lvm2":
        raise DamagedError(f"the metadata of volume group {name} has format {group['format']!r}")
    extent_size = _number(group, "extent_size") * SECTOR
    if not 0 < extent_size < MAX_BYTES:
        raise DamagedError(f"volume group {name} has extents of {extent_size} bytes")
    members = _members(_section(group, "physical_volumes"), extent_size)
    volumes = {
        key: _volume(key, value, extent_size)
        for key, value in _section(group, "logical_volumes").items()
    }
    return VolumeGroup(
        name=name,
        uuid=_uuid(group),
        seqno=_number(group, "seqno"),
        extent_size=extent_size,
        flags=_flags(group),
        members=members,
        volumes=volumes,
    )


def check_name(name: str) -> None:
    """Raise DamagedError unless a group or volume may have this name."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise DamagedError(f"LVM2 metadata has the name {name!r}, which no folder may have")


def _members(section: Section, extent_size: int) -> dict[str, PhysicalVolume]:
    members = {}
    for name, value in section.items():
        described = _described(value)
        member = PhysicalVolume(
            name=name,
            uuid=_uuid(described),
            device_hint=str(described.get("device", "")),
            start=_number(described, "pe_start") * SECTOR,
            extents=_number(described, "pe_count"),
            flags=_flags(described),
        )
        if member.start + member.extents * extent_size >= MAX_BYTES:
            raise DamagedError(f"the physical volume {name} has {member.extents} extents")
        members[name] = member
    if len({member.uuid for member in members.values()}) != len(members):
        raise DamagedError("two physical volumes of a group have one UUID")
    return members


def _volume(name: str, value: Value, extent_size: int) -> LogicalVolume:
    """Decode a volume; what is wrong with it becomes its error."""
    try:
        check_name(name)
        described = _described(value)
        uuid = _uuid(described)
    except DamagedError as error:
        return LogicalVolume(name, "", frozenset({"VISIBLE"}), (), 0, error)
    flags = frozenset({"VISIBLE"})  # unless it says something else: what is damaged is shown
    try:
        flags = _flags(described)
        segments = _segments(described, MAX_BYTES // extent_size)
    except DamagedError as error:
        wrong = DamagedError(f"the logical volume {name} is damaged: {error}")
        return LogicalVolume(name, uuid, flags, (), 0, wrong)
    return LogicalVolume(name, uuid, flags, segments, sum(segment.count for segment in segments))


def _described(value: Value) -> Section:
    if not isinstance(value, dict):
        raise DamagedError("a volume has no description")
    return value


def _segments(value: Section, most: int) -> list[Segment]:
    count = _number(value, "segment_count")
    found = [key for key in value if re.fullmatch(r"segment[0-9]+", key)]
    if not 0 < count == len(found):
        raise DamagedError(f"it has {len(found)} segments, not {count}")
    segments = []
    for key in found:
        section = _section(value, key)
        start, length = _number(section, "start_extent"), _number(section, "extent_count")
        if length == 0:
            raise DamagedError(f"its {key} has no extents")
        segments.append(Segment(start, length, _text(section, "type"), section))
    segments.sort(key=lambda segment: segment.start)
    end = 0
    for segment in segments:
        if segment.start != end:
            what = "overlap" if segment.start < end else "have a gap"
            raise DamagedError(f"its segments {what} at extent {min(segment.start, end)}")
        end += segment.count
    if end >= most:
        raise DamagedError(f"it has {end} extents")
    return segments


def _section(section: Section, key: str) -> Section:
    value = section.get(key, {})
    if not isinstance(value, dict):
        raise DamagedError(f"{key} is no section")
    return value


def _number(section: Section, key: str, default: int | None = None) -> int:
    value = section.get(key, default)
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise DamagedError(f"{key} is {_shown(value)}, and should be a number")
    return value


def _text(section: Section, key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str) or not value:
        raise DamagedError(f"{key} is {_shown(value)}, and should be a name")
    return value


def _array(section: Section, key: str) -> list[Scalar]:
    value = section.get(key)
    if not isinstance(value, list):
        raise DamagedError(f"{key} is {_shown(value)}, and should be an array")
    return value


def _flags(section: Section) -> frozenset[str]:
    """Return what `status` and `flags` have: both are sets of words; a single word may stand
    without brackets."""
    flags: set[str] = set()
    for key in ("status", "flags"):
        value = section.get(key, [])
        words = value if isinstance(value, list) else [value]
        for word in words:
            if not isinstance(word, str):
                raise DamagedError(f"{key} is {_shown(value)}, and should be of words")
            flags.add(word)
    return frozenset(flags)


def _uuid(section: Section) -> str:
    text = _text(section, "id")
    uuid = uuid_text(text.replace("-", "").encode("utf-8", "surrogateescape"))
    if uuid != text:
        raise DamagedError(f"an LVM2 UUID is {text[:60]!r}")
    return uuid


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
