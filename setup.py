"""Compile what takes its time byte by byte, as `pip install` does. Everything else is in setup.cfg.

It is ordinary Python that Cython makes faster (restorefs/compiled.py). What is compiled is a copy
that ends with the hash of its source, by which the package sees that the two belong together. Where
nothing can be compiled, the source itself runs.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = ("restorefs/guestfs/decoders/[!_]*.py", "restorefs/fuse/packer.py")
COPIES = Path("build/compiled")
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": True,  # a hostile image can make a decoder raise, not run anything
    "initializedcheck": True,
    "cdivision": False,
    "wraparound": False,  # no negative indices: they are out of bounds
    "show_performance_hints": False,
}


def extension(source: Path) -> Extension:
    text = source.read_bytes()
    copy = COPIES / source
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(text + b'\n__source__ = "%s"\n' % hashlib.sha256(text).hexdigest().encode())
    name = ".".join(source.with_suffix("").parts)
    return Extension(name, [str(copy)], extra_compile_args=["-O3"])


class BuildAfresh(build_ext):
    """Leaves nothing that was compiled before, whether or not it can be compiled again."""

    def run(self) -> None:
        if self.inplace or self.editable_mode:
            for old in Path("restorefs").rglob("*.so"):
                old.unlink()
        self.force = True
        super().run()


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    sources = sorted(path for pattern in COMPILED for path in Path().glob(pattern))
    made = cythonize(
        [extension(source) for source in sources], compiler_directives=DIRECTIVES, force=True
    )
    for each in made:
        each.optional = True  # without a C compiler, there is a warning
    return made


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAfresh})
