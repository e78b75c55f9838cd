"""`make bench`: every measure, on every way to read the image, interleaved in one run."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import api, ours, report
from bench.image import MIB, Image
from bench.measures import Measure, first_listing
from bench.processes import BenchError
from bench.scenes import LINUX, SCENES, WINDOWS, Scene
from bench.stacks import OURS, Stack

CACHE = Path("build/bench")


def main() -> int:
    options = _options()
    if options.lookups is None:
        options.lookups = 20_000 if options.quick else 1_000_000
    results = report.Results(options.rounds)
    try:
        for scene in SCENES:
            if options.only not in (None, scene.name):
                continue
            if scene.needs_root and os.geteuid() != 0:
                results.left_out[scene.name] = "its image can only be made by root"
                continue
            image = scene.generated(CACHE, scene.quick if options.quick else scene.full, say)
            _warm_host_cache(image.path)
            _side_by_side(scene, image, results)
            if scene is LINUX:
                _linux_alone(image, results, options.lookups)
            if scene is WINDOWS:
                _windows_alone(image, results)
    except BenchError as error:
        say(str(error))
        return 1
    print(report.as_json(results) if options.json else report.as_text(results))
    return 0


def say(text: str) -> None:
    """Show progress; the results alone go to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images: seconds, no verdict")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--only", choices=[scene.name for scene in SCENES], help="one image only")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--lookups", type=int, help="names to look up while memory is watched")
    return parser.parse_args()


def _side_by_side(scene: Scene, image: Image, results: report.Results) -> None:
    """One round after the other, and in each round every stack for every measure, each time
    another one first: whoever comes first also pays for the machine's getting under way."""
    figures = results.begin(scene, image.shape)
    stacks = []
    for stack in scene.stacks:
        if (why := stack.lacks()) is not None:
            if stack is OURS:
                raise BenchError(f"restorefs: {why}")
            results.left_out[stack.name] = why
        else:
            stacks.append(stack)
    for number in range(1, results.rounds + 1):
        for measure in scene.measures:
            for stack in stacks[number % len(stacks) :] + stacks[: number % len(stacks)]:
                cold, value = _take(stack, measure, image)
                say(
                    f"round {number} of {results.rounds}: {measure.name}: {stack.name}:"
                    f" {value:,.0f} {measure.unit}"
                )
                figures.note(measure.name, stack, value)
                figures.note(report.COLD_START, stack, cold)


def _take(stack: Stack, measure: Measure, image: Image) -> tuple[float, float]:
    """Start a stack; return the seconds to its first `ls`, and what the measure gave."""
    with _folder() as folder:
        begin = time.perf_counter()
        with stack.start(image, folder) as root:
            first_listing(root)
            cold = time.perf_counter() - begin
            return cold, measure.take(root, image)


def _linux_alone(image: Image, results: report.Results, lookups: int) -> None:
    """What is measured on restorefs without a peer."""
    say("restorefs alone: attach")
    with _folder() as folder:
        results.attach_s = ours.attach_seconds(image, folder)
    with _folder() as folder:
        results.attach_chain_s = ours.attach_chain_seconds(image, folder)
    say("restorefs alone: 1,000 backups")
    with _folder() as folder:
        results.scan_s, results.above_s = ours.thousand_backups(image, folder)
    say("restorefs alone: 10,000 backups of 5 disks")
    with _folder() as folder:
        results.many = ours.many_backups(folder, 10_000, 5)
    say("restorefs alone: the API")
    with _folder() as folder:
        results.api = api.api(image, folder)
    say("restorefs alone: memory")
    with _folder() as folder:
        results.memory = ours.memory(image, folder, lookups, say)


def _windows_alone(image: Image, results: report.Results) -> None:
    say(f"restorefs alone: a folder of {image.shape.crowd:,} files, and a second reader")
    with _folder() as folder:
        results.crowd = ours.crowd(image, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, beside the image so that hard links to it can be made."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=CACHE) as folder:
        yield Path(folder).resolve()


def _warm_host_cache(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


if __name__ == "__main__":
    sys.exit(main())
