"""Decoders of guests' bytes that Cython compiles (restorefs/compiled.py).

They are pure: bytes in, bytes or values out, and DamagedError.
"""

from types import ModuleType

from restorefs.compiled import require_current
from restorefs.guestfs.decoders import lznt1, lzx, ntfs_names, ntfs_record

__all__ = ["DECODERS", "lznt1", "lzx", "ntfs_names", "ntfs_record"]

DECODERS: tuple[ModuleType, ...] = (lznt1, lzx, ntfs_names, ntfs_record)

require_current(DECODERS)
