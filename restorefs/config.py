"""The settings of a mount, checked before anything is started.

Owns their defaults and which combinations make no sense. Must not know where they come from.
"""

import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from restorefs.errors import ConfigError

PROFILES = ("posix", "samba", "plain")
"""What a mount is for (tree/presentation.py)."""
_REQUEST_TIMEOUTS = Path("/proc/sys/fs/fuse")


def default_runtime_dir() -> Path:
    """Return the folder for sockets: /run/restorefs for root, else below $XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return Path("/run/restorefs")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "restorefs" if base else Path(f"/tmp/restorefs-{os.geteuid()}")


def is_ours(folder: Path, uid: int | None = None) -> bool:
    """Whether a folder is a real one that nobody but us (or `uid` instead) and root can write to:
    others may make folders in /tmp, and links."""
    about = folder.lstat()
    owned = about.st_uid in (0, os.geteuid() if uid is None else uid)
    return stat.S_ISDIR(about.st_mode) and owned and not about.st_mode & 0o022


def real_mountpoint(path: Path) -> Path:
    """Return a mountpoint's real path, without asking what is mounted there: it may be dead."""
    try:
        path.readlink()
    except OSError:  # no link
        if path.name not in ("", ".."):
            return Path(os.path.realpath(path.parent)) / path.name
    return Path(os.path.realpath(path))


def _real(path: str, known: dict[str, str]) -> str:
    """Return os.path.realpath(path). `known` keeps those of the folders that paths are in: of ten
    thousand backups, most are in one."""
    head, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114
        return os.path.realpath(path)
    if head not in known:
        known[head] = os.path.realpath(head)
    return os.path.join(known[head], name)  # noqa: PTH118


@dataclass(frozen=True, slots=True)
class Settings:
    """One mount. `mountpoint` is a real path; either `catalog_url` or `images` is set. Times in
    seconds, sizes in bytes; an idle_timeout of 0 keeps disks attached. `profile` is one of
    PROFILES; `uid`, `gid`, `umask`: None shows what it says. `user` is who to become once mounted;
    `source` what the mount is called in lists of mounts. `listen`: the address and port of the
    API over TCP; `token_file`, `tls_cert` and `tls_key`: what it needs; `allow_hosts`: further
    names that it goes by."""

    mountpoint: Path
    catalog_url: str | None = None
    images: Path | None = None
    repositories: tuple[Path, ...] = ()
    idle_timeout: float = 3600.0
    max_attached: int = 64
    attach_timeout: float = 20.0
    read_timeout: float = 60.0
    cache_size: int = 256 << 20
    profile: str = "posix"
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    show_system_files: bool = False
    oem_codepage: str = "cp437"
    deny_comm: tuple[str, ...] = ()
    noexec: bool = False
    user: str | None = None
    source: str = "restorefs"
    allow_schemes: tuple[str, ...] = ()
    tls_verify: bool = True
    tls_ca: Path | None = None
    vms: tuple[str, ...] = ()
    host_name: str | None = None
    listen: tuple[str, int] | None = None
    listen_insecure: bool = False
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    runtime_dir: Path = field(default_factory=default_runtime_dir)

    @property
    def allowed_folders(self) -> tuple[Path, ...]:
        """The folders that images must lie in; empty: each catalogued file's own folder."""
        if self.repositories or self.images is None:
            return self.repositories
        return (self.images,)

    @property
    def instance_dir(self) -> Path:
        """The runtime folder of this mount alone. Short, for a socket's path has 107 bytes."""
        digest = blake2b(os.fsencode(self.mountpoint), digest_size=6).hexdigest()
        return self.runtime_dir / digest

    def check(self) -> None:
        """Raise ConfigError for what cannot work."""
        if (self.catalog_url is None) == (self.images is None):
            raise ConfigError(
                "say where the backups are: one of --catalog URL and --images FOLDER, not both"
            )
        if self.profile not in PROFILES:
            raise ConfigError(f"{self.profile!r} is no profile: there are {', '.join(PROFILES)}")
        if len(os.fsencode(self.instance_dir)) > 80:
            raise ConfigError(
                f"{self.runtime_dir} is too long a path for sockets: name a shorter --runtime-dir"
            )
        self._check_listening()
        self.check_outside(self.allowed_folders)
        if self.images is not None and self.mountpoint.is_relative_to(self.images):
            raise ConfigError(f"{self.mountpoint} lies inside the images folder {self.images}")

    def _check_listening(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key belong together")
        if self.listen is None:
            given = {
                "--token-file": self.token_file,
                "--tls-cert": self.tls_cert,
                "--listen-insecure": self.listen_insecure,
                "--allow-host": self.allow_hosts,
            }
            for option, value in given.items():
                if value:
                    raise ConfigError(f"{option} is for --listen, which is not given")
        elif self.token_file is None and not self.listen_insecure:
            raise ConfigError(
                "--listen needs a --token-file (`restorefs token add NAME --file FILE` makes one);"
                " --listen-insecure lets everybody in who can connect"
            )

    def check_outside(self, folders: Iterable[Path | str]) -> None:
        """Raise ConfigError when the mountpoint contains one of the folders with images: mounting
        would hide them from the very processes that read them."""
        inside = (str(self.mountpoint), os.path.join(self.mountpoint, ""))  # noqa: PTH118
        known: dict[str, str] = {}
        for folder in {_real(os.fspath(folder), known) for folder in folders}:
            if folder == inside[0] or folder.startswith(inside[1]):
                raise ConfigError(
                    f"{self.mountpoint} contains {folder}, where the images are: mounting there"
                    " would hide them; mount somewhere else"
                )

    def bounded(self, timeout: float) -> float:
        """Return a timeout that ends before the kernel gives a FUSE request up; 0 is none."""
        return min(timeout or math.inf, self.request_timeout)

    @property
    def request_timeout(self) -> float:
        """The seconds that a FUSE request may take; math.inf where the kernel does not bound it."""
        limits = []
        for name in ("default_request_timeout", "max_request_timeout"):
            try:
                limits.append(float((_REQUEST_TIMEOUTS / name).read_text()))
            except (OSError, ValueError):
                continue  # a kernel without such timeouts
        return min((limit * 0.8 for limit in limits if limit > 0), default=math.inf)
