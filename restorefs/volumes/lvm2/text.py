"""The text that LVM2 describes a volume group with.

Pure: bytes in, a dict out. Owns the grammar, not what any of the keys means.

Source: lvm.conf(5), "SYNTAX": a file is of sections, "name { ... }", and assignments, "key =
value"; a value is a number, a string in double quotes with backslash escapes, or an array of those
in brackets, with commas between; "#" begins a comment.

Bounded: the text is at most one metadata area, each token takes constant time, and what is nested
deeper than any of LVM's own is refused.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

from restorefs.errors import DamagedError

Scalar: TypeAlias = int | float | str
Value: TypeAlias = "Scalar | list[Scalar] | Section"
Section: TypeAlias = dict[str, "Value"]

_MAX_DEPTH = 16
_MAX_DIGITS = 20

_TOKEN = re.compile(
    rb"""(?>[ \t\r\n\0]+|\#[^\n]*)*+
    (?:(?P<string>"(?>[^"\\]+|\\.)*+")
      |(?P<number>[-+]?[0-9]+(?:\.[0-9]+)?)(?![A-Za-z0-9_.+/@-])
      |(?P<name>[A-Za-z0-9_.+/-][A-Za-z0-9_.+/@-]*)
      |(?P<mark>[{}=\[\],])
      |(?P<end>\Z))""",
    re.X | re.S,
)
"""Repetitions do not give back what they took, so that no text makes a match slow."""

_ESCAPE = re.compile(r"\\(.)", re.S)


def parse(text: bytes) -> Section:
    """Return the text's sections and assignments. Strings and names are decoded as UTF-8, what is
    none as surrogates. Raises DamagedError, with the byte's number, where it is none of these."""
    root: Section = {}
    stack = [root]
    tokens = _tokens(text)
    for kind, token, at in tokens:
        if kind == "end":
            break
        if kind == "mark" and token == "}" and len(stack) > 1:
            stack.pop()
            continue
        if kind not in ("name", "number", "string"):
            raise _wrong(at, token)
        _, mark, at = next(tokens)
        if mark == "{":
            section: Section = {}
            _put(stack[-1], token, section, at)
            stack.append(section)
            if len(stack) > _MAX_DEPTH:
                raise DamagedError(f"LVM2 metadata is nested too deep at byte {at}")
        elif mark == "=":
            _put(stack[-1], token, _value(tokens), at)
        else:
            raise _wrong(at, mark)
    if len(stack) > 1:
        raise DamagedError("LVM2 metadata ends inside of a section")
    return root


def _put(section: Section, key: str, value: Value, at: int) -> None:
    if key in section:
        raise DamagedError(f"LVM2 metadata has {key!r} twice, at byte {at}")
    section[key] = value


def _value(tokens: Iterator[tuple[str, str, int]]) -> Value:
    kind, token, at = next(tokens)
    if token != "[" or kind != "mark":
        return _scalar(kind, token, at)
    values: list[Scalar] = []
    kind, token, at = next(tokens)
    while not (kind == "mark" and token == "]"):
        values.append(_scalar(kind, token, at))
        kind, token, at = next(tokens)
        if kind == "mark" and token == ",":
            kind, token, at = next(tokens)
        elif not (kind == "mark" and token == "]"):
            raise _wrong(at, token)
    return values


def _scalar(kind: str, token: str, at: int) -> Scalar:
    if kind == "string":
        return token
    if kind != "number" or len(token) > _MAX_DIGITS:
        raise _wrong(at, token)
    return float(token) if "." in token else int(token)


def _tokens(text: bytes) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and position of each token; the last one, and any after it, is "end"."""
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            raise DamagedError(f"LVM2 metadata cannot be understood at byte {at}")
        kind = match.lastgroup or "end"
        token = match[kind].decode("utf-8", "surrogateescape")
        if kind == "string":
            token = _ESCAPE.sub(r"\1", token[1:-1]) if "\\" in token else token[1:-1]
        yield kind, token, match.start(kind)
        at = match.end()


def _wrong(at: int, token: str) -> DamagedError:
    return DamagedError(f"LVM2 metadata has {token[:40]!r} at byte {at}, where nothing such may be")
