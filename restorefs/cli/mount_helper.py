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

import click

from restorefs.cli.config_file import has_password
from restorefs.cli.text import READY

# What mount(8) and systemd read themselves, and what is so in any case: read-only, set-uid programs
# and devices without effect. `rw` comes from `defaults`.
_IGNORED = {
    *("defaults", "ro", "rw", "auto", "noauto", "nofail", "_netdev", "exec", "async"),
    *("user", "nouser", "users", "owner", "group", "nosuid", "suid", "nodev", "dev"),
    *("atime", "noatime", "relatime", "norelatime", "strictatime", "diratime", "nodiratime"),
    *("lazytime", "nolazytime", "allow_other", "default_permissions"),
}
_IGNORED_PREFIXES = ("x-", "X-", "comment=")
_RENAMED = {"setuid": "user"}  # as mount.fuse3(8) calls it; `user` means another thing to mount(8)


def arguments(source: str, options: str, known: Mapping[str, click.Parameter]) -> list[str]:
    """Return the arguments of `restorefs mount` for a source and mount options.

    Raises click.UsageError for an option that means nothing to it.
    """
    found = []
    for option in filter(None, options.split(",")):
        name, given, value = option.partition("=")
        if option in _IGNORED or option.startswith(_IGNORED_PREFIXES):
            continue
        key = _RENAMED.get(name, name)
        param = known.get(key)
        if not isinstance(param, click.Option):
            names = sorted(each for each in known if isinstance(known[each], click.Option))
            raise click.UsageError(f"unknown mount option {name!r}; there are {', '.join(names)}")
        if param.is_flag == bool(given):
            raise click.UsageError(f"mount option {name!r} takes {'no' if given else 'a'} value")
        found.append(f"--{key}={value}" if given else f"--{key}")
    if not has_password(source):  # everybody may read the list of mounts
        found.append(f"--source={source}")
    if "://" in source:
        return found  # by the environment, which others cannot read: see start()
    path = os.path.abspath(source)  # noqa: PTH100
    return [*found, f"--images={path}" if os.path.isdir(path) else f"--config={path}"]  # noqa: PTH112


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
            _keep_log(said)
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


def _keep_log(said: int) -> None:
    """Have what a daemon says from now on written to the system's log; it ends with the daemon."""
    logger = shutil.which("logger")
    if logger is not None:  # without it, nobody reads, and the daemon's words are lost
        subprocess.Popen(
            [logger, "-t", "restorefs", "-p", "daemon.info"],
            stdin=said,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
