"""The API's way in over TCP: opened before the daemon becomes another user.

Owns what `--listen` and the options beside it come to. A port below 1024, and a key that only root
may read, need root; the tokens are read again and again, by the user that the daemon becomes.
"""

import logging
import ssl
from contextlib import ExitStack
from socket import socket
from types import TracebackType
from typing import Self

from restorefs.config import Settings
from restorefs.control.guard import Hosts
from restorefs.control.server import listen_tcp, tls_context
from restorefs.control.sessions import Doorkeeper
from restorefs.control.tokens import TokenFile

log = logging.getLogger(__name__)


class Doors:
    """What is listened on; without `--listen`, nothing."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError where it cannot be listened."""
        self._settings = settings
        self._stack = ExitStack()
        self.sockets: list[socket] = []
        self.tls: ssl.SSLContext | None = None
        if settings.listen is None:
            self.hosts = Hosts()
            return
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.tls = tls_context(settings.tls_cert, settings.tls_key)
        self.sockets.append(self._stack.enter_context(listen_tcp(*settings.listen)))
        listened = [each.getsockname()[:2] for each in self.sockets]
        named = {(settings.listen[0], port) for _, port in listened}
        also = [f"{host}:{port}" for host, port in named if not _is_address(host)]
        self.hosts = Hosts(listened, [*settings.allow_hosts, *also])

    @property
    def urls(self) -> list[str]:
        """Where it is listened, for people."""
        scheme = "http" if self.tls is None else "https"
        found = (each.getsockname()[:2] for each in self.sockets)
        return [
            f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in found
        ]

    def doorkeeper(self) -> Doorkeeper:
        """Return who decides who may ask. Raises ConfigError for tokens that cannot be read."""
        if self._settings.listen_insecure:
            log.info("whoever can connect may ask the API: --listen-insecure")
        path = self._settings.token_file
        tokens = TokenFile(path) if path is not None else None
        return Doorkeeper(tokens, insecure=self._settings.listen_insecure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host
