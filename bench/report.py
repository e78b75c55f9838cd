"""The results of a run, as a table for people and as JSON.

Owns the aims that the figures are held against. Measures nothing.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.api import ApiFigures
from bench.image import Shape
from bench.ours import CHAIN, Crowd, ManyBackups, Memory
from bench.scenes import LINUX, SCENES, WINDOWS, Scene, Target
from bench.stacks import OURS, Stack

COLD_START = "cold start to the first ls"


@dataclass
class Figures:
    """by_measure: measure -> stack -> one value for each round."""

    shape: Shape
    by_measure: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def note(self, measure: str, stack: Stack, value: float) -> None:
        self.by_measure.setdefault(measure, {}).setdefault(stack.name, []).append(value)


@dataclass
class Results:
    """scenes: the figures of each scene that was measured."""

    rounds: int
    scenes: dict[str, Figures] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    attach_s: float = 0.0
    attach_chain_s: float = 0.0
    scan_s: float = 0.0
    above_s: float = 0.0
    many: ManyBackups | None = None
    memory: Memory | None = None
    api: ApiFigures | None = None
    crowd: Crowd | None = None

    def begin(self, scene: Scene, shape: Shape) -> Figures:
        return self.scenes.setdefault(scene.name, Figures(shape))


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
    lines = [
        f"the median of {results.rounds} rounds, every stack started afresh for each measure;",
        f"host cache warm, guest cache cold; kernel {platform.release()},"
        f" {os.cpu_count()} processors",
        "",
    ]
    for scene in SCENES:
        if scene.name in results.scenes:
            lines += [*_table(scene, results.scenes[scene.name]), *_alone(scene, results), ""]
    lines += [f"{name} was left out: {why}" for name, why in results.left_out.items()]
    for aim in aims(results):
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[aim.met]
        lines.append(f"aim: {aim.text:62} {aim.value:>12}  {verdict}")
    return "\n".join(lines)


def _table(scene: Scene, figures: Figures) -> list[str]:
    shape = figures.shape
    lines = [
        f"{scene.name}: {shape.tree_files + shape.small_files:,} files"
        f" and one of {shape.big_mib:,} MiB"
        + (f", one of {shape.compressed_mib:,} MiB compressed" if shape.compressed_mib else "")
        + (f", {shape.crowd:,} in one folder" if shape.crowd else ""),
        _row("", [stack.name for stack in scene.stacks], [f"to {p.name}" for p in scene.peers]),
    ]
    units = [(measure.name, measure.unit, measure.better) for measure in scene.measures]
    for name, unit, better in (*units, (COLD_START, "s", -1)):
        by_stack = figures.by_measure[name]
        cells = [_figure(_median(by_stack, stack.name)) for stack in scene.stacks]
        ratios = [_ratio(by_stack, peer.name, better) for peer in scene.peers]
        lines.append(_row(f"{name} ({unit})", cells, ratios))
    return lines


def aims(results: Results) -> list[Aim]:
    found = []
    for scene in SCENES:
        if scene.name in results.scenes:
            by_measure = results.scenes[scene.name].by_measure
            found += [_target(scene, target, by_measure) for target in scene.targets]
    if LINUX.name in results.scenes:
        found += [
            _below("attach (first ls inside a disk) under 0.1 s", results.attach_s, 0.1),
            _below(f"attach of a chain of {CHAIN} under 0.1 s", results.attach_chain_s, 0.1),
            _below("1,000 backups listed above the guests in under 1 s", results.above_s, 1.0),
            *_many_aims(results.many),
            *_api_aims(results.api),
            _memory_aim(results.memory),
        ]
    if results.crowd is not None:
        text = f"first ls of {results.crowd.files:,} files under 2 s"
        found.append(_below(text, results.crowd.listed_s, 2.0))
    return found


def _many_aims(many: ManyBackups | None) -> list[Aim]:
    if many is None:
        return []
    of = f"{many.backups:,} backups with {many.disks} disks each"
    return [
        _below(f"{of}: start under 1 s", many.start_s, 1.0),
        _below(f"{of}: reload under 1 s", many.reload_s, 1.0),
        _below(f"{of}: ls backups under 1 s", many.listed_s, 1.0),
    ]


def _api_aims(api: ApiFigures | None) -> list[Aim]:
    if api is None:
        return []
    return [
        _at_least("download over TCP at least 0.8 of the mount", api.download / api.mounted, 0.8),
        _at_least("a folder as tar.zst at least 0.5 of tar", api.archive / api.tar, 0.5),
        _below("listing under 0.1 s (99 %) meanwhile", api.listing_p99_s, 0.1),
    ]


def _memory_aim(memory: Memory | None) -> Aim:
    text = "memory flat (within 5 %) from the first pass of lookups on"
    if memory is None or memory.first_pass is None or memory.last_pass is None:
        return Aim(text, "", None)
    growth = memory.last_pass / memory.first_pass - 1
    return Aim(text, f"{growth:+.1%}", growth <= 0.05)


def _alone(scene: Scene, results: Results) -> list[str]:
    if scene is LINUX:
        return _linux_alone(results)
    crowd = results.crowd
    if scene is not WINDOWS or crowd is None:
        return []
    return [
        f"restorefs alone: first ls of {crowd.files:,} files: {crowd.listed_s:.2f} s; the longest"
        f" wait of a second reader's 4 KiB meanwhile: {crowd.gap_s * 1000:.0f} ms"
        f" ({crowd.quiet_gap_s * 1000:.0f} ms with nobody else)"
    ]


def _linux_alone(results: Results) -> list[str]:
    lines = [
        "restorefs alone: first ls inside a disk of a running daemon:"
        f" {results.attach_s * 1000:.0f} ms; of a chain of {CHAIN} images:"
        f" {results.attach_chain_s * 1000:.0f} ms",
        f"    1,000 backups: scanned in {results.scan_s:.2f} s,"
        f" listed above the guests in {results.above_s:.2f} s, nothing attached",
    ]
    many = results.many
    if many is not None:
        lines.append(
            f"    {many.backups:,} backups with {many.disks} disks each: started in"
            f" {many.start_s:.2f} s, reloaded in {many.reload_s:.2f} s when one had gone and in"
            f" {many.unchanged_s:.3f} s when none had, listed in {many.listed_s:.2f} s"
        )
    api = results.api
    if api is not None:
        lines.append(
            f"    the API over TCP: the big file {api.download:,.0f} MiB/s ({api.mounted:,.0f} by"
            f" the mount), small files as tar.zst {api.archive:,.0f} files/s ({api.tar:,.0f} by"
            f" tar over the mount), a listing meanwhile {api.listing_p99_s * 1000:.0f} ms (99 %)"
        )
    memory = results.memory
    if memory is not None:
        lines.append(
            f"    the daemon's memory: {_mib(memory.ready)} at start,"
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


def _target(
    scene: Scene, target: Target, by_measure: Mapping[str, Mapping[str, Sequence[float]]]
) -> Aim:
    name, peer = target.measure.name, target.peer.name
    text = f"{scene.name}: {name.split(',')[0]} at least {target.times:g} times {peer}"
    value = _ratio_value(by_measure[name], peer, target.measure.better)
    return Aim(
        text,
        "" if value is None else f"{value:.2f} x",
        None if value is None else value >= target.times,
    )


def _at_least(text: str, times: float, least: float) -> Aim:
    return Aim(text, f"{times:.2f} x", times >= least)


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
