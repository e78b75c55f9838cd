"""Counts of what happens, as plain numbers.

Owns them for whoever is counted and whoever asks: adding one costs next to nothing, and what is
made of them for a scrape is made then. Knows nothing of either.
"""

from collections.abc import Sequence

MAX_OPCODE = 63
"""A mask, too: numbers beyond it count as others, so that counting needs no check."""
_ERRNOS = 256


class Seconds:
    """How long something took: how often at most each of some bounds, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        for index, bound in enumerate(self.bounds):
            if seconds <= bound:
                self.counts[index] += 1
                return
        self.counts[-1] += 1


class FuseCounters:
    """The kernel's requests: how many, and for how many ns, by opcode; errors by errno; bytes."""

    __slots__ = ("errors", "nanoseconds", "read_bytes", "requests")

    def __init__(self) -> None:
        self.requests = [0] * (MAX_OPCODE + 1)
        self.nanoseconds = [0] * (MAX_OPCODE + 1)
        self.errors = [0] * _ERRNOS
        self.read_bytes = 0


FUSE = FuseCounters()
"""Those of this process, which serves one mount."""
