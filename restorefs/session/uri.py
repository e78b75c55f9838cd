"""Images and disks that a URI names instead of a file's path.

Owns which schemes there are, what each of them names, and the block graph that is pinned for
qemu-nbd: the driver and its options one by one, never a URI for qemu to interpret. Web servers
(http, https) give the file of a qcow2 image, as a repository does; NBD servers and Ceph (nbd,
nbd+unix, rbd) give the disk itself, which is raw: no format is ever looked for. Must not know about
processes. Pure functions. No error repeats a URI: whoever tells of it knows what may be shown.

Formats: RFC 3986 for http and https; the NBD project's doc/uri.md; for rbd QEMU's own form,
rbd:[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT][:OPTION=VALUE...], with backslashes before what is meant as
it is. The options of the drivers: QEMU's QAPI, BlockdevOptionsCurlHttps, Nbd and Rbd.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from restorefs.errors import StorageError

SCHEMES = ("https", "http", "nbd", "nbd+unix", "rbd")
IMAGES = ("https", "http")
_PASSWORD = "password"
_MAX_LENGTH = 2048
_NBD_PORT = 10_809
_MAX_TIMEOUT = 10_000  # QEMU's
_RBD_OPTIONS = {"id": "user", "conf": "conf"}

Node: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Remote:
    """What a URI names. node: of its protocol. secret: the name by which it means a password, and
    the password, as the list of processes shows the node to everybody. query: of a web address,
    which may hold a secret too."""

    scheme: str
    node: Node
    secret: tuple[str, str] | None = None
    query: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it is the file of a qcow2 image, as opposed to the disk itself."""
        return self.scheme in IMAGES

    def bytes_only(self) -> str:
        """Return the pseudo filename for its bytes as they are."""
        return _pinned({"driver": "raw", "file": self.node})

    def blockdev(self) -> str:
        """Return the pseudo filename for the disk."""
        if not self.is_image:
            return self.bytes_only()
        return _pinned({"driver": "qcow2", "backing": None, "file": self.node})

    def explain(self, said: str) -> str:
        """Return what qemu-nbd has said, or what that means where it is not obvious."""
        if f"Unknown driver '{self.node['driver']}'" not in said:
            return said.replace(self.query, "***") if self.query else said
        package = "qemu-block-rbd" if self.scheme == "rbd" else "qemu-block-curl"
        return (
            f"this machine's qemu has no driver for {self.scheme}: install qemu-block-extra"
            f" (Debian) or {package} (Fedora, openSUSE, Arch, Alpine)"
        )


def parse(
    uri: str, allowed: Collection[str], *, tls_verify: bool = True, timeout: float = math.inf
) -> Remote:
    """Say what a URI names, if its scheme is one of those `allowed`.

    `timeout` in seconds bounds each request to a web server. Raises StorageError for what is not
    allowed, not known, or not well-formed.
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
        return Remote(scheme, _rbd(rest))
    try:
        url = urlsplit(uri)
        host, port = url.hostname, url.port
    except ValueError:
        raise StorageError("not a well-formed address") from None
    if scheme in IMAGES:
        return _web(scheme, url, host, tls_verify=tls_verify, timeout=timeout)
    if url.username is not None:
        raise StorageError("NBD knows no users")
    server = _nbd_socket(url) if scheme == "nbd+unix" else _nbd_host(host, port)
    node: Node = {"driver": "nbd", "server": server, "export": unquote(url.path[1:])}
    return Remote(scheme, node)


def _pinned(graph: Node) -> str:
    return "json:" + json.dumps(graph, ensure_ascii=False, separators=(",", ":"))


def _web(
    scheme: str,
    url: SplitResult,
    host: str | None,
    *,
    tls_verify: bool,
    timeout: float,
) -> Remote:
    # The host as written: brackets and all. What needs to be quoted in JSON is no URL.
    place = url.netloc.rpartition("@")[2]
    query = f"?{url.query}" if url.query else ""
    address = f"{scheme}://{place}{url.path}{query}"
    if not host or re.fullmatch(r"[!#-\[\]-~]+", address) is None:
        raise StorageError("not a well-formed address: special characters are percent-encoded")
    node: dict[str, Any] = {
        "driver": scheme,
        "url": address,
        "timeout": math.ceil(min(max(timeout, 1), _MAX_TIMEOUT)),
    }
    if scheme == "https":
        node["sslverify"] = tls_verify
    secret = None
    if url.username:
        node["username"] = unquote(url.username)
        if url.password:
            node["password-secret"] = _PASSWORD
            secret = (_PASSWORD, unquote(url.password))
    return Remote(scheme, node, secret, url.query)


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
