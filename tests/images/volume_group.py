"""Volume groups as lvm2 makes them on loop devices, without device-mapper.

Owns how physical volumes are made of files, and how a logical volume's content gets to where lvm2
says that it lies. Knows nothing of restorefs. Needs root.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.tools import loop_device, require, run

MIB = 1 << 20
_SEGMENT = re.compile(r"\s*(\S+)\s+(\d+)\s+(\d+)\s+(\S+)\((\d+)\)\s*")

Place = tuple[int, int, int]
"""Which physical volume, from which extent, how many extents of 1 MiB."""


def volume_group(
    name: str,
    files: Sequence[Path],
    volumes: Mapping[str, tuple[Sequence[Place], Path]],
    without_metadata: Sequence[int] = (),
) -> None:
    """Make each file a physical volume of a group with linear volumes: by name, where a volume is
    to lie, and the image that fills it. without_metadata: those that get no copy of the text."""
    require("lvm")
    with ExitStack() as stack:
        devices = [stack.enter_context(loop_device(file, writable=True)) for file in files]
        home = stack.enter_context(tempfile.TemporaryDirectory())
        filters = "".join(f'"a|^{device}$|",' for device in devices)
        settings = (
            f'devices{{filter=[{filters}"r|.*|"] use_devicesfile=0}} backup{{backup=0 archive=0}}'
        )

        def lvm(command: str, *arguments: str) -> str:
            how = ("--quiet", "--driverloaded", "n", "--config", settings)
            environment = {**os.environ, "LVM_SYSTEM_DIR": home, "LVM_SUPPRESS_FD_WARNINGS": "1"}
            return run("lvm", command, *how, *arguments, env=environment)

        for number, device in enumerate(devices):
            copies = "0" if number in without_metadata else "1"
            how_many = ("--metadatatype", "lvm2", "--pvmetadatacopies", copies)
            lvm("pvcreate", "--dataalignment", "1m", *how_many, device)
        lvm("vgcreate", "--physicalextentsize", "1m", name, *devices)
        for volume, (places, _) in volumes.items():
            unused = ("--activate", "n", "--wipesignatures", "n", "--zero", "n")
            create = ["lvcreate", *unused, "--name", volume, name]
            for number, (which, first, size) in enumerate(places):  # so they keep their order
                command = ["lvextend", f"{name}/{volume}"] if number else create
                where = f"{devices[which]}:{first}-{first + size - 1}"
                lvm(*command, "--extents", f"+{size}" if number else str(size), where)
        columns = "lv_name,seg_start_pe,seg_size_pe,devices"
        table = lvm("lvs", "--segments", "--noheadings", "--options", columns, name)
    for line in table.splitlines():
        found = _SEGMENT.fullmatch(line)
        assert found is not None, line
        volume, start, size, device, first = found.groups()
        _copy(
            volumes[volume][1],
            int(start) * MIB,
            int(size) * MIB,
            files[devices.index(device)],
            MIB + int(first) * MIB,
        )


def _copy(source: Path, start: int, size: int, target: Path, at: int) -> None:
    with source.open("rb") as content, target.open("r+b") as disk:
        content.seek(start)
        disk.seek(at)
        disk.write(content.read(size))
