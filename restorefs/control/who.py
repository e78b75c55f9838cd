"""Who asks the API, and what they may see.

Owns the limit of a token to some VMs. Must not know how somebody proved who they are.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from starlette.requests import Request
from starlette.types import Scope

from restorefs.control.problems import ProblemError

KEY = "restorefs.who"
"""Where a request's scope has it."""


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who may ask. `name` is a token's, or says what is known instead. `vms`: patterns as
    of a shell for the names of VMs that they may see; None: all."""

    name: str
    kind: Literal["token", "unix", "insecure"]
    vms: tuple[str, ...] | None = None

    def may_see(self, vm_name: str) -> bool:
        """Whether a VM's backups may be shown to them."""
        return self.vms is None or any(fnmatchcase(vm_name, pattern) for pattern in self.vms)

    @property
    def sees_all(self) -> bool:
        return self.vms is None


def who_asks(request: Request) -> Who:
    """Return who asks; the guard has put it there."""
    found = request.scope[KEY]
    assert isinstance(found, Who)
    return found


def address_of(scope: Scope) -> str:
    """Return where a request comes from, for people."""
    client = scope.get("client")
    return str(client[0]) if client else "the unix socket"


def require_all(request: Request) -> None:
    """Raise ProblemError unless who asks may see everything: the call is about the daemon."""
    if not who_asks(request).sees_all:
        raise ProblemError(403, "this token is limited to some VMs; the call is about all of them")
