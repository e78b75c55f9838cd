"""`mount -t fuse.restorefs` and lines of /etc/fstab: what mount(8) runs.

Owns how a source and mount options become the command line of `restorefs mount`, and that the
daemon is in the background once it is mounted, and not before. Must not know which options there
are: each option of `restorefs mount` is a mount option of the same name.

See mount(8), "EXTERNAL HELPERS", for how it is called.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from restorefs.cli.config_file import has_password
from restorefs.cli.text import READY

# What mount(8) and systemd read themselves, and what is so in any case: read-only, set-uid programs
# and devices without effect. `rw` comes from `defaults`.
_IGNORED = {
    *("defaults", "ro", "rw", "auto", "noauto", "nofail", "_netdev", "exec", "async"),
    *("user", "nouser", "users", "owner", "group", "nosuid", "suid", "nodev", "dev"),
    *("atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    *("diratime", "nodiratime", "lazytime", "nolazytime", "iversion", "noiversion"),
    *("nousers", "noowner", "nogroup", "sync", "dirsync", "mand", "nomand", "silent", "loud"),
    *("symfollow", "allow_other", "default_permissions"),
}
# mount(8) itself adds user=NAME, of whom it let mount: not whom the daemon is to become.
_IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=")
_REFUSED = {
    "remount": "what is mounted cannot be changed: unmount it, and mount it with other options",
    "nosymfollow": "would take away `latest` and every link of a guest, so leave it out",
}
_CALLED = {"user": "setuid"}  # as mount.fuse3(8) does; `user` means another thing to mount(8)
_SOURCES = ("catalog", "images")


def arguments(source: str, options: str, known: Mapping[str, click.Parameter]) -> list[str]:
    """Return the arguments of `restorefs mount` for a source and mount options.

    Raises click.UsageError for an option that means nothing to it.
    """
    there_are = {
        _CALLED.get(key, key): (key, param)
        for key, param in known.items()
        if isinstance(param, click.Option)
    }
    given = [option.partition("=") for option in options.split(",") if option]
    for name, _, _ in given:
        if name in _REFUSED:  # first: to a remount, mount(8) adds what a mount has by itself
            raise click.UsageError(f"mount option {name!r}: {_REFUSED[name]}")
    found = []
    path = os.path.abspath(source)  # noqa: PTH100
    is_folder = "://" not in source and os.path.isdir(path)  # noqa: PTH112
    for name, equals, value in given:
        option = name + equals + value
        if option in _IGNORED or option.startswith(_IGNORED_PREFIXES):
            continue
        if name not in there_are:
            names = ", ".join(sorted(there_are))
            raise click.UsageError(f"unknown mount option {name!r}; there are {names}")
        key, param = there_are[name]
        if param.is_flag == bool(equals):
            raise click.UsageError(f"mount option {name!r} takes {'no' if equals else 'a'} value")
        if name in _SOURCES and ("://" in source or is_folder):
            raise click.UsageError(
                f"mount option {name!r}: the backups are in the source already; leave it out, or"
                " have a configuration file as the source"
            )
        if has_password(value):
            raise click.UsageError(
                f"mount option {name!r}: holds a password, and everybody may read the list of"
                " processes: write it into a configuration file, as the source"
            )
        found.append(f"--{key}{equals}{value}")
    if not has_password(source):  # everybody may read the list of mounts
        found.append(f"--source={source}")
    if "://" in source:
        return found  # by the environment, which others cannot read: see start()
    return [*found, f"--images={path}" if is_folder else f"--config={path}"]


def start(command: Sequence[str], source: str) -> int:
    """Start a daemon; return 0 once it is mounted and in the background, or else its exit code.

    What it says up to then goes to stderr, and after that to the system's log.
    """
    environment = dict(os.environ)
    if "://" in source:
        environment["RESTOREFS_CATALOG"] = source
    said, saying = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "restorefs", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=saying,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        os.close(saying)
        try:
            ready = _listen(said)
        except BaseException:
            process.terminate()
            raise
        if ready:
            _keep_log(said, process.pid)
            return 0
        return max(process.wait(), 1)  # never negative, as after a signal
    finally:
        os.close(said)


def _listen(said: int) -> bool:
    """Pass on what a daemon says until it is ready. Returns whether it is; else it has ended."""
    line = b""
    while chunk := os.read(said, 65536):
        *lines, line = (line + chunk).split(b"\n")
        for each in lines:
            if each.startswith(READY.encode()):
                return True
            click.echo(each, err=True)
    click.echo(line, err=True, nl=False)
    return False


def _keep_log(said: int, pid: int) -> None:
    """Have what a daemon says from now on written to the system's log; that ends with the daemon,
    and has no rights that the daemon does not have."""
    logger = shutil.which("logger")
    if logger is not None:  # without it, nobody reads, and the daemon's words are lost
        subprocess.Popen(
            [logger, "-t", "restorefs", "-p", "daemon.info"],
            stdin=said,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **_identity(pid),
        )


def _identity(pid: int) -> dict[str, Any]:
    """Return how to start a program as the user that a process has become, see proc_pid_status(5).
    Only root can, and only root needs to."""
    if os.geteuid() != 0:
        return {}
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ids = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    groups = [int(group) for group in ids["Groups"]]
    return {"user": int(ids["Uid"][1]), "group": int(ids["Gid"][1]), "extra_groups": groups}
