"""XFS through the mount: the same as the kernel's own mount of the same image."""

from pathlib import Path

from tests.images.xfs import Images
from tests.manifest import Manifest, assert_same_tree, manifest_of_path
from tests.mounted.conftest import Serve
from tests.mounted.disks import qcow2
from tests.real.xfs_trees import expected_tree

FEATURES = (
    "xfs_default",
    "xfs_1k",
    "xfs_folder_blocks_64k",
    "xfs_many_groups",
    "xfs_parents",
    "xfs_aged_dirty",
)
"""Recipes of every kind; tests/real compares all of them without the mount."""

LARGEST = 100 << 20
"""Larger files are mostly one hole."""


def comparable(manifest: Manifest) -> Manifest:
    """Leave out the root, which is the disk's folder and not the guest's, and what is not read of
    large files."""
    for entry in manifest.values():
        if entry.size > LARGEST:
            entry.digest = entry.segments = None
    return {path: entry for path, entry in manifest.items() if path != b"."}


def test_disks_without_partitions(serve: Serve, xfs_images: Images, tmp_path: Path) -> None:
    images = {name: xfs_images(name) for name in FEATURES}
    for name, image in images.items():
        qcow2(image, tmp_path / "repository" / name / "disk0.qcow2")
    daemon = serve("--images", tmp_path / "repository")
    for name, image in images.items():
        expected = comparable(expected_tree(image, name))
        found = comparable(manifest_of_path(daemon.backups / name / "disk0", largest=LARGEST))
        assert_same_tree(expected, found)
        recovery = daemon.logged(f"{name}/disk0.*journal needs recovery")
        assert bool(recovery) is name.endswith("_dirty")
