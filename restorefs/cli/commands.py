"""The commands."""

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import quote

import click

import restorefs
from restorefs.cli import config_file, show
from restorefs.cli.params import Address, Codepage, DiskIndex, Duration, Mask, Names, Size
from restorefs.cli.text import READY, printable
from restorefs.config import PROFILES, Settings, default_runtime_dir, real_mountpoint
from restorefs.errors import ConfigError, RestoreError
from restorefs.session.uri import SCHEMES

if TYPE_CHECKING:
    from restorefs.cli.client import DaemonClient
    from restorefs.cli.examine import Finding

P = ParamSpec("P")
R = TypeVar("R")
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)
FILE = click.Path(path_type=Path, dir_okay=False, resolve_path=True)
MOUNTPOINT = click.Path(path_type=Path, readable=False)  # that of a crash may be dead
ID = click.IntRange(0, 2**32 - 2)  # -1 means nobody at all: chown(2)
CATALOG_HELP = "sqlite:////path/catalog.db or mysql+pymysql://user:password@host/database"


def _complete_backup(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """Complete a backup's id by asking the daemon."""
    parent = ctx.find_root().params
    runtime_dir = parent.get("runtime_dir") or default_runtime_dir()
    ctx.find_root().obj = {"mountpoint": parent.get("mountpoint"), "runtime_dir": runtime_dir}
    try:
        told = _daemon(ctx.find_root()).call("GET", "backups")
    except click.ClickException:
        return []  # completion has nowhere to say why
    names = [backup["backup_id"] for backup in told["backups"]]
    return [name for name in names if name.startswith(start) and name.isprintable()]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def told(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what can go wrong into a message and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            raise click.UsageError(printable(str(error))) from error
        except RestoreError as error:
            raise click.ClickException(printable(str(error))) from error

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(restorefs.__version__, prog_name="restorefs")
@click.option(
    "--mount",
    "mountpoint",
    type=MOUNTPOINT,
    envvar="RESTOREFS_MOUNT",
    help="Which mount to ask, when several are served. [env: RESTOREFS_MOUNT]",
)
@click.option(
    "--runtime-dir",
    type=MOUNTPOINT,
    default=default_runtime_dir,
    envvar="RESTOREFS_RUNTIME_DIR",
    help="Where daemons keep their sockets. [default: /run/restorefs, or below"
    " $XDG_RUNTIME_DIR] [env: RESTOREFS_RUNTIME_DIR]",
)
@click.pass_context
def main(ctx: click.Context, mountpoint: Path | None, runtime_dir: Path) -> None:
    """Browse VM backups: every disk of every backup as a folder of one read-only mount.

    \b
    A first look, without any database:
      restorefs mount --images /srv/backups /mnt/restore
      ls /mnt/restore/backups

    Nothing is attached until somebody looks inside a disk's folder; what nobody has used for an
    hour is let go again.

    \b
    Tab completion for bash (zsh and fish likewise):
      eval "$(_RESTOREFS_COMPLETE=bash_source restorefs)"
    """  # fmt: skip  # noqa: D301
    ctx.obj = {"mountpoint": mountpoint, "runtime_dir": runtime_dir.absolute()}


@main.command()
@click.argument("mountpoint", type=MOUNTPOINT, required=False)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=config_file.load,
    help="Take what is not on the command line from this TOML file: each option here is a key,"
    ' as in `idle-timeout = "30m"`, and so is `mountpoint`.',
)
@click.option(
    "--catalog",
    "catalog_url",
    metavar="URL",
    envvar="RESTOREFS_CATALOG",
    help=CATALOG_HELP + " [env: RESTOREFS_CATALOG]",
)
@click.option("--images", type=FOLDER, help="A folder of qcow2 files, instead of a catalog.")
@click.option(
    "--repository",
    "repositories",
    type=FOLDER,
    multiple=True,
    help="A folder that images and their backing files must lie in; repeatable."
    " [default: the --images folder, or each catalogued file's own folder]",
)
@click.option(
    "--idle-timeout",
    type=Duration(),
    default="1h",
    show_default=True,
    help="Let a disk go when nobody has used it for this long; 0 keeps it.",
)
@click.option(
    "--max-attached",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Disks attached at once; then the least recently used idle one is let go.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="posix",
    show_default=True,
    help="posix shows files as the guest has them. samba adds what Samba's modules look for:"
    " streams and permissions of Windows guests. plain shows all files as one owner's, 0644, and"
    " folders 0755; the owner is who runs this, unless --uid and --gid name another.",
)
@click.option("--uid", type=ID, help="Show this owner (a number) instead of the guests'.")
@click.option("--gid", type=ID, help="Show this group (a number) instead of the guests'.")
@click.option("--umask", type=Mask(), help="Take these bits away from all modes, such as 022.")
@click.option(
    "--show-system-files", is_flag=True, help="List what NTFS keeps for itself, such as $MFT."
)
@click.option(
    "--oem-codepage",
    type=Codepage(),
    default="cp437",
    show_default=True,
    help="The character set of short names on FAT, such as cp850 or cp866.",
)
@click.option(
    "--deny-comm",
    type=Names(),
    default=(),
    metavar="NAME,...",
    help="Programs that may not look inside disks, such as updatedb,tracker-miner-fs: they would"
    " attach every one.",
)
@click.option(
    "--vm",
    "vms",
    metavar="PATTERN",
    multiple=True,
    help="Show only backups of VMs with such a name, as in 'db-*'; repeatable.",
)
@click.option(
    "--allow-scheme",
    "allow_schemes",
    type=click.Choice(SCHEMES),
    multiple=True,
    help="Follow URIs of this kind in the catalog, as well as paths; repeatable.",
)
@click.option(
    "--tls-ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    help="A file with the authorities to trust for https, instead of the system's.",
)
@click.option(
    "--no-tls-verify",
    is_flag=True,
    help="Do not check the certificates of https servers.",
)
@click.option(
    "--host-name",
    metavar="NAME",
    envvar="RESTOREFS_HOST_NAME",
    help="What attach records call this machine; daemons that do not see each other's processes"
    " need different ones. [default: its own name] [env: RESTOREFS_HOST_NAME]",
)
@click.option(
    "--cache-size", type=Size(), default="256M", show_default=True, help="Memory for what was read."
)
@click.option(
    "--attach-timeout",
    type=Duration(),
    default="20s",
    show_default=True,
    help="Give an attach up after this long.",
)
@click.option(
    "--read-timeout",
    type=Duration(),
    default="60s",
    show_default=True,
    help="Give a disk up when its storage does not answer a read for this long.",
)
@click.option("--noexec", is_flag=True, help="Let nobody run a program from the mount.")
@click.option(
    "--user",
    metavar="NAME",
    help="Started as root: become this user as soon as it is mounted, for good. The user must be"
    " able to read the images, and to reach the catalog.",
)
@click.option(
    "--listen",
    type=Address(),
    is_flag=False,
    flag_value=f"{Address.host}:{Address.port}",
    metavar="[HOST:PORT]",
    help="Serve the API and the web page over TCP, too. [default without a value: 127.0.0.1:8082;"
    " port 0 takes a free one, and says which]",
)
@click.option(
    "--token-file",
    type=FILE,
    help="Who may use it: a file that `restorefs token add` makes.",
)
@click.option(
    "--listen-insecure", is_flag=True, help="Let everybody in who can connect, without a token."
)
@click.option("--tls-cert", type=FILE, help="A certificate with its chain (PEM): speak TLS.")
@click.option("--tls-key", type=FILE, help="The certificate's key (PEM), without a password.")
@click.option(
    "--allow-host",
    "allow_hosts",
    metavar="NAME[:PORT]",
    multiple=True,
    help="A further name that browsers may reach it by; repeatable.",
)
@click.option("--source", default="restorefs", hidden=True)  # for the mount helper
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.pass_context
@told
def mount(ctx: click.Context, /, log_level: str, **options: Any) -> None:
    """Serve the backups at MOUNTPOINT until Ctrl-C, SIGTERM or an unmount.

    Stays in the foreground. A second Ctrl-C hurries. SIGHUP asks the catalog what is new.

    \b
      restorefs mount --images /srv/backups /mnt/restore
      restorefs mount --config /etc/restorefs/main.toml --user restorefs

    For a service or a line of /etc/fstab, see systemd/README.md.
    """  # fmt: skip  # noqa: D301
    import trio

    from restorefs import daemon
    from restorefs.cli.log import Stderr

    stderr = Stderr()
    stderr.log(log_level)
    config_file.settle(ctx, options, "catalog_url", "images")
    if options["mountpoint"] is None:
        raise click.UsageError("say where to mount: MOUNTPOINT, or `mountpoint` in --config FILE")
    mountpoint = real_mountpoint(options.pop("mountpoint"))
    options["tls_verify"] = not options.pop("no_tls_verify")
    settings = Settings(mountpoint=mountpoint, runtime_dir=ctx.obj["runtime_dir"], **options)

    def ready(line: str) -> None:
        stderr.start()
        stderr.say(READY + printable(line))

    try:
        trio.run(partial(daemon.run, settings, ready))
    finally:
        stderr.end()


@main.command("mount-helper", hidden=True)
@click.argument("source")
@click.argument("mountpoint", type=MOUNTPOINT)
@click.option("-o", "options", default="", help="Mount options: those of `restorefs mount`.")
@click.option("-t", expose_value=False)
@click.option("-N", expose_value=False)
@click.option("-f", "fake", is_flag=True, help="Do all but mount.")
@click.option("-n", is_flag=True, expose_value=False)
@click.option("-s", is_flag=True, expose_value=False)
@click.option("-v", is_flag=True, expose_value=False)
@click.pass_context
@told
def mount_helper(
    ctx: click.Context, source: str, mountpoint: Path, options: str, fake: bool
) -> None:
    """Mount as mount(8) asks for it, and go into the background.

    SOURCE is a configuration file, a folder of images, or a catalog's URL. The program to install
    as /sbin/mount.fuse.restorefs calls this.
    """
    from restorefs.cli import mount_helper

    found = mount_helper.arguments(source, options, config_file.keys_of(mount))
    if not fake:
        runtime_dir = ("--runtime-dir", str(ctx.obj["runtime_dir"]))
        command = [*runtime_dir, "mount", *found, "--", str(mountpoint.absolute())]
        ctx.exit(mount_helper.start(command, source))


@main.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--catalog", "catalog_url", metavar="URL", required=True, help="sqlite:////path/catalog.db"
)
@json_option
@told
def scan(folder: Path, catalog_url: str, as_json: bool) -> None:
    """Write the images found in FOLDER into an SQLite catalog, and say what was skipped and why.

    \b
    Looks for:
      BACKUP/disk0.qcow2
      BACKUP/disk-0/*.qcow2   (dated ones: each an own restore point, the newest as BACKUP)

    Scanning again adds what is new and keeps the ids of what is known.
    """  # noqa: D301
    from rich.console import Console
    from rich.progress import Progress

    from restorefs.catalog.scan import scan

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("looking at backups", total=None)
        report = scan(
            folder,
            catalog_url,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        show.as_json(
            {
                "backups": report.backups,
                "disks": report.disks,
                "added": [str(path) for path in report.added],
                "changed": [str(path) for path in report.changed],
                "vanished": [str(path) for path in report.vanished],
                "skipped": [str(skipped) for skipped in report.skipped],
                "notes": report.notes,
            }
        )
        return
    for text in report.lines():
        click.echo(printable(text))


@main.group()
def catalog() -> None:
    """Look after the catalog's database."""


@catalog.command()
@click.option(
    "--catalog",
    "catalog_url",
    metavar="URL",
    required=True,
    envvar="RESTOREFS_CATALOG",
    help=CATALOG_HELP,
)
@click.option("--down", is_flag=True, help="Undo it: take our table out again.")
@told
def migrate(catalog_url: str, down: bool) -> None:
    """Make the table restore_mounts, the only one that restorefs writes."""  # fmt: skip
    from restorefs.catalog.migrate import migrate

    for line in migrate(catalog_url, down=down):
        click.echo(line)


@main.group()
def token() -> None:
    """Look after the tokens of the API, for `restorefs mount --listen`."""


token_file_option = click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), required=True
)


