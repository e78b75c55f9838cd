"""What is compared with what: an image, the ways to read it, the measures, and the aims.

Owns nothing else; a new kind of guest is one more scene here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import image, measures, windows_image, xfs_image
from bench.image import Image, Shape
from bench.measures import Measure
from bench.stacks import FUSE2FS, KERNEL, KERNEL_XFS, NTFS3G, OURS, Stack


@dataclass(frozen=True)
class Target:
    """restorefs must be so many times better than a peer."""

    measure: Measure
    peer: Stack
    times: float


@dataclass(frozen=True)
class Scene:
    """`generated(folder, shape, say)` makes the image, or finds it made."""

    name: str
    full: Shape
    quick: Shape
    generated: Callable[[Path, Shape, Callable[[str], None]], Image]
    peers: tuple[Stack, ...]
    measures: tuple[Measure, ...]
    targets: tuple[Target, ...]
    needs_root: bool = False

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return (OURS, *self.peers)


LINUX = Scene(
    "linux",
    image.FULL,
    image.QUICK,
    image.generated,
    (FUSE2FS, KERNEL),
    measures.LINUX,
    (Target(measures.LISTING, FUSE2FS, 6.0), Target(measures.SEQUENTIAL, KERNEL, 1.0)),
)
WINDOWS = Scene(
    "windows",
    windows_image.FULL,
    windows_image.QUICK,
    windows_image.generated,
    (NTFS3G,),
    measures.WINDOWS,
    (
        Target(measures.LISTING, NTFS3G, 5.0),
        Target(measures.SEQUENTIAL, NTFS3G, 1.5),
        Target(measures.COMPRESSED, NTFS3G, 1.0),
    ),
    needs_root=True,
)
RHEL = Scene(
    "rhel",
    xfs_image.FULL,
    xfs_image.QUICK,
    xfs_image.generated,
    (KERNEL_XFS,),
    measures.LINUX,
    (Target(measures.LISTING, KERNEL_XFS, 0.5), Target(measures.SEQUENTIAL, KERNEL_XFS, 1.0)),
    needs_root=True,
)
SCENES = (LINUX, WINDOWS, RHEL)
