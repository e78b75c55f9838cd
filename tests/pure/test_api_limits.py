"""How many long answers one client, and all of them, may have at once."""

from contextvars import copy_context

import pytest

from restorefs.control.limits import Limit
from restorefs.control.problems import ProblemError
from restorefs.session.asker import ASKER, Client


def as_client(name: str, do: object) -> None:
    """Do something in the context of a client's request."""
    assert callable(do)
    context = copy_context()
    context.run(ASKER.set, Client(name))
    context.run(do)


def test_nobody_takes_more_than_half() -> None:
    limit = Limit("things", 4)
    for name in ("one", "two"):
        for _ in range(2):
            as_client(name, limit.take)
        with pytest.raises(ProblemError, match=r"2 things of yours are under way") as refused:
            as_client(name, limit.take)
        assert refused.value.status == 429
    with pytest.raises(ProblemError, match="4 things are under way") as refused:
        as_client("three", limit.take)
    assert refused.value.headers == {"Retry-After": "5"}
    as_client("one", limit.give_back)
    as_client("three", limit.take)
    with pytest.raises(ProblemError):
        as_client("one", limit.take)
