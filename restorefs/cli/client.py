"""Talks to the daemon of a mount.

Owns how the daemon is found: every mount has a folder below the runtime folder with its socket and
its mountpoint's name.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx

from restorefs.cli.text import printable
from restorefs.config import is_ours, real_mountpoint
from restorefs.users import name_of

_SECONDS = 300.0  # attaching every disk of a backup, one after the other


class DaemonClient:
    """One daemon's API."""

    def __init__(self, mountpoint: str, socket: Path) -> None:
        self.mountpoint = mountpoint
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(
            transport=transport, base_url="http://restorefs", timeout=_SECONDS
        )

    @classmethod
    def find(cls, runtime_dir: Path, mountpoint: Path | None) -> "DaemonClient":
        """Return the daemon of a mountpoint, or the only one there is.

        Raises click.ClickException when there is none, or several to choose from.
        """
        found = dict(_instances(runtime_dir))
        if mountpoint is not None:
            wanted = str(real_mountpoint(mountpoint))
            if wanted not in found:
                raise click.ClickException(f"no restorefs serves {wanted}{_others(found)}")
            return cls(wanted, found[wanted])
        if not found:
            raise click.ClickException(
                f"no restorefs is running (looked in {runtime_dir});"
                " start one with `restorefs mount`, or name its --runtime-dir"
            )
        if len(found) > 1:
            raise click.ClickException(f"say which one: --mount MOUNTPOINT{_others(found)}")
        return cls(*next(iter(found.items())))

    def call(self, method: str, path: str) -> Any:
        """Return the JSON answer of a call. Raises click.ClickException with the reason."""
        try:
            response = self._http.request(method, "/api/v1/" + path)
        except httpx.TransportError as error:
            raise click.ClickException(
                f"the restorefs of {self.mountpoint} does not answer: {error}"
            ) from error
        answer = response.json()
        if response.is_error:
            raise click.ClickException(printable(answer["detail"]))
        return answer


def _instances(runtime_dir: Path) -> Iterator[tuple[str, Path]]:
    """Yield the mountpoint and socket of every daemon that is alive."""
    try:
        # Root may ask the daemon of any user; its default folder is nobody else's to make.
        if os.geteuid() != 0 and not is_ours(runtime_dir):
            raise click.ClickException(f"{runtime_dir} {_distrusted(runtime_dir)}")
        refused, found = None, False
        for folder in sorted(runtime_dir.iterdir()):
            try:
                told = json.loads((folder / "instance.json").read_text())
            except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
                continue  # one that starts or ends just now
            except PermissionError as error:  # another user's; there may be one of ours
                refused = error
                continue
            if Path(f"/proc/{told['pid']}").exists():
                found = True
                yield told["mountpoint"], folder / "control.sock"
        if refused is not None and not found:
            raise refused
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise click.ClickException(
            f"{error.filename} may not be read: only the daemon's own user and root may ask it"
        ) from error


def _distrusted(folder: Path) -> str:
    owner = folder.lstat().st_uid
    if owner not in (0, os.geteuid()):
        return f"belongs to {name_of(owner)}: only that user and root may ask its daemons"
    return "may be written by others: not trusted"


def _others(found: dict[str, Path]) -> str:
    return "; there is one for: " + ", ".join(found) if found else ""
