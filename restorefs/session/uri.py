"""Images and disks that a URI names instead of a file's path.

Owns which schemes there are, what each of them names, and how its server is asked: every option
one by one, never a URI for qemu to interpret. Web servers (http, https) give the file of a qcow2
image, as a repository does; NBD servers and Ceph (nbd, nbd+unix, rbd) give the disk itself, which
is raw: no format is ever looked for. Must not know about processes. Pure functions. No error
repeats a URI: whoever tells of it knows what may be shown.

Web servers are asked by nbdkit, as qemu's own driver is not fit for it: of several reads at once
some are never answered (seen with 7.2), and it trusts the system's authorities alone.

Formats: RFC 3986 for http and https; the NBD project's doc/uri.md; for rbd QEMU's own form,
rbd:[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT][:OPTION=VALUE...], with backslashes before what is meant as
it is. The options of the drivers: QEMU's QAPI, BlockdevOptionsNbd and Rbd; nbdkit-curl-plugin(1).
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from restorefs.errors import StorageError

SCHEMES = ("https", "http", "nbd", "nbd+unix", "rbd")
IMAGES = ("https", "http")
_MAX_LENGTH = 2048
_NBD_PORT = 10_809
_RBD_OPTIONS = {"id": "user", "conf": "conf"}

Node: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How web servers are asked. tls_ca: a file with the authorities that are trusted instead of
    the system's. timeout: of each request, in seconds."""

    tls_verify: bool = True
    tls_ca: Path | None = None
    timeout: float = math.inf


DEFAULT_WEB = WebOptions()


@dataclass(frozen=True, slots=True)
class WebImage:
    """A qcow2 image on a web server. arguments: of nbdkit, in which {secret} is a descriptor that
    gives `password`: the list of processes shows them to everybody."""

    arguments: Sequence[str]
    password: str | None
    query: str

    def blockdev(self, socket: Path) -> str:
        """Return the pseudo filename for the disk, with the image's bytes behind a socket."""
        server = {"type": "unix", "path": str(socket)}
        file = {"driver": "nbd", "server": server}
        return _pinned({"driver": "qcow2", "backing": None, "file": file})

    def explain(self, said: str) -> str:
        """Return what nbdkit has said, or what that means where it is not obvious."""
        if "cannot open plugin" in said:
            return "nbdkit has no curl plugin: install nbdkit-curl-plugin (Debian: nbdkit)"
        return said.replace(self.query, "***") if self.query else said


@dataclass(frozen=True, slots=True)
class RawDisk:
    """A disk of an NBD server or of Ceph. node: of its protocol."""

    node: Node

    def blockdev(self) -> str:
        """Return the pseudo filename for the disk."""
        return _pinned({"driver": "raw", "file": self.node})

    def explain(self, said: str) -> str:
        """Return what qemu-nbd has said, or what that means where it is not obvious."""
        if "Unknown driver 'rbd'" not in said:
            return said
        return (
            "this machine's qemu has no driver for rbd: install qemu-block-extra (Debian) or"
            " qemu-block-rbd (Fedora, openSUSE, Arch, Alpine)"
        )


def parse(uri: str, allowed: Collection[str], web: WebOptions = DEFAULT_WEB) -> WebImage | RawDisk:
    """Say what a URI names, if its scheme is one of those `allowed`.

    Raises StorageError for what is not allowed, not known, or not well-formed.
    """
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise StorageError(f"no images are read by {scheme}: known are {', '.join(SCHEMES)}")
    if scheme not in allowed:
        raise StorageError(
            f"{scheme} is not allowed; if it should be, give --allow-scheme {scheme}"
        )
    if len(uri) > _MAX_LENGTH:
        raise StorageError(f"longer than {_MAX_LENGTH} characters")
    if not uri.isprintable():
        raise StorageError("it has characters that do not print")
    if scheme == "rbd":
        return RawDisk(_rbd(rest))
    try:
        url = urlsplit(uri)
        host, port = url.hostname, url.port
    except ValueError:
        raise StorageError("not a well-formed address") from None
    if scheme in IMAGES:
        return _web(scheme, url, host, web)
    if url.username is not None:
        raise StorageError("NBD knows no users")
    server = _nbd_socket(url) if scheme == "nbd+unix" else _nbd_host(host, port)
    node: Node = {"driver": "nbd", "server": server, "export": unquote(url.path[1:])}
    return RawDisk(node)


def _pinned(graph: Node) -> str:
    return "json:" + json.dumps(graph, ensure_ascii=False, separators=(",", ":"))


def _web(scheme: str, url: SplitResult, host: str | None, web: WebOptions) -> WebImage:
    # The host as written: brackets and all.
    place = url.netloc.rpartition("@")[2]
    query = f"?{url.query}" if url.query else ""
    address = f"{scheme}://{place}{url.path}{query}"
    if not host or re.fullmatch(r"[!#-\[\]_a-z~]+", address) is None:
        raise StorageError("not a well-formed address: special characters are percent-encoded")
    # A server may send us to another address, but not to a scheme that was not asked for.
    arguments = ["--foreground", "--readonly", "curl", f"url={address}", f"protocols={scheme}"]
    if math.isfinite(web.timeout):
        arguments.append(f"timeout={max(1, math.ceil(web.timeout))}")
    if not web.tls_verify:
        arguments.append("sslverify=false")
    if web.tls_ca is not None:
        arguments.append(f"cainfo={web.tls_ca}")
    password = None
    if url.username:
        arguments.append(f"user={unquote(url.username)}")
        if url.password:
            arguments.append("password=-{secret}")
            password = unquote(url.password)
    return WebImage(arguments, password, url.query)


def _nbd_host(host: str | None, port: int | None) -> Node:
    if not host:
        raise StorageError("it names no host: expected nbd://HOST[:PORT]/EXPORT")
    return {"type": "inet", "host": host, "port": str(port or _NBD_PORT)}


def _nbd_socket(url: SplitResult) -> Node:
    sockets = parse_qs(url.query).get("socket", [])
    if url.netloc or len(sockets) != 1 or not sockets[0].startswith("/"):
        raise StorageError(
            "it names no socket: expected nbd+unix:///EXPORT?socket=/path/of/the/socket"
        )
    return {"type": "unix", "path": sockets[0]}


def _rbd(rest: str) -> Node:
    image, *options = _cut(rest, ":")
    image, *snapshot = _cut(image, "@")
    names = [_plain(part) for part in _cut(image, "/")]
    if not 2 <= len(names) <= 3 or not all(names) or len(snapshot) > 1:
        raise StorageError("expected rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:id=USER][:conf=FILE]")
    node: dict[str, Any] = {"driver": "rbd", "pool": names[0], "image": names[-1]}
    if len(names) == 3:
        node["namespace"] = names[1]
    if snapshot:
        node["snapshot"] = _plain(snapshot[0])
    for option in options:
        name, equals, value = option.partition("=")
        if name not in _RBD_OPTIONS or not equals:
            raise StorageError(
                "of the options behind a Ceph image only id and conf are read: keys and monitors"
                " are for the file that conf names, and its keyring"
            )
        node[_RBD_OPTIONS[name]] = _plain(value)
    return node


def _cut(text: str, separator: str) -> list[str]:
    """Split where a separator has no backslash before it; the backslashes stay."""
    parts = [""]
    for piece in re.findall(r"\\.|.", text):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
