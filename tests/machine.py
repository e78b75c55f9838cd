"""A small emulated machine: what a Linux kernel with its own drivers shows of disk images.

Owns getting a Debian kernel (from the package, without installing it), an initramfs of busybox and
the kernel's modules, one boot under emulation, and decoding what it prints. It is for file systems
that the running kernel lacks: ntfs3, vfat, exfat, XFS before version 5. Knows no part of restorefs
but the manifest's types. A missing tool or package skips a test as tests/tools.py says.

The kernel is that of Debian's backports where there are any: ntfs3 is not in every stable kernel.
It is kept below build/; apt-get fetches it with lists of its own, the system's stay as they are.

Concurrency: plain blocking calls.
"""

import io
import lzma
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.manifest import Entry, Manifest, joined, name_link_groups
from tests.tools import require, run, unavailable

CACHE = Path(__file__).parent.parent / "build" / "machine"
MODULES = (
    "virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "virtio_blk", "nls_ascii", "nls_cp437", "nls_iso8859-1", "nls_utf8", "nls_ucs2_utils",
    "fat", "vfat", "exfat", "ntfs3", "crc32c_generic", "libcrc32c", "xfs",
)  # fmt: skip
"""In the order in which they can be loaded; what a kernel has built in is not in its package."""
NEEDED = {"vfat", "exfat", "ntfs3", "xfs", "virtio_blk"}

OUTPUT_SIZE = 64 << 20
PT_INTERP = 3
BOOT_SECONDS = 240
RECORD, PART, END = b"\x1e@record ", b"\x1e@part ", b"\x1e@end"
"""What the machine writes between what it found; no name of a test has it."""

SUM = re.compile(rb"^([0-9a-f]{64})  /mnt/(.*?)(?=\n?\Z|\n[0-9a-f]{64}  /mnt/|\n\x1e)", re.M | re.S)
LINK = re.compile(rb"\x1e@link /mnt/(.*?)\x1e -> (.*?)\x1e\n", re.S)


@dataclass(frozen=True, slots=True)
class Disk:
    """An image to be looked at, without a partition table. driver: as mount -t names it.
    options: of the mount. sector: the sector size that the disk has. fill: a shell script that
    first writes to the image, in its root; else nothing does."""

    image: Path
    driver: str
    options: str = ""
    sector: int = 512
    fill: str = ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """image: the file to boot. modules: by name. release: as uname -r tells."""

    image: Path
    modules: dict[str, Path]
    release: str


def look_at(disks: Sequence[Disk]) -> list[Manifest]:
    """Boot the machine and return, for each disk, what its kernel shows of it.

    Entries have mode, size, blocks, nlink, mtime_ns, target, digest (for all sizes the plain
    SHA-256) and link_group; the other fields have no meaning. AssertionError where a disk cannot be
    mounted, and with the console's text where the machine does not do what it should.
    """
    require("qemu-system-x86_64", "busybox")
    kernel = get_kernel()
    with tempfile.TemporaryDirectory(prefix="restorefs-machine-") as name:
        folder = Path(name)
        initramfs = folder / "initramfs"
        initramfs.write_bytes(make_initramfs(kernel, disks))
        output = folder / "output"
        with output.open("wb") as file:
            file.truncate(OUTPUT_SIZE)
        boot(kernel, initramfs, disks, output)
        return [parsed(part) for part in parts_of(output.read_bytes(), len(disks))]


