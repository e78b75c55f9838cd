"""Shows answers of the daemon to people.

Owns tables and wording. Names from guests and catalogs are printed as plain text, never as markup
or terminal control codes.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from restorefs.cli.text import printable

if TYPE_CHECKING:
    from restorefs.cli.examine import Finding

_WIDE = 250


def as_json(value: Any) -> None:
    """Print a value for programs."""
    click.echo(json.dumps(value, indent=2))


def size(count: int | None) -> str:
    """Return bytes for people, in binary units."""
    if count is None:
        return ""
    value, units = float(count), iter(["B", "KiB", "MiB", "GiB", "TiB"])
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def status(told: dict[str, Any]) -> None:
    """Print the daemon's state."""
    console = _console()
    idle = told["idle_timeout_seconds"]
    lines = [
        f"restorefs {told['version']} at {told['mountpoint']} (pid {told['pid']})",
        f"catalog  {told['catalog']}: {told['backups']} backups, {told['disks']} disks",
    ]
    if told["catalog_error"]:
        lines.append(f"         CANNOT BE READ NOW: {told['catalog_error']}")
    lines += [f"         CANNOT READ {text}" for text in told["catalog_unread"]]
    kept = f"let go after {idle:g} s without access" if idle else "kept until the end"
    lines.append(f"attached {len(told['attached'])} of at most {told['max_attached']}, {kept}")
    lines += [f"API      {url}" for url in told["listening"]]
    for line in lines:
        console.print(_plain(line), soft_wrap=True)
    if told["attached"]:
        table = _table("BACKUP", "DISK", "HOLDS", "READ", "ATTACHED", "FOR", "LET GO AT", "PID")
        for disk in told["attached"]:
            table.add_row(
                _plain(disk["backup_id"]),
                f"disk{disk['disk_index']}",
                _plain(" ".join(disk["filesystems"]) or "-"),
                size(disk["bytes_read"]),
                _local(disk["attached_at"]),
                _plain(_asker(disk["attached_for"])),
                _local(disk["expires_at"]) or "-",
                str(disk["qemu_nbd_pid"]),
            )
        console.print(table)
    for failure in told["failures"]:
        where = f"{failure['backup_id']}/disk{failure['disk_index']}"
        console.print(
            _plain(f"! {where}: {failure['reason']} ({_local(failure['at'])})"), soft_wrap=True
        )


def _asker(told: dict[str, Any] | None) -> str:
    if told is None:
        return "-"
    if told["client"] is not None:
        return f"{told['client']}, over the API"
    return f"{told['program'] or told['pid']}, uid {told['uid']}"


def reloaded(told: dict[str, Any]) -> None:
    """Print what asking the catalog gave."""
    for mark, names in (("+", told["added"]), ("-", told["removed"])):
        for name in names:
            click.echo(f"{mark} {printable(name)}")
    new, gone = len(told["added"]), len(told["removed"])
    click.echo(f"{told['backups']} backups, {told['disks']} disks: {new} new, {gone} gone")


def disks(told: dict[str, Any]) -> None:
    """Print everything that is on a backup's disks."""
    console = _console()
    heading = f"{told['backup_id']}: {told['vm_name']}"
    console.print(_plain(f"{heading}, {_local(told['created_at']) or 'time unknown'}"))
    for disk in told["disks"]:
        _disk(console, disk)


def findings(found: "Iterable[Finding]") -> None:
    """Print what was examined, a line each, with advice where something is wrong."""
    console = _console()
    for finding in found:
        mark = "ok  " if finding.ok else "FAIL"
        console.print(_plain(f"{mark} {finding.subject}: {finding.detail}"), soft_wrap=True)
        if not finding.ok and finding.advice:
            console.print(_plain(f"     {finding.advice}"), soft_wrap=True)


def _disk(console: Console, disk: dict[str, Any]) -> None:
    kind = {"gpt": "GPT", "mbr": "MBR", "none": "no partition table"}
    head = f"disk{disk['disk_index']}  {disk['qcow2_path']}"
    if "size" in disk:
        head += f"  {size(disk['size'])}, {kind.get(disk['table'], disk['table'])}"
    console.print()
    console.print(_plain(head), soft_wrap=True)
    for note in disk.get("notes", ()):
        console.print(_plain(f"  note: {note}"), soft_wrap=True)
    if "volumes" not in disk:
        console.print(_plain(f"  ! {disk['error']}"), soft_wrap=True)
        return
    table = _table("FOLDER", "SIZE", "HOLDS", "LABEL", "UUID", "TYPE", "REMARKS")
    partitions = [volume for volume in disk["volumes"] if volume["start"] is not None]
    others = [volume for volume in disk["volumes"] if volume["start"] is None]
    for volume in [*partitions, *sorted(others, key=lambda volume: str(volume["name"]))]:
        table.add_row(
            _plain(_folder(volume)),
            size(volume["size"]),
            _plain(_holds(volume)),
            _plain(volume["label"] or volume["part_label"]),
            _plain(volume["uuid"]),
            _plain(volume["type"]),
            _plain(_remarks(volume)),
        )
    console.print(table)


def _holds(volume: dict[str, Any]) -> str:
    if volume["elsewhere"] is not None:
        return "see there"
    return volume["filesystem"] or ("unknown" if volume["error"] else "nothing recognised")


def _folder(volume: dict[str, Any]) -> str:
    if volume["elsewhere"] is not None:
        return f"{volume['name']} -> disk{volume['elsewhere']}"
    name = volume["name"] or "the disk"
    return (volume["name"] or "(the disk)") if volume["folder"] else f"- ({name})"


def _remarks(volume: dict[str, Any]) -> str:
    remarks = [f"group {volume['group']}"] if volume["group"] else []
    remarks += volume["notes"]
    if volume["error"]:
        remarks.insert(0, volume["error"])
    elif volume["folder"] and volume["encrypted"]:
        remarks.insert(0, "encrypted: needs a key")
    elif volume["folder"] and not volume["readable"]:
        remarks.insert(0, "recognised, not read yet")
    if volume["clean"] is False and not remarks:
        remarks.append("not cleanly unmounted")
    return "; ".join(remarks)


def _console() -> Console:
    """Return where to print; what is not a terminal gets no line breaks for its width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _plain(text: str) -> Text:
    return Text(printable(text))


def _local(time: str | None) -> str:
    if time is None:
        return ""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