@token.command("add")
@click.argument("name")
@token_file_option
@click.option(
    "--vm",
    "vms",
    metavar="PATTERN",
    multiple=True,
    help="Show only VMs whose name matches, such as 'web*'; repeatable.",
)
@told
def token_add(name: str, path: Path, vms: tuple[str, ...]) -> None:
    """Make a token and print it, once: only its hash is kept. The log shows NAME.

    The file must be the daemon's own user's. A daemon that runs sees the change at once.
    """
    from restorefs.control import tokens

    click.echo(tokens.add(path, name, vms or None))


@token.command("list")
@token_file_option
@json_option
@told
def token_list(path: Path, as_json: bool) -> None:
    """List the tokens by name."""
    from restorefs.control import tokens

    found = tokens.read(path)
    if as_json:
        show.as_json(
            [{"name": each.name, "vms": each.vms, "created_at": each.created_at} for each in found]
        )
        return
    for each in found:
        vms = "all VMs" if each.vms is None else ", ".join(each.vms)
        click.echo(printable(f"{each.name}  {vms}  {each.created_at}"))


@token.command("remove")
@click.argument("name")
@token_file_option
@told
def token_remove(name: str, path: Path) -> None:
    """Take a token out; its sessions end at once."""
    from restorefs.control import tokens

    tokens.remove(path, name)


