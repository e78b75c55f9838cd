"""`restorefs mount --config`: the options of a mount from a TOML file.

Owns how a key stands for an option, and what is said about a file that is wrong. Must not know
which options there are: each option of the command is a key, by its name without the dashes in
front, and its text is read as on the command line.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
from click.core import ParameterSource

from restorefs.cli.params import Duration, Size
from restorefs.cli.text import printable

_WHOLE_NUMBERS = (click.types.IntParamType, Duration, Size)


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """Return what may be in a file: the key and parameter of everything that a command takes."""
    return {
        _key(param): param
        for param in command.params
        if param.name != "config" and not getattr(param, "hidden", False)
    }


def _key(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return str(param.name)
    return max(param.opts, key=len).lstrip("-")


def load(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Have the options that are not on the command line come from a file; a callback of click's.

    Raises click.UsageError that names the file, the key and what is allowed.
    """
    if path is None or ctx.resilient_parsing:  # completion wants no errors
        return None
    keys = keys_of(ctx.command)
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
            about = os.fstat(file.fileno())
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}", ctx) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(printable(f"{path}: is not TOML: {error}"), ctx) from error
    found = {}
    for key, value in table.items():
        try:
            known = _known(key, keys)
            found[str(known.name)] = _checked(ctx, known, value)
        except click.BadParameter as error:
            raise click.UsageError(printable(f"{path}: {key}: {error.message}"), ctx) from error
    if os.geteuid() == 0 and _is_writable_by_others(about):
        raise click.UsageError(
            f"{path}: others may write to it, and root does what it says: `chmod go-w {path}`", ctx
        )
    if about.st_mode & stat.S_IROTH and any(map(has_password, table.values())):
        raise click.UsageError(
            f"{path}: holds a password, and everybody may read it: `chmod o-r {path}`", ctx
        )
    ctx.default_map = {**(ctx.default_map or {}), **found}
    return path


def settle(ctx: click.Context, options: dict[str, Any], *exclusive: str) -> None:
    """Have the command line win over the file, and the file over the environment.

    So, too, of `exclusive` options, which say the same in different ways: the one that wins stands
    for all of them.
    """
    file = ctx.default_map or {}
    ranks: dict[ParameterSource | None, int] = {
        ParameterSource.COMMANDLINE: 2,
        ParameterSource.DEFAULT_MAP: 1,
    }
    rank = {name: ranks.get(ctx.get_parameter_source(name), 0) for name in options}
    for param in ctx.command.params:
        if param.name in file and rank.get(param.name) == 0:  # from the environment
            options[param.name] = param.type_cast_value(ctx, file[param.name])
            rank[param.name] = 1
    best = max(rank[name] for name in exclusive)
    for name in exclusive:
        if rank[name] < best:
            options[name] = None


def _known(key: str, keys: dict[str, click.Parameter]) -> click.Parameter:
    if key not in keys:
        near = difflib.get_close_matches(key.replace("_", "-").lstrip("-"), keys, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(keys))}"
        raise click.BadParameter(f"there is no such key; {hint}")
    return keys[key]


def _checked(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return a value as the command line would give it. Raises click.BadParameter."""
    if param.multiple:
        if not isinstance(value, list):
            raise click.BadParameter(f'must be a list, such as ["..."], not {_named(value)}')
        return [_single(ctx, param, each) for each in value]
    return _single(ctx, param, value)


def _single(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return one value, once it is known that it can be converted."""
    if getattr(param, "is_flag", False):
        if not isinstance(value, bool):
            raise click.BadParameter(f"must be true or false, not {_named(value)}")
        return value
    number = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(param.type, click.types.IntParamType):
        if not number:
            raise click.BadParameter(f"must be a whole number, not {_named(value)}")
    elif not isinstance(value, str) and not (number and isinstance(param.type, _WHOLE_NUMBERS)):
        raise click.BadParameter(f'must be text in quotes, such as "...", not {_named(value)}')
    if "\0" in str(value):  # a character that no argument can have
        raise click.BadParameter("must not contain a NUL")
    if isinstance(param.type, click.Path) and not os.path.isabs(value):  # noqa: PTH117
        # Relative to what? A service has no folder that it was started in.
        raise click.BadParameter(f"must be a path that begins with /, not {value!r}")
    text = str(value)
    param.type.convert(text, None, ctx)
    return text


def _is_writable_by_others(about: os.stat_result) -> bool:
    """Whether somebody but its owner and root's group may write to a file."""
    by_group = about.st_mode & stat.S_IWGRP and about.st_gid != 0
    return bool(by_group or about.st_mode & stat.S_IWOTH)


def _named(value: Any) -> str:
    """Say what a value is, as TOML calls it."""
    kinds: Iterable[tuple[type, str]] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number with a point"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or time")


def has_password(value: Any) -> bool:
    """Whether it is the URL of a database with a password: the user's, or that of a key, which the
    driver takes from the query."""
    if not isinstance(value, str) or "://" not in value:
        return False
    try:
        url = urlsplit(value)
    except ValueError:  # no URL
        return False
    names = [name for name, _ in parse_qsl(url.query, keep_blank_values=True)]
    return url.password is not None or any("passw" in name.lower() for name in names)
