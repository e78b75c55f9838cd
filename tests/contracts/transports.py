"""Transports under a test's control: when a read is answered, in which order, and how.

A real server cannot be told to answer the third read first, or to fail just the fifth, so these
stand in for it where that is what is tested. They fill a slot only when they answer, and spoil it
when they are asked, as a server may write at any time between.

Concurrency: as Transport asks, answers come from the loop and never from within submit(); nor may
anything be asked from within an answer, where libnbd would wait for itself.
"""

import random
from dataclasses import dataclass

import trio

from restorefs.block.cache import Done, Slot
from restorefs.errors import RestoreError

SPOILED = b"\xee"


@dataclass(frozen=True, slots=True)
class Request:
    """A read that was asked for."""

    slot: Slot
    offset: int
    length: int
    done: Done


class ScriptedTransport:
    """Holds every request until it is answered or failed."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.waiting: list[Request] = []
        self.asked: list[tuple[int, int]] = []
        self.slots: set[Slot] = set()
        self._answering = False

    def submit(self, slot: Slot, offset: int, length: int, done: Done) -> None:
        assert not self._answering
        assert 0 < length <= len(slot.view)
        assert 0 <= offset <= offset + length <= self.size
        slot.view[:length] = SPOILED * length
        self.waiting.append(Request(slot, offset, length, done))
        self.asked.append((offset, length))
        self.slots.add(slot)

    def answer(self, number: int = 0) -> None:
        """Answer one of the requests that wait."""
        request = self.waiting.pop(number)
        end = request.offset + request.length
        request.slot.view[: request.length] = self.content[request.offset : end]
        self._tell(request, None)

    def fail(self, error: RestoreError, number: int = 0) -> None:
        """Fail one of the requests that wait."""
        self._tell(self.waiting.pop(number), error)

    def _tell(self, request: Request, error: RestoreError | None) -> None:
        self._answering = True
        request.done(error)
        self._answering = False

    def answer_all(self) -> None:
        while self.waiting:
            self.answer()


class PromptTransport(ScriptedTransport):
    """Answers by itself while serve() runs, in an order of its own."""

    def __init__(self, content: bytes, chance: random.Random) -> None:
        super().__init__(content)
        self._chance = chance
        self._asked = trio.Event()

    def submit(self, slot: Slot, offset: int, length: int, done: Done) -> None:
        super().submit(slot, offset, length, done)
        self._asked.set()

    async def serve(self) -> None:
        while True:
            await self._asked.wait()
            for _ in range(self._chance.randrange(3)):  # others may ask meanwhile
                await trio.lowlevel.checkpoint()
            self.answer(self._chance.randrange(len(self.waiting)))
            if not self.waiting:
                self._asked = trio.Event()
