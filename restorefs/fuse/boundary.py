"""Where exceptions become errnos.

A handler that lets anything but FUSEError out ends pyfuse3's main loop, and with it every user's
mount. So every handler is wrapped: a RestoreError gives its errno; anything else is a bug, logged
with its traceback, and gives EIO. Cancellation passes.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from restorefs.errors import RestoreError

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


def handler(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Wrap a request handler so that only FUSEError leaves it."""

    @functools.wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except RestoreError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("unexpected error in %s", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return wrapped