@main.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what is attached, since when and for how long, and what could not be read."""
    answer = _daemon(ctx).call("GET", "status")
    show.as_json(answer) if as_json else show.status(answer)


@main.command()
@json_option
@click.pass_context
def reload(ctx: click.Context, as_json: bool) -> None:
    """Ask the catalog now for what is new and what has gone, instead of within half a minute."""
    answer = _daemon(ctx).call("POST", "reload")
    show.as_json(answer) if as_json else show.reloaded(answer)


@main.command()
@click.argument("backup", shell_complete=_complete_backup)
@json_option
@click.pass_context
def disks(ctx: click.Context, backup: str, as_json: bool) -> None:
    """Show everything that is on the disks of BACKUP; attaches them.

    Exits with 1 when a disk cannot be attached.
    """
    answer = _daemon(ctx).call("GET", f"backups/{_quoted(backup)}/volumes")
    show.as_json(answer) if as_json else show.disks(answer)
    if any("volumes" not in disk for disk in answer["disks"]):
        ctx.exit(1)


@main.command()
@click.argument("backup", shell_complete=_complete_backup)
@click.argument("disk", type=DiskIndex())
@json_option
@click.pass_context
def attach(ctx: click.Context, backup: str, disk: int, as_json: bool) -> None:
    """Attach a disk of BACKUP ahead of use. DISK is 0 or disk0."""
    path = f"backups/{_quoted(backup)}/disks/{disk}/attachment"
    answer = _daemon(ctx).call("PUT", path)
    if as_json:
        show.as_json(answer)
    else:
        folders = [v["name"] or "one file system" for v in answer["volumes"] if v["folder"]]
        click.echo(f"attached {backup}/disk{disk}: {' '.join(folders) or 'no folders'}")


@main.command()
@click.argument("backup", shell_complete=_complete_backup)
@click.argument("disk", type=DiskIndex())
@json_option
@click.pass_context
def detach(ctx: click.Context, backup: str, disk: int, as_json: bool) -> None:
    """Let a disk of BACKUP go now. DISK is 0 or disk0.

    Open files keep working: the next read attaches the disk again.
    """
    path = f"backups/{_quoted(backup)}/disks/{disk}/attachment"
    answer = _daemon(ctx).call("DELETE", path)
    if as_json:
        show.as_json(answer)
    else:
        done = "detached" if answer["detached"] else "was not attached:"
        click.echo(f"{done} {backup}/disk{disk}")


@main.command()
@click.option(
    "--catalog",
    "catalog_url",
    metavar="URL",
    envvar="RESTOREFS_CATALOG",
    help="Examine its images as well: " + CATALOG_HELP,
)
@click.option("--images", type=FOLDER, help="Examine a folder's images as well.")
@click.option(
    "--repository",
    "repositories",
    type=FOLDER,
    multiple=True,
    help="As for mount: folders that images and backing files must lie in.",
)
@json_option
@click.pass_context
@told
def check(
    ctx: click.Context,
    catalog_url: str | None,
    images: Path | None,
    repositories: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Examine this machine, and every image of a catalog or folder, without a daemon.

    Every backing chain is followed and every cluster's place is checked, so that a truncated or
    missing file shows now and not on the day it is needed. Exits with 1 when something is wrong.
    """  # fmt: skip
    from restorefs.cli import examine

    findings = list(examine.machine(ctx.obj["runtime_dir"]))
    if not as_json:
        show.findings(findings)
    if catalog_url or images:
        findings += _check_images(catalog_url, images, repositories, quiet=as_json)
    if as_json:
        show.as_json([finding.as_json() for finding in findings])
    if not all(finding.ok for finding in findings):
        ctx.exit(1)


def _check_images(
    catalog_url: str | None, images: Path | None, repositories: tuple[Path, ...], quiet: bool
) -> "list[Finding]":
    from rich.console import Console
    from rich.progress import track

    from restorefs.catalog.open import open_catalog, open_folder
    from restorefs.cli import examine

    if images is not None:
        catalog = open_folder(images)
        repositories = repositories or (images,)
    else:
        assert catalog_url is not None
        catalog = open_catalog(catalog_url)
    disks = [disk for backup in catalog.backups() for disk in backup.disks]
    catalog.close()
    found = list(examine.no_images(images)) if images is not None else []
    if not quiet:
        show.findings(found)
    for disk in track(disks, "examining images", console=Console(stderr=True), disable=quiet):
        finding = examine.image(disk, repositories)
        found.append(finding)
        if not quiet:
            show.findings([finding])
    return found


def _daemon(ctx: click.Context) -> "DaemonClient":
    from restorefs.cli.client import DaemonClient

    return DaemonClient.find(ctx.obj["runtime_dir"], ctx.obj["mountpoint"])


def _quoted(backup: str) -> str:
    """Return a backup's id as a part of a URL's path."""
    return quote(os.fsencode(backup), safe="")
