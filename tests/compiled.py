"""The decoders in both forms: as they were installed, and as the Python that they are."""

import importlib.util
from pathlib import Path
from types import ModuleType


def source_of(module: ModuleType) -> Path:
    """Return the source that lies beside a module, compiled or not."""
    return Path(str(module.__file__)).with_name(module.__name__.rpartition(".")[2] + ".py")


def uncompiled(module: ModuleType) -> ModuleType:
    """Return a decoder as Python runs its source."""
    spec = importlib.util.spec_from_file_location(f"uncompiled_{id(module)}", source_of(module))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert not made.COMPILED
    return made
