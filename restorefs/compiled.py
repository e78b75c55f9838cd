"""What Cython compiles when the package is installed (setup.py).

Each is an ordinary module with C types in its annotations, and gives the same answers uncompiled,
only slower; it says in COMPILED which it is. Owns that none runs that was compiled from another
source than the one that lies beside it.
"""

import hashlib
from collections.abc import Iterable
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path
from types import ModuleType


def uncompiled(modules: Iterable[ModuleType]) -> list[str]:
    """Return the names of those that run as Python."""
    return [module.__name__ for module in modules if not module.COMPILED]


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
