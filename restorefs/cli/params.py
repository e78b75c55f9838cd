"""Parameter types: durations, sizes, modes."""

import codecs
import re
import string

import click

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST = 3650 * 86_400.0  # longer, and times that are counted from it are no dates any more
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Duration(click.ParamType[float]):
    """Seconds from "90", "90s", "15m", "1h" or "2d"."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 1h", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > _LONGEST:
            self.fail(f"{value!r} is too long: at most {_LONGEST / 86_400:g}d", param, ctx)
        return seconds


class Size(click.ParamType[int]):
    """Bytes from "1048576", "512K", "256M" or "1G"."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", value)
        if match is None:
            self.fail(f"{value!r} is not a size such as 512K, 256M, 1G", param, ctx)
        return int(match[1]) * _BYTES[match[2]]


class Mask(click.ParamType[int]):
    """Mode bits from an octal number such as "022"."""

    name = "octal"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"[0-7]{1,4}", value) is None:
            self.fail(f"{value!r} is not an octal mask such as 022", param, ctx)
        return int(value, 8)


class Codepage(click.ParamType[str]):
    """A character set that begins as ASCII, with one byte for each character or, in part, with two;
    by a name that Python knows."""

    name = "codepage"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            usable = _is_character_set(value)
        except (LookupError, UnicodeError):
            usable = False
        if not usable:
            self.fail(f"{value!r} is not a character set such as cp437, cp850, cp866", param, ctx)
        return codecs.lookup(value).name


def _is_character_set(name: str) -> bool:
    """Raises LookupError, UnicodeError."""
    # Together too: an escape is more than one byte.
    for ascii_part in (r"\u0041\x41\101", string.printable):
        if ascii_part.encode("ascii").decode(name) != ascii_part:
            return False
    alone = [bytes([code]).decode(name, "replace") for code in range(256)]
    if alone[32:127] != [chr(code) for code in range(32, 127)] or max(map(len, alone)) > 1:
        return False
    return not set(alone[128:]) <= {"", "\ufffd"}


class Names(click.ParamType[tuple[str, ...]]):
    """Names from "one,two"."""

    name = "names"

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tuple(value)
        names = tuple(name.strip() for name in value.split(","))
        if not all(names) or any("/" in name for name in names):
            self.fail(f"{value!r} is not a list of names such as updatedb,mlocate", param, ctx)
        return names


class Address(click.ParamType[tuple[str, int]]):
    """An address and a port from "127.0.0.1:8082", "[::1]:8082", "localhost" or ":8082"."""

    name = "host:port"
    host = "127.0.0.1"
    port = 8082

    def convert(
        self,
        value: str | tuple[str, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, int]:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]*))(?::(\d{1,5}))?", value)
        if match is None or (match[3] and int(match[3]) > 65_535):
            self.fail(
                f"{value!r} is not an address such as 127.0.0.1:8082, [::1]:8082 or :8082",
                param,
                ctx,
            )
        port = int(match[3]) if match[3] else self.port
        return match[1] or match[2] or self.host, port


class DiskIndex(click.ParamType[int]):
    """A disk's index from "0" or "disk0"."""

    name = "disk"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(?:disk)?(\d{1,9})", value)
        if match is None:
            self.fail(f"{value!r} is not a disk such as 0 or disk0", param, ctx)
        return int(match[1])
