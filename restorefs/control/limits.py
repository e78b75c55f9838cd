"""How many long answers may be under way at once, for all and for each who asks.

Owns the counts, by the context variable that says who asks (session/asker.py). Must not know what
the answers are.
"""

from collections import Counter

from restorefs.control.problems import ProblemError
from restorefs.session.asker import ASKER, Asker, Client

_RETRY_SECONDS = "5"


class Limit:
    """So many of a kind; `what` names it for people. Half of them for one who asks: nobody keeps
    all others from theirs."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self._under_way: Counter[Asker | Client | None] = Counter()

    def take(self) -> None:
        """Count one; give it back when it has ended. Raises ProblemError when there are enough."""
        asker, own = ASKER.get(), self._most // 2
        if self._under_way[asker] >= own:
            raise _too_many(f"{own} {self._what} of yours are under way, half of all there may be")
        if self._under_way.total() >= self._most:
            raise _too_many(f"{self._most} {self._what} are under way, and no more are allowed")
        self._under_way[asker] += 1

    def give_back(self) -> None:
        """Give one back, as the one who took it."""
        asker = ASKER.get()
        self._under_way[asker] -= 1
        if not self._under_way[asker]:
            del self._under_way[asker]


def _too_many(why: str) -> ProblemError:
    return ProblemError(429, why, {"Retry-After": _RETRY_SECONDS})


class Limits:
    """All of them."""

    def __init__(self) -> None:
        self.downloads = Limit("downloads", 64)
        self.archives = Limit("archives", 8)
        self.searches = Limit("searches", 8)
        self.versions = Limit("lists of versions", 4)
        self.listings = Limit("listings of very large folders", 8)
