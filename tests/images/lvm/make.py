"""Make the images of LVM volumes that this folder keeps, in an emulated machine.

    python -m tests.images.lvm.make [NAME ...]        (needs lvm2, dmsetup, qemu, busybox)

A Debian kernel with device-mapper boots, its own LVM makes the volumes of one script in scripts/,
fills them, and prints each one's SHA-256. What the disks then hold goes to NAME.tar.xz, one raw
image for each disk, and what the kernel said to NAME.json. Tests read only these two, so that they
need no machine; this runs again only when a script changes.

Content compresses well and tells where it came from: every 4 KiB block is one number repeated.
"""

import io
import json
import lzma
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import machine
from tests.tools import run

HERE = Path(__file__).parent
CACHE = Path(__file__).parents[3] / "build" / "machine-dm"
MODULES = (
    "virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "virtio_blk", "crc32c_generic", "libcrc32c", "xor", "raid6_pq", "async_tx", "async_memcpy",
    "async_xor", "async_pq", "async_raid6_recov", "md-mod", "raid0", "raid1", "raid10", "raid456",
    "dm-mod", "dm-bufio", "dm-bio-prison", "dm-persistent-data", "dm-log", "dm-region-hash",
    "dm-mirror", "dm-snapshot", "dm-zero", "dm-thin-pool", "dm-cache", "dm-cache-smq",
    "dm-writecache", "dm-integrity", "dm-raid", "dm-delay",
)  # fmt: skip
PROGRAMS = ("lvm", "dmsetup")
PATTERN_SIZE = 4 << 20

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /run /tmp /etc/lvm
for module in /modules/*; do insmod $module || echo "no $module"; done
export LVM_SUPPRESS_FD_WARNINGS=1 DM_DISABLE_UDEV=1
for name in pvcreate vgcreate lvcreate lvconvert lvchange vgchange lvs pvs vgs lvremove vgreduce \
  pvmove pvresize vgextend vgexport pvchange lvextend vgscan vgextend vgck vgrename lvrename; do
  ln -s /sbin/lvm /bin/$name
done
# number LV: fill a volume with blocks of the pattern from that one on
fill() {
  dd if=/pattern of=$2 bs=4k skip=$1 count=$(($(blockdev --getsize64 $2) / 4096)) \
    conv=fsync,notrunc 2> /dev/null || echo "FAILED fill $2"
}
# VG LV: say what the volume holds
tell() { echo "@sum $1/$2 $(blockdev --getsize64 /dev/$1/$2) $(sha256sum < /dev/$1/$2)"; }
# VG: wait until nothing is being synchronised
settle() {
  n=0
  while lvs -a --noheadings -o lv_name,copy_percent $1 | awk 'NF == 2 && $2 < 100' | grep -q .; do
    n=$((n+1)); [ $n -gt 60 ] && echo "FAILED settle" && break
    sleep 0.2
  done
}
set -x
. /script
set +x
for vg in $(vgs --noheadings -o vg_name); do vgchange -an $vg || echo "FAILED vgchange"; done
sync
echo "@end"
poweroff -f
"""

CONFIG = """
config { checks=0 }
devices { scan=["/dev"] dir="/dev" use_devicesfile=0 obtain_device_list_from_udev=0
  external_device_info_source="none" md_component_detection=0 fw_raid_component_detection=0
  filter=["a|^/dev/vd|","r|.*|"] }
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0
  reserved_stack=0 reserved_memory=0 process_priority=0 raid_fault_policy="warn" }
global { use_lvmpolld=0 notify_dbus=0 locking_dir="/run/lock" event_activation=0
  thin_check_executable="" cache_check_executable="" }
backup { backup=0 archive=0 }
log { verbose=0 }
"""


def make(name: str) -> None:
    """Run one script and write its images and what the kernel said."""
    script = (HERE / "scripts" / f"{name}.sh").read_text()
    options = dict(re.findall(r"^#: (\w+)=(\S+)$", script, re.M))
    with tempfile.TemporaryDirectory(prefix="restorefs-lvm-") as folder:
        disks = [Path(folder) / f"disk{number}" for number in range(int(options["disks"]))]
        for disk in disks:
            with disk.open("wb") as file:
                file.truncate(int(options["mib"]) << 20)
        initramfs = Path(folder) / "initramfs"
        initramfs.write_bytes(make_initramfs(script))
        console = boot(initramfs, disks, float(options.get("seconds", "240")))
        Path(tempfile.gettempdir(), f"lvm-{name}.log").write_text(console)
        if "@end" not in console or re.search("^FAILED", console, re.M):
            raise AssertionError(console[-6000:])
        pack(disks, HERE / f"{name}.tar.xz")
    said = re.findall(r"^@sum (\S+) (\d+) ([0-9a-f]{64})", console, re.M)
    # The last word counts: a script may tell a volume's content again after it has changed it.
    volumes = {volume: {"size": int(size), "sha256": digest} for volume, size, digest in said}
    (HERE / f"{name}.json").write_text(json.dumps(volumes, indent=1) + "\n")
    print(f"{name}: {len(volumes)} volumes, {(HERE / f'{name}.tar.xz').stat().st_size} bytes")


def boot(initramfs: Path, disks: list[Path], seconds: float) -> str:
    """Run the machine until it has powered itself off; return what it printed."""
    drives: list[str] = []
    for number, disk in enumerate(disks):
        drives += [
            "-drive", f"if=none,id=disk{number},format=raw,file={disk},cache=unsafe",
            "-device", f"virtio-blk-pci,drive=disk{number},id=vd{number}",
        ]  # fmt: skip
    command = [
        "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "768",
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
        "-kernel", kernel(), "-initrd", initramfs,
        "-append", "console=ttyS0 panic=-1 loglevel=4 tsc=reliable mitigations=off nokaslr",
        *drives,
    ]  # fmt: skip
    try:
        return run(*command, timeout=seconds, stdin=subprocess.DEVNULL).replace("\r\n", "\n")
    except subprocess.TimeoutExpired as error:
        told = (error.stdout or b"").decode(errors="replace")[-6000:]
        raise AssertionError(f"the machine did not end in {seconds:g} s:\n{told}") from None


def pack(disks: list[Path], target: Path) -> None:
    """Write the images to an archive that is the same for the same content."""
    with tarfile.open(target, "w:xz", preset=9 | lzma.PRESET_EXTREME) as tar:
        for disk in disks:
            info = tarfile.TarInfo(disk.name)
            info.size = disk.stat().st_size
            tar.addfile(info, io.BytesIO(disk.read_bytes()))


def make_initramfs(script: str) -> bytes:
    """Return an initramfs with busybox, the programs and the libraries they need."""
    archive = io.BytesIO()
    for folder in ("bin", "sbin", "dev", "proc", "sys", "modules", "etc", "etc/lvm", "lib"):
        machine.add(archive, folder, 0o040755, b"")
    machine.add(archive, "init", 0o100755, INIT.encode())
    machine.add(archive, "script", 0o100644, script.encode())
    machine.add(archive, "pattern", 0o100644, pattern(PATTERN_SIZE))
    machine.add(archive, "etc/lvm/lvm.conf", 0o100644, CONFIG.encode())
    machine.add(archive, "bin/busybox", 0o100755, machine.busybox())
    for number, module in enumerate(MODULES):
        path = CACHE / f"{module}.ko"
        if path.exists():
            content = path.read_bytes()
            machine.add(archive, f"modules/{number:02d}-{module}.ko", 0o100644, content)
    libraries: dict[str, Path] = {}
    for program in PROGRAMS:
        path = Path(shutil.which(program) or "")
        machine.add(archive, f"sbin/{program}", 0o100755, path.read_bytes())
        for target, source in re.findall(r"^\s*(?:(\S+) => )?(/\S+) \(", run("ldd", path), re.M):
            libraries[source if not target else f"/lib/{target}"] = Path(source)
    folders = {str(Path(name).parent).strip("/") for name in libraries} - {"lib"}
    for folder in sorted(folders):
        machine.add(archive, folder, 0o040755, b"")
    for name, source in libraries.items():
        machine.add(archive, name.strip("/"), 0o100755, source.read_bytes())
    machine.add(archive, "TRAILER!!!", 0, b"")
    return archive.getvalue()


def pattern(size: int) -> bytes:
    """Return blocks of 4 KiB, each its own number, from 1, repeated."""
    return b"".join(struct.pack("<I", 0x1000000 + n) * 1024 for n in range(1, size // 4096 + 1))


def kernel() -> Path:
    """Return the kernel to boot; it and its modules are kept below build/."""
    if not CACHE.exists():
        with tempfile.TemporaryDirectory(prefix="restorefs-kernel-") as name:
            unpacked = Path(name) / "unpacked"
            unpacked.mkdir()
            for file, content in wanted(machine.download(Path(name))):
                (unpacked / file).write_bytes(content)
            CACHE.parent.mkdir(exist_ok=True)
            shutil.copytree(unpacked, CACHE)
    return next(CACHE.glob("vmlinuz-*"))


def wanted(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the kernel and the modules in a package."""
    for name, content in machine.members(package):
        path = Path(name)
        module = path.name.removesuffix(".xz").removesuffix(".ko")
        if path.name.startswith("vmlinuz-"):
            yield path.name, content()
        elif module in MODULES and ".ko" in path.name:
            data = content()
            yield f"{module}.ko", lzma.decompress(data) if path.suffix == ".xz" else data


if __name__ == "__main__":
    for chosen in sys.argv[1:] or sorted(path.stem for path in (HERE / "scripts").glob("*.sh")):
        make(chosen)
