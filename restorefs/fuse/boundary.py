"""Where exceptions become errnos.

A handler that lets anything but FUSEError out ends pyfuse3's main loop, and with it every user's
mount. So every handler is wrapped: a RestoreError gives its errno; anything else is a bug, logged
with its traceback, and gives EIO. Cancellation passes. Where the kernel bounds the time of a
request (it ends the whole mount otherwise), one that takes too long gives ETIMEDOUT before that.
"""

import errno
import functools
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from restorefs.errors import RestoreError

log = logging.getLogger(__name__)


class Bounded(Protocol):
    """What has handlers; each may take `request_timeout` seconds."""

    request_timeout: float


S = TypeVar("S", bound=Bounded)
P = ParamSpec("P")
R = TypeVar("R")


def handler(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Wrap a request handler so that only FUSEError leaves it, and in time."""

    @functools.wraps(method)
    async def wrapped(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await _in_time(self.request_timeout, method(self, *args, **kwargs))
        except RestoreError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("unexpected error in %s", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return wrapped


async def _in_time(seconds: float, answer: Coroutine[Any, Any, R]) -> R:
    if seconds == math.inf:
        return await answer
    with trio.move_on_after(seconds):
        return await answer
    raise pyfuse3.FUSEError(errno.ETIMEDOUT)
