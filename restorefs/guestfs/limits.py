"""Bounds on what a reader does for numbers found on disk.

A hostile or damaged image may claim anything. Each bound is far above what the formats allow in
practice, so that meeting it means damage; a reader raises DamagedError then.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """tree_depth: levels of an extent or folder tree. folder_bytes: size of one folder's
    content. xattr_bytes: size of all extended attributes of one file. link_bytes: length of a
    link's target. extents_per_map: pieces that one map() call may return."""

    tree_depth: int = 16
    folder_bytes: int = 8 << 30
    xattr_bytes: int = 16 << 20
    link_bytes: int = 65_536
    extents_per_map: int = 1 << 20


DEFAULT_LIMITS = Limits()
