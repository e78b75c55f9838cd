"""The file of tokens: who may ask over TCP.

Owns its form: JSON, of each token its name, the SHA-256 of its 256 random bits (which nobody can
guess, so it needs no salt and no slow hash), and the VMs that it may see. The token itself is shown
once and kept nowhere. Must not know HTTP.
"""

import hashlib
import json
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restorefs.errors import ConfigError

log = logging.getLogger(__name__)
_PREFIX = "rfs_"
_MAX_SIZE = 4 << 20


@dataclass(frozen=True, slots=True)
class Token:
    """A token by its hash. `vms`: patterns for the names of VMs that it may see; None: all."""

    name: str
    sha256: str
    vms: tuple[str, ...] | None
    created_at: str


def digest(token: str) -> str:
    """Return the hash by which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read(path: Path) -> list[Token]:
    """Return a file's tokens. Raises ConfigError where it cannot be read or trusted."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError(f"{path}: not a file")
            if about.st_mode & 0o027:
                raise ConfigError(f"{path}: others may read or write it: `chmod 600 {path}`")
            text = file.read(_MAX_SIZE)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `restorefs token add NAME --file {path}` makes one"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, for the user that the daemon is") from error
    try:
        return [_token(each) for each in json.loads(text)["tokens"]]
    except (ValueError, KeyError, TypeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path}: not a file of tokens: {what}") from error


def _token(said: Any) -> Token:
    vms = said["vms"]
    if vms is not None and not isinstance(vms, list):  # a text would be taken letter by letter
        raise TypeError("vms is neither null nor a list")
    return Token(
        name=_text(said["name"]),
        sha256=_text(said["sha256"]),
        vms=None if vms is None else tuple(map(_text, vms)),
        created_at=_text(said["created_at"]),
    )


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise TypeError(f"{said!r} is not text")
    return said


def add(path: Path, name: str, vms: Sequence[str] | None) -> str:
    """Make a token, and the file if need be; return the token. Raises ConfigError."""
    if vms is not None and not all(vms):
        raise ConfigError("an empty pattern is no VM's name")
    tokens = read(path) if path.exists() else []
    if any(token.name == name for token in tokens):
        raise ConfigError(f"{path}: there is a token {name!r} already")
    if not name or not name.isprintable():
        raise ConfigError(f"{name!r} is no name for a token: the log shows it")
    made = _PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    _write(path, [*tokens, Token(name, digest(made), None if vms is None else tuple(vms), now)])
    return made


def remove(path: Path, name: str) -> None:
    """Take a token out. Raises ConfigError where there is none of that name."""
    tokens = read(path)
    left = [token for token in tokens if token.name != name]
    if len(left) == len(tokens):
        raise ConfigError(f"{path}: there is no token {name!r}")
    _write(path, left)


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Replace the file at once, so that a daemon never reads half of it; its owner stays."""
    text = json.dumps(
        {
            "tokens": [
                {
                    "name": token.name,
                    "sha256": token.sha256,
                    "vms": token.vms,
                    "created_at": token.created_at,
                }
                for token in tokens
            ]
        },
        indent=2,
    )
    try:
        before = path.stat() if path.exists() else None
        handle, made = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
                if before is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                    if os.geteuid() == 0:
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
            Path(made).replace(path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


class TokenFile:
    """A file of tokens as it is now: it is looked at whenever it has changed."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file cannot be used."""
        self.path = path
        self.error: str | None = None
        self._seen: tuple[int, ...] | None = None
        self._tokens: dict[str, Token] = {}
        self._load()
        if self.error is not None:
            raise ConfigError(self.error)

    def find(self, token: str) -> Token | None:
        """Return what is known of a token."""
        return self.by_hash(digest(token))

    def by_hash(self, sha256: str) -> Token | None:
        self._load()
        return self._tokens.get(sha256)

    def _load(self) -> None:
        """Look at the file if it changed. One that cannot be read has no tokens: who was taken out
        of it must not come in."""
        seen: tuple[int, ...]
        try:
            about = self.path.stat()
            seen = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode)
        except OSError:
            seen = ()
        if seen == self._seen:
            return
        self._seen = seen
        before = self.error
        try:
            self._tokens = {token.sha256: token for token in read(self.path)}
            self.error = None
        except ConfigError as error:
            self._tokens = {}
            self.error = str(error)
        if self.error is None and before is not None:
            log.warning("the tokens can be read again")
        elif self.error is not None and self.error != before:
            log.error("no token is known any more: %s", self.error)
