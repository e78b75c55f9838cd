"""What is compiled: that it is, and from which source."""

from pathlib import Path
from types import ModuleType

import pytest

from restorefs.cli import examine
from restorefs.compiled import require_current
from restorefs.compiled import uncompiled as names_of_uncompiled
from restorefs.fuse import packer
from restorefs.guestfs import decoders
from tests.compiled import source_of, uncompiled
from tests.tools import unavailable

TOP = Path(__file__).parents[2]
MODULES = (*decoders.DECODERS, packer)


def test_what_can_be_compiled_is() -> None:
    names = names_of_uncompiled(MODULES)
    if names:
        unavailable(f"not compiled: {', '.join(names)}")


def test_every_module_of_the_folder_is_looked_after() -> None:
    sources = set(source_of(decoders.lznt1).parent.glob("[!_]*.py"))
    assert {source_of(module) for module in decoders.DECODERS} == sources


def pretended(source: Path, made_from: str | None) -> ModuleType:
    """A compiled module whose source is `source`."""
    module = ModuleType(f"some.{source.stem}")
    module.__file__ = str(source.with_name(f"{source.stem}.cpython-311-x86_64-linux-gnu.so"))
    module.COMPILED = True  # type: ignore[attr-defined]
    if made_from is not None:
        module.__source__ = made_from  # type: ignore[attr-defined]
    return module


SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_was_compiled_from_its_source_is_taken(tmp_path: Path) -> None:
    source = tmp_path / "decoder.py"
    source.write_bytes(b"abc")
    require_current([pretended(source, SHA256_OF_ABC)])


@pytest.mark.parametrize("made_from", [None, "", SHA256_OF_ABC])
def test_what_was_compiled_from_another_source_is_refused(
    made_from: str | None, tmp_path: Path
) -> None:
    source = tmp_path / "decoder.py"
    source.write_bytes(b"abc\n")
    with pytest.raises(ImportError, match=r"another decoder\.py than lies beside it"):
        require_current([pretended(source, made_from)])


def test_a_module_without_its_source_is_taken(tmp_path: Path) -> None:
    require_current([pretended(tmp_path / "decoder.py", "")])


def test_what_is_not_compiled_is_taken() -> None:
    require_current([uncompiled(module) for module in MODULES])


def test_the_compiler_is_the_one_of_the_constraints() -> None:
    (pinned,) = [
        line
        for line in (TOP / "constraints.txt").read_text().splitlines()
        if line.startswith("Cython==")
    ]
    assert f'"{pinned.lower()}"' in (TOP / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("names", "detail"),
    [([], "are compiled"), (["a.lznt1", "a.lzx"], "lznt1, lzx not compiled, so slow")],
)
def test_check_says_what_is_compiled(
    names: list[str], detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "uncompiled", lambda _modules: names)
    finding = examine.compiled()
    assert finding.ok  # it only takes longer
    assert finding.detail.startswith(detail)
