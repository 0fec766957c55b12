"""Measure a search whose probes several processes answer, in turn with the search on its own.

    PYTHONPATH=. python -m benchmarks.speed.ahead --student tiny-llama/arithmetic --processes 2 --rounds 2

A tiny student answers a probe in a tenth of a second. Few questions at once make it slower, as a large student is. The
clock runs from the moment when every process has its copy. Processor time is that of all processes, loading included.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

from safety_harness import ddmin
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.gate.records import Budgets, Patch
from safety_harness.registry.load import Student, load_registry
from safety_harness.search.ahead import Prober, Probers
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit


class Measured(NamedTuple):
    """One search: its patch, probes made by all processes, seconds of delta debugging, and processor seconds."""

    patch: Patch
    made: int
    seconds: float
    processor: float


class Clock:
    """Counts the probes of all processes, and knows when delta debugging began with every copy loaded."""

    def __init__(self) -> None:
        self.made = 0
        self.began = 0.0

    def watch(self) -> None:
        """Count from now on: in this process, and what others are asked."""
        own, others, ready, minimize = Oracle.probe, Prober.probe, Probers.at_once, ddmin.minimize

        def probe(oracle: Oracle, units: Sequence[Unit], budgets: Budgets) -> Probe:
            self.made += 1
            return own(oracle, units, budgets)

        def ask(prober: Prober, *arguments: object) -> Probe:
            self.made += 1
            return others(prober, *arguments)  # type: ignore[arg-type]

        def when_all_are_there(probers: Probers) -> int:
            if any(thread.is_alive() for thread in probers._waiting):
                for thread in probers._waiting:
                    thread.join()
                self.began = time.perf_counter()
            return ready(probers)

        def begin(*arguments: Any, **options: Any) -> Any:
            self.began = time.perf_counter()
            return minimize(*arguments, **options)

        ddmin.minimize = begin
        Oracle.probe, Prober.probe, Probers.at_once = probe, ask, when_all_are_there  # type: ignore[method-assign]


def measured(evaluator: Evaluator, processes: int, clock: Clock) -> Measured:
    """Return what a search of so many *processes* takes. Nothing is remembered of the one before."""
    evaluator.forget()
    clock.made, clock.began = 0, 0.0
    before = _processor()
    patch = search(evaluator, "benchmark", ahead=processes)
    return Measured(patch, clock.made, time.perf_counter() - clock.began, _processor() - before)


def _processor() -> float:
    """Return the processor seconds of this process and of those that it has waited for."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main() -> None:
    """Print a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="tiny-llama/arithmetic")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (student,) = load_registry().select(students=[options.student])
    evaluator = open_evaluator(_slower(student, options.batch_size))
    clock = Clock()
    clock.watch()
    runs: dict[int, list[Measured]] = {}
    for _ in range(options.rounds):
        for processes in (1, *options.processes):
            runs.setdefault(processes, []).append(measured(evaluator, processes, clock))
    first = runs[1][0].patch
    rows = [
        (
            processes,
            same[0].patch.probes,
            f"{mean(one.made for one in same):g}",
            f"{mean(one.seconds for one in same):.1f}",
            f"{mean(one.processor for one in same):.1f}",
            "yes" if all(_facts(one.patch) == _facts(first) for one in same) else "NO",
        )
        for processes, same in runs.items()
    ]
    headers = ("processes", "probes of the search", "probes made", "seconds", "processor seconds", "the same patch")
    print(tabulate(rows, headers, tablefmt="github"), flush=True)


def _slower(student: Student, batch_size: int) -> Student:
    """Return *student* with fewer questions at once."""
    return replace(student, family=student.family.model_copy(update={"batch_size": batch_size}))


def _facts(patch: Patch) -> object:
    """Return all of a patch but its time, and how many questions a rejected probe took."""
    course = [(step.parameters, step.over_refused, step.accepted) for step in patch.course]
    return patch.model_dump(exclude={"seconds", "course"}), course


if __name__ == "__main__":
    main()
