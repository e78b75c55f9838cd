"""What the pool of attached disks is told by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restorefs.guestfs.base import DEFAULT_OPTIONS, GuestOptions
from restorefs.session.uri import DEFAULT_WEB, WebOptions


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`repositories`: folders that images must lie in; empty: the catalogued file's own folder.
    `schemes`: those of URIs that may be followed. Times in seconds; an idle_timeout of 0 keeps
    disks attached."""

    runtime_dir: Path
    repositories: Sequence[Path] = ()
    idle_timeout: float = 3600.0
    max_attached: int = 64
    attach_timeout: float = 20.0
    read_timeout: float = 60.0
    guest_options: GuestOptions = DEFAULT_OPTIONS
    schemes: Sequence[str] = ()
    web: WebOptions = DEFAULT_WEB
