"""What all devices made of others have in common.

Owns how ranges become as few requests as possible to the devices underneath. Must not know any
format. Concurrency: as BlockDevice asks; nothing is kept.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from restorefs.block.base import BlockDevice, ByteLength, ByteOffset, Piece, Place


class Part(NamedTuple):
    """A run of bytes of the device below; `device` is None where they are zeros."""

    device: BlockDevice | None
    offset: ByteOffset
    length: ByteLength


class Composed(BlockDevice):
    """A device each of whose bytes is a byte of another one, or zero."""

    @abstractmethod
    def parts(self, offset: ByteOffset, length: ByteLength) -> Iterator[Part]:
        """Yield where a range lies, in order and covering it exactly. The range is inside."""

    async def _read(self, offset: ByteOffset, length: ByteLength) -> bytes:
        first, gathered = _gather(self.parts(offset, length))
        if first is not None:
            return await _read_part(first)
        for device, runs in gathered.values():
            for run in runs:
                device.expect(run.offset, run.length)
        reply = bytearray(length)
        for device, runs in gathered.values():
            for run in runs:
                _scatter(reply, run, memoryview(await device.read(run.offset, run.length)))
        return bytes(reply)

    async def read_through(self, places: Sequence[Place]) -> bytes:
        for offset, length in places:
            self.check_range(offset, length)
        wanted = (part for place in places for part in self.parts(*place))
        first, gathered = _gather(wanted)
        if first is not None and first.device is not None:
            return await first.device.read_through([(first.offset, first.length)])
        if first is not None:
            return bytes(first.length)
        reply = bytearray(sum(length for _, length in places))
        for device, runs in gathered.values():
            data = memoryview(await device.read_through([(r.offset, r.length) for r in runs]))
            for run in runs:
                _scatter(reply, run, data[: run.length])
                data = data[run.length :]
        return bytes(reply)

    def _expect(self, offset: ByteOffset, length: ByteLength) -> None:
        for part in self.parts(offset, length):
            if part.device is not None:
                part.device.expect(part.offset, part.length)

    async def map(self, offset: ByteOffset, length: ByteLength) -> list[Piece]:
        self.check_range(offset, length)
        pieces: list[Piece] = []
        for part in self.parts(offset, length):
            if part.device is None:
                pieces.append(Piece(None, 0, part.length))
            else:
                pieces += await part.device.map(part.offset, part.length)
        return pieces


class _Run:
    """A range to read from one device, and where its stretches go: (target, length), in order."""

    __slots__ = ("length", "offset", "targets")

    def __init__(self, offset: ByteOffset, length: ByteLength, target: int) -> None:
        self.offset = offset
        self.length = length
        self.targets = [(target, length)]


_Gathered = dict[int, tuple[BlockDevice, list[_Run]]]


def _gather(parts: Iterator[Part]) -> tuple[Part | None, _Gathered]:
    """Return the only part, or None and the runs of each device: what follows itself on a device,
    as every other chunk of a stripe does, is one run."""
    gathered: _Gathered = {}
    target = count = 0
    only = None
    for part in parts:
        count += 1
        only = part
        if part.device is not None and part.length:
            _, runs = gathered.setdefault(id(part.device), (part.device, []))
            if runs and runs[-1].offset + runs[-1].length == part.offset:
                runs[-1].length += part.length
                runs[-1].targets.append((target, part.length))
            else:
                runs.append(_Run(part.offset, part.length, target))
        target += part.length
    return (only if count == 1 else None), gathered


def _scatter(reply: bytearray, run: _Run, data: memoryview) -> None:
    at = 0
    for target, length in run.targets:
        reply[target : target + length] = data[at : at + length]
        at += length


async def _read_part(part: Part) -> bytes:
    if part.device is None:
        return bytes(part.length)
    return await part.device.read(part.offset, part.length)
