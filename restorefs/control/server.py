"""Serves the API in the daemon's own loop.

Owns the socket. Only the daemon's user and root can reach it: it lies in a folder of mode 0700.
"""

from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette


async def serve_unix(
    app: Starlette, path: Path, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an application on a unix socket until cancelled."""
    config = Config()
    config.bind = [f"unix:{path}"]
    config.umask = 0o077
    config.accesslog = None
    config.errorlog = None
    await serve(app, config, task_status=task_status)  # type: ignore[arg-type]
