"""LVM's own tools on loop devices, with nothing of the host in sight.

Linear and striped volumes need no device-mapper in the kernel, as long as nothing is activated.
Everything lies in one folder: images, settings and locks.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.images.lvm.handmade import extent
from tests.tools import loop_device, require, require_root, run

EXTENT = 65536
INACTIVE = ("-an", "-Zn", "-Wn", "-y", "-qq")

CONFIG = """
config {{ checks = 0 }}
devices {{
  dir = "/dev" scan = ["/dev"] filter = [{accepted}, "r|.*|"] use_devicesfile = 0
  obtain_device_list_from_udev = 0 external_device_info_source = "none" hints = "none"
  md_component_detection = 0 fw_raid_component_detection = 0 data_alignment = 0
}}
activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }}
global {{ locking_dir = "{folder}/lock" use_lvmpolld = 0 notify_dbus = 0 event_activation = 0 }}
backup {{ backup = 0 archive = 0 }}
"""


class Lvm:
    """Some disks. Every extent of a disk holds the disk's number, from 0, and its own."""

    def __init__(self, folder: Path, images: Sequence[Path], devices: Sequence[str]) -> None:
        self.images = images
        self.devices = devices
        self._environment = {
            **os.environ,
            "LVM_SYSTEM_DIR": str(folder),
            "LVM_SUPPRESS_FD_WARNINGS": "1",
        }

    def __call__(self, command: str, *arguments: str) -> str:
        return run("lvm", command, "--driverloaded", "n", *arguments, env=self._environment)

    def contents(self) -> list[bytes]:
        for device in self.devices:
            run("blockdev", "--flushbufs", device)
        return [image.read_bytes() for image in self.images]

    def fill(self) -> None:
        """Write to every extent of every disk."""
        report = self(
            "pvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "pv_name,pe_start,pv_pe_count"
        )
        for line in report.splitlines():
            device, start, count = line.split()
            number = self.devices.index(device)
            with Path(device).open("r+b") as file:
                file.seek(int(start))
                file.write(b"".join(extent(number, index) for index in range(int(count))))

    def expected(self) -> dict[str, bytes]:
        """Return what each volume holds, "group/volume", from what lvs tells of its segments."""
        report = self(
            "lvs", "--segments", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|",
            "-o", "vg_name,lv_name,seg_start_pe,seg_size_pe,stripe_size,seg_pe_ranges",
        )  # fmt: skip
        segments: dict[str, list[tuple[int, bytes]]] = {}
        for line in report.splitlines():
            group, name, start, size, chunk, ranges = line.strip().split("|")
            content = self._segment(int(chunk), ranges.split())
            assert len(content) == int(size) * EXTENT
            segments.setdefault(f"{group}/{name}", []).append((int(start), content))
        return {
            name: b"".join(content for _, content in sorted(parts))
            for name, parts in segments.items()
        }

    def _segment(self, chunk: int, ranges: list[str]) -> bytes:
        stripes = []
        for item in ranges:
            device, _, extents = item.rpartition(":")
            first, last = map(int, extents.split("-"))
            number = self.devices.index(device)
            stripes.append(b"".join(extent(number, n) for n in range(first, last + 1)))
        if len(stripes) == 1:
            return stripes[0]
        rows = range(0, len(stripes[0]), chunk)
        return b"".join(stripe[at : at + chunk] for at in rows for stripe in stripes)


@contextmanager
def lvm_disks(folder: Path, count: int, mib: int = 6) -> Iterator[Lvm]:
    """Yield LVM's tools with so many empty disks."""
    require_root()
    require("pvcreate", "losetup", "blockdev")
    assert shutil.which("lvm")
    (folder / "lock").mkdir()
    images = [folder / f"disk{number}" for number in range(count)]
    with ExitStack() as stack:
        devices = []
        for image in images:
            image.touch()
            os.truncate(image, mib << 20)
            devices.append(stack.enter_context(loop_device(image, writable=True)))
        accepted = ", ".join(f'"a|^{device}$|"' for device in devices)
        (folder / "lvm.conf").write_text(CONFIG.format(accepted=accepted, folder=folder))
        yield Lvm(folder, images, devices)
