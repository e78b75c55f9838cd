"""How many long answers may be under way at once.

Owns the counts. Must not know what the answers are.
"""

from restorefs.control.problems import ProblemError

_RETRY_SECONDS = "5"


class Limit:
    """So many of a kind; `what` names it for people."""

    def __init__(self, what: str, most: int) -> None:
        self.under_way = 0
        self._what = what
        self._most = most

    def take(self) -> None:
        """Count one; give it back when it has ended. Raises ProblemError when there are enough."""
        if self.under_way >= self._most:
            raise ProblemError(
                429,
                f"{self._most} {self._what} are under way, and no more are allowed at once",
                {"Retry-After": _RETRY_SECONDS},
            )
        self.under_way += 1

    def give_back(self) -> None:
        self.under_way -= 1


class Limits:
    """All of them."""

    def __init__(self) -> None:
        self.downloads = Limit("downloads", 32)
        self.archives = Limit("archives", 4)
        self.searches = Limit("searches", 4)