def boot(kernel: Kernel, initramfs: Path, disks: Sequence[Disk], output: Path) -> None:
    """Run the machine until it has powered itself off."""
    drives: list[str] = []
    for number, disk in enumerate((*disks, Disk(output, ""))):
        access = "cache=unsafe" if disk.fill or not disk.driver else "readonly=on"
        drives += [
            "-drive", f"if=none,id=disk{number},format=raw,file={escaped(disk.image)},{access}",
            "-device", f"virtio-blk-pci,drive=disk{number},logical_block_size={disk.sector},"
            f"physical_block_size={disk.sector}",
        ]  # fmt: skip
    try:
        console = run(
            "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "768",
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
            "-kernel", kernel.image, "-initrd", initramfs,
            "-append", "console=ttyS0 panic=-1 loglevel=4 tsc=reliable mitigations=off nokaslr",
            *drives,
            timeout=BOOT_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        told = (error.stdout or b"")[-3000:]
        raise AssertionError(f"the machine did not end in {BOOT_SECONDS} s:\n{told!r}") from None
    with output.open("rb") as file:
        assert file.read(len(PART)) == PART, f"the machine wrote nothing:\n{console[-3000:]}"


def escaped(path: Path) -> str:
    """Return a path as qemu's options take it."""
    return str(path).replace(",", ",,")


# What it shows


def parts_of(written: bytes, count: int) -> list[bytes]:
    """Return what the machine wrote of each disk."""
    text, end, _ = written.partition(END)
    assert end, "the machine wrote more than there is room for"
    parts = text.split(PART)[1:]
    assert len(parts) == count
    return parts


def parsed(part: bytes) -> Manifest:
    """Return the manifest that the machine wrote of one disk."""
    head, _, rest = part.partition(b"\n")
    assert head == b"mounted", part[:1000]
    listed, _, sums = rest.partition(b"\n" + RECORD + b"sums\n")
    manifest: Manifest = {}
    paths_of: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for record in listed.split(RECORD)[1:]:
        fields, _, name = record.removesuffix(b"\n").partition(b" /mnt")
        mode, size, blocks, links, inode, *time = fields.split(b" ")
        path = joined(b".", name.removeprefix(b"/") or b".")
        entry = manifest[path] = Entry(
            mode=int(mode, 16), size=int(size), blocks=int(blocks), nlink=int(links)
        )
        entry.mtime_ns = nanoseconds(b" ".join(time).decode())
        paths_of[inode].append(path)
    name_link_groups(manifest, paths_of.values())
    for digest, name in SUM.findall(sums):
        manifest[name].digest = digest.decode()
    for name, target in LINK.findall(sums):
        manifest[name].target = target
    return manifest


def nanoseconds(text: str) -> int:
    """Return a time as busybox prints it, "2026-11-23 15:55:06.174838556 +0000", since 1970."""
    seconds, _, rest = text.partition(".")
    moment = datetime.strptime(seconds, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    whole = (moment - epoch).days * 86_400 + (moment - epoch).seconds
    return whole * 10**9 + int(rest.split(" ")[0])


# The initramfs

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod $module; done
export TZ=UTC0
{look}
printf '{end}' >> /output
dd if=/output of=/dev/vd{output} bs=1M conv=fsync,notrunc
poweroff -f
"""

FILL = """
mount -t {driver} -o rw,{options} /dev/vd{letter} /mnt && cd /mnt && {{
{script}
}}
cd / && umount /mnt
"""

LOOK = """
printf '{part}' >> /output
if mount -t {driver} -o ro,{options} /dev/vd{letter} /mnt 2>> /output; then
  echo mounted >> /output
  find /mnt -exec stat -c '{record}%f %s %b %h %i %y %n' {{}} + >> /output
  printf '\\n{record}sums\\n' >> /output
  find /mnt -type f -exec sha256sum {{}} + >> /output
  find /mnt -type l -exec sh -c 'for each; do \
printf "\\036@link %s\\036 -> %s\\036\\n" "$each" "$(readlink "$each")"; done' sh {{}} + >> /output
  umount /mnt
fi
"""


def make_initramfs(kernel: Kernel, disks: Sequence[Disk]) -> bytes:
    """Return an initramfs that mounts the disks, and writes what it finds to the last one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    record, part, end = (mark.decode() for mark in (RECORD, PART, END))
    look = ""
    for letter, disk in zip(letters, disks, strict=False):
        how = {"driver": disk.driver, "letter": letter, "options": disk.options or "noatime"}
        if disk.fill:
            look += FILL.format(script=disk.fill, **how)
        look += LOOK.format(part=part, record=record, **how)
    init = INIT.format(look=look, end=end, output=letters[len(disks)])
    archive = io.BytesIO()
    for folder in ("bin", "dev", "proc", "sys", "mnt", "modules"):
        add(archive, folder, stat.S_IFDIR | 0o755, b"")
    add(archive, "init", stat.S_IFREG | 0o755, init.encode())
    add(archive, "bin/busybox", stat.S_IFREG | 0o755, busybox())
    for number, name in enumerate(MODULES):
        if name in kernel.modules:
            content = kernel.modules[name].read_bytes()
            add(archive, f"modules/{number:02d}-{name}.ko", stat.S_IFREG | 0o644, content)
    add(archive, "TRAILER!!!", 0, b"")
    return archive.getvalue()


def busybox() -> bytes:
    """Return the program, if it is one that needs no libraries."""
    program = Path(shutil.which("busybox") or "").read_bytes()
    # elf(5), 64 bits: a header of type PT_INTERP names who loads the libraries.
    start, size, count = struct.unpack_from("<32xQ14xHH", program)
    headers = range(start, start + size * count, size)
    if any(struct.unpack_from("<I", program, at)[0] == PT_INTERP for at in headers):
        unavailable("busybox is not linked statically")
    return program


def add(archive: io.BytesIO, name: str, mode: int, content: bytes) -> None:
    """Add a file to a cpio archive (the kernel's early-userspace/buffer-format.rst, newc)."""
    raw = name.encode() + b"\0"
    numbers = (archive.tell() + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    archive.write(b"070701" + b"".join(b"%08X" % number for number in numbers) + raw)
    archive.write(b"\0" * (-archive.tell() % 4))
    archive.write(content)
    archive.write(b"\0" * (-archive.tell() % 4))


# The kernel


def get_kernel() -> Kernel:
    """Return a kernel with the drivers needed, from the cache or from Debian's package."""
    for folder in sorted(CACHE.glob("linux-*")) if CACHE.exists() else ():
        kernel = kernel_in(folder)
        if kernel.modules.keys() >= NEEDED:
            return kernel
    require("apt-get", "dpkg-deb")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="unfinished-") as name:
        folder = Path(name)
        try:
            package = download(folder)
        except AssertionError as error:
            unavailable(f"no Debian kernel to be had: {error}")
        unpacked = folder / "kernel"
        unpacked.mkdir()
        unpack(package, unpacked)
        kernel = kernel_in(unpacked)
        lacking = NEEDED - kernel.modules.keys()
        if lacking:
            unavailable(f"the kernel {kernel.release} has no module {', '.join(sorted(lacking))}")
        kept = CACHE / f"linux-{kernel.release}"
        if kept.exists():  # from when fewer modules were needed
            shutil.rmtree(kept)
        unpacked.rename(kept)
    return get_kernel()


def kernel_in(folder: Path) -> Kernel:
    (image,) = folder.glob("vmlinuz-*")
    modules = {path.stem: path for path in folder.glob("*.ko")}
    return Kernel(image, modules, image.name.removeprefix("vmlinuz-"))


def download(folder: Path) -> Path:
    """Fetch the package of the newest kernel for this release of Debian.

    From where the machine's own apt gets its packages. AssertionError where apt-get fails.
    """
    codename = release_codename()
    sites = {
        line.split()[0]
        for line in run(
            "apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT) $(CREATED_BY)",
            "Created-By: Packages",
        ).splitlines()
        if line.split()[1:3] == [codename, "main"]
    }  # fmt: skip
    assert sites, f"apt has no source for Debian {codename}"
    sources = "".join(
        f"deb {site} {release} main\n"
        for site in sorted(sites)
        for release in (codename, f"{codename}-backports")
    )
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(sources)
    apt = [
        "apt-get", "-qq", "-o", f"Dir::Etc::SourceList={folder}/sources.list",
        "-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={folder}/lists",
        "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root",
        "-o", "Acquire::Languages=none", "-t", f"{codename}-backports",
    ]  # fmt: skip
    run(*apt, "update", timeout=300)
    planned = run(*apt, "--simulate", "--no-install-recommends", "install", "linux-image-amd64")
    found = re.search(r"^Inst (linux-image-\d\S+)", planned, re.M)
    assert found, planned
    run(*apt, "download", found[1], cwd=folder, timeout=300)
    return next(folder.glob("linux-image-*.deb"))


def release_codename() -> str:
    """Return the release's name, such as "bookworm". AssertionError where this is not Debian."""
    lines = Path("/etc/os-release").read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    assert said.get("ID") == "debian", "this is not Debian"
    return said["VERSION_CODENAME"].strip('"')


def unpack(package: Path, folder: Path) -> None:
    """Take the kernel and the modules that are needed out of a package."""
    for name, content in members(package):
        path = Path(name)
        module = path.name.removesuffix(".xz").removesuffix(".ko")
        if path.name.startswith("vmlinuz-"):
            (folder / path.name).write_bytes(content())
        elif module in MODULES:
            data = content()
            plain = lzma.decompress(data) if path.suffix == ".xz" else data
            (folder / f"{module}.ko").write_bytes(plain)


def members(package: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the files of a package, each with what reads it before the next is asked for."""
    with (
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
        ) as archive,
        tarfile.open(fileobj=archive.stdout, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                yield member.name, content.read
