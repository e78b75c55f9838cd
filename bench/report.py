"""The results of a run, as a table for people and as JSON.

Owns the aims that the figures are held against. Measures nothing.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.image import Shape
from bench.measures import MEASURES
from bench.ours import CHAIN, Memory
from bench.stacks import FUSE2FS, KERNEL, OURS, STACKS

COLD_START = "cold start to the first ls"


@dataclass
class Results:
    """figures: measure -> stack -> one value for each round."""

    shape: Shape
    rounds: int
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    attach_s: float = 0.0
    attach_chain_s: float = 0.0
    scan_s: float = 0.0
    above_s: float = 0.0
    memory: Memory | None = None


@dataclass(frozen=True)
class Aim:
    text: str
    value: str
    met: bool | None  # None: not measured here


def as_json(results: Results) -> str:
    document = asdict(results)
    document["machine"] = {
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    document["aims"] = [asdict(aim) for aim in aims(results)]
    return json.dumps(document, indent=2)


def as_text(results: Results) -> str:
    shape = results.shape
    lines = [
        f"image: {shape.tree_files + shape.small_files:,} files and one of {shape.big_mib:,} MiB;"
        f" the median of {results.rounds} rounds, every stack started afresh for each measure;",
        f"host cache warm, guest cache cold; kernel {platform.release()},"
        f" {os.cpu_count()} processors",
        "",
        _row("", [stack.name for stack in STACKS], [f"to {FUSE2FS.name}", f"to {KERNEL.name}"]),
    ]
    units = {measure.name: (measure.unit, measure.better) for measure in MEASURES}
    units[COLD_START] = ("s", -1)
    for name, (unit, better) in units.items():
        by_stack = results.figures[name]
        cells = [_figure(_median(by_stack, stack.name)) for stack in STACKS]
        ratios = [_ratio(by_stack, peer.name, better) for peer in (FUSE2FS, KERNEL)]
        lines.append(_row(f"{name} ({unit})", cells, ratios))
    lines += [f"{name} was left out: {why}" for name, why in results.left_out.items()]
    lines += ["", *_ours(results), ""]
    for aim in aims(results):
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[aim.met]
        lines.append(f"aim: {aim.text:58} {aim.value:>12}  {verdict}")
    return "\n".join(lines)


def aims(results: Results) -> list[Aim]:
    listing = results.figures[MEASURES[0].name]
    sequential = results.figures[MEASURES[1].name]
    found = [
        _at_least(f"listing at least 6 times {FUSE2FS.name}", listing, FUSE2FS.name, 6.0),
        _at_least(f"sequential at least {KERNEL.name}", sequential, KERNEL.name, 1.0),
        _below("attach (first ls inside a disk) under 0.1 s", results.attach_s, 0.1),
        _below(f"attach of a chain of {CHAIN} under 0.1 s", results.attach_chain_s, 0.1),
        _below("1,000 backups listed above the guests in under 1 s", results.above_s, 1.0),
    ]
    memory = results.memory
    text = "memory flat (within 5 %) from the first pass of lookups on"
    if memory is None or memory.first_pass is None or memory.last_pass is None:
        found.append(Aim(text, "", None))
    else:
        growth = memory.last_pass / memory.first_pass - 1
        found.append(Aim(text, f"{growth:+.1%}", growth <= 0.05))
    return found


def _ours(results: Results) -> list[str]:
    lines = [
        f"attach, first ls inside a disk of a running daemon: {results.attach_s * 1000:.0f} ms;"
        f" of a chain of {CHAIN} images: {results.attach_chain_s * 1000:.0f} ms",
        f"1,000 backups: scanned in {results.scan_s:.2f} s,"
        f" listed above the guests in {results.above_s:.2f} s, nothing attached",
    ]
    memory = results.memory
    if memory is not None:
        lines.append(
            f"the daemon's memory: {_mib(memory.ready)} at start,"
            f" {_mib(memory.listed)} after the listing, {_mib(memory.read)} after the big file"
        )
        if memory.first_pass is not None and memory.last_pass is not None:
            lines.append(
                f"    {_mib(memory.first_pass)} after the first pass of lookups,"
                f" {_mib(memory.last_pass)} after {memory.lookups:,} of them"
            )
    return lines


def _median(by_stack: Mapping[str, Sequence[float]], stack: str) -> float | None:
    values = sorted(by_stack.get(stack, ()))
    return values[len(values) // 2] if values else None


def _ratio(by_stack: Mapping[str, Sequence[float]], peer: str, better: int) -> str:
    value = _ratio_value(by_stack, peer, better)
    return "-" if value is None else f"{value:.2f} x"


def _ratio_value(by_stack: Mapping[str, Sequence[float]], peer: str, better: int) -> float | None:
    """How many times better than a peer restorefs is."""
    ours, theirs = _median(by_stack, OURS.name), _median(by_stack, peer)
    if ours is None or theirs is None:
        return None
    return ours / theirs if better > 0 else theirs / ours


def _at_least(text: str, by_stack: Mapping[str, Sequence[float]], peer: str, times: float) -> Aim:
    value = _ratio_value(by_stack, peer, +1)
    if value is None:
        return Aim(text, "", None)
    return Aim(text, f"{value:.2f} x", value >= times)


def _below(text: str, seconds: float, limit: float) -> Aim:
    return Aim(text, f"{seconds:.3f} s", seconds < limit)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mib(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"


def _row(name: str, cells: Sequence[str], ratios: Sequence[str]) -> str:
    return (
        f"{name:38}"
        + "".join(f"{cell:>17}" for cell in cells)
        + "".join(f"{ratio:>20}" for ratio in ratios)
    )
