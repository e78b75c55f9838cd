"""Decoders that Cython compiles when the package is installed (setup.py).

Each is ordinary Python with C types in its annotations, and gives the same answers uncompiled, only
slower. They are pure: bytes in, bytes out, and DamagedError.

Owns that no decoder runs that was compiled from another source than the one that lies beside it.
"""

import hashlib
from collections.abc import Iterable
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path
from types import ModuleType

from restorefs.guestfs.decoders import lznt1, lzx, ntfs_record

__all__ = ["lznt1", "lzx", "ntfs_record", "require_current", "uncompiled"]

DECODERS: tuple[ModuleType, ...] = (lznt1, lzx, ntfs_record)


def uncompiled() -> list[str]:
    """Return the names of the decoders that run as Python."""
    return [module.__name__ for module in DECODERS if not module.COMPILED]


def require_current(modules: Iterable[ModuleType]) -> None:
    """Raise ImportError for a module that was compiled from another source than its own."""
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        source = Path(str(module.__file__)).with_name(name + SOURCE_SUFFIXES[0])
        if module.COMPILED and source.exists():
            made_from = getattr(module, "__source__", None)
            if made_from != hashlib.sha256(source.read_bytes()).hexdigest():
                raise ImportError(
                    f"{module.__file__} was compiled from another {source.name} than lies beside"
                    " it: run `make setup`, or install restorefs again"
                )


require_current(DECODERS)
