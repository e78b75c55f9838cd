"""One task produces, any number wait."""

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from restorefs.errors import RestoreError, UnsupportedError
from restorefs.session.once import Once


async def test_all_waiters_get_the_one_result(nursery: trio.Nursery) -> None:
    once: Once[object] = Once()
    made: list[object] = []
    go = trio.Event()

    async def make() -> object:
        await go.wait()
        made.append(object())
        return made[-1]

    found: list[object] = []

    async def wait() -> None:
        found.append(await once.wait())

    for _ in range(10):
        nursery.start_soon(wait)
    nursery.start_soon(once.run, make)
    await wait_all_tasks_blocked()
    assert found == []
    go.set()
    await wait_all_tasks_blocked()
    assert made * 10 == found
    assert await once.wait() is made[0], "and who comes later gets it at once"


async def test_a_value_may_be_none(nursery: trio.Nursery) -> None:
    once: Once[None] = Once()

    async def make() -> None:
        await trio.lowlevel.checkpoint()

    nursery.start_soon(once.run, make)
    await once.wait()
    assert once.error is None


async def test_all_waiters_get_an_error_of_their_own(nursery: trio.Nursery) -> None:
    once: Once[int] = Once()

    async def make() -> int:
        await trio.lowlevel.checkpoint()
        raise UnsupportedError("feature X")

    errors: list[RestoreError] = []

    async def wait() -> None:
        with pytest.raises(UnsupportedError, match="feature X") as caught:
            await once.wait()
        errors.append(caught.value)

    for _ in range(3):
        nursery.start_soon(wait)
    nursery.start_soon(once.run, make)
    await wait_all_tasks_blocked()
    await wait()
    assert isinstance(once.error, UnsupportedError)
    assert len({id(error) for error in [*errors, once.error]}) == 5


async def test_there_is_no_error_while_it_is_in_the_making(nursery: trio.Nursery) -> None:
    once: Once[int] = Once()
    assert once.error is None
    nursery.start_soon(once.run, trio.sleep_forever)
    await wait_all_tasks_blocked()
    assert once.error is None
    nursery.cancel_scope.cancel()


async def test_a_cancelled_waiter_does_not_disturb_the_others(nursery: trio.Nursery) -> None:
    once: Once[int] = Once()
    go = trio.Event()
    impatient = trio.CancelScope()
    found: list[int] = []

    async def make() -> int:
        await go.wait()
        return 7

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            found.append(await once.wait())

    nursery.start_soon(once.run, make)
    nursery.start_soon(wait, impatient)
    nursery.start_soon(wait, trio.CancelScope())
    await wait_all_tasks_blocked()
    impatient.cancel()
    await wait_all_tasks_blocked()
    go.set()
    await wait_all_tasks_blocked()
    assert found == [7]


async def test_a_cancelled_producer_leaves_nobody_waiting(nursery: trio.Nursery) -> None:
    once: Once[int] = Once()
    failed = trio.Event()

    async def wait() -> None:
        with pytest.raises(RestoreError, match="cancelled"):
            await once.wait()
        failed.set()

    nursery.start_soon(wait)
    with trio.CancelScope() as scope:
        scope.cancel()
        await once.run(trio.sleep_forever)
    await failed.wait()


async def test_a_bug_is_logged_once_and_is_an_error_for_the_waiters(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    once: Once[int] = Once()

    async def make() -> int:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("oops")

    async def wait() -> None:
        with pytest.raises(RestoreError, match=r"internal error.*oops"):
            await once.wait()

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    with caplog.at_level(logging.ERROR):
        await once.run(make)
        await wait_all_tasks_blocked()
    assert [record.exc_info is not None for record in caplog.records] == [True]
