"""Measure the processes of a search ahead where a probe keeps no core busy, as on a GPU: each sleeps, then answers.

    PYTHONPATH=. python -m benchmarks.speed.ahead_asleep

Real processes, pipes and threads, and the cell of benchmarks/ddmin/ahead.md that is like the recorded searches. Next to
the gain stands that of the simulated clock, which nothing delays.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median
from types import SimpleNamespace
from typing import Any

from tabulate import tabulate

from benchmarks.ddmin.ahead import ACCEPTED, PROCESSES, REJECTED, simulated
from benchmarks.ddmin.cells import Cell, make_cell
from safety_harness.ddmin import minimize
from safety_harness.search import ahead

CELL, UNITS = "c_exp_0.93", 30
Seed = tuple[int, float]
"""A cell's seed, and how many times as long as on an H200 a probe takes."""


def answer(seed: Seed, units: Sequence[int]) -> SimpleNamespace:
    """Return a probe's answer about *units*, after the time that it takes."""
    number, times = seed
    accepted = make_cell(CELL, UNITS, number).truth(tuple(units))
    time.sleep(times * (ACCEPTED if accepted else REJECTED))
    return SimpleNamespace(accepted=accepted)


def serve(connection: Connection, seed: Seed, _gpu: object, _threads: object) -> None:
    """Answer in place of a process that holds a model."""
    connection.send({})
    with contextlib.suppress(EOFError):
        while True:
            units, _, _ = connection.recv()
            connection.send((answer(seed, units), 1))


def measured(cell: Cell, processes: int, times: float) -> tuple[float, tuple[int, ...]]:
    """Return the seconds of a search of so many *processes*, all of them ready, and what it keeps."""
    seed = cell.seed, times
    evaluator: Any = SimpleNamespace(student=seed, identity=dict, batch_size=1)
    oracle: Any = SimpleNamespace(probe=lambda units, _: answer(seed, units), losses={})
    with ahead.Probers(evaluator, oracle, processes) as probers:
        for thread in probers._waiting:
            thread.join()
        began = time.perf_counter()
        budgets: Any = None

        def accepts(units: tuple[int, ...]) -> bool:
            accepted: bool = probers.probe(units, budgets).accepted  # type: ignore[arg-type]
            return accepted

        full = {frozenset(range(cell.n)): True}
        kept = minimize(
            range(cell.n), accepts, workers=probers.at_once, certificate="explicit", weights=cell.prior, assume=full
        ).kept
        return time.perf_counter() - began, kept


def main() -> None:
    """Print a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--times", type=float, default=0.5, help="how many times as long as on an H200")
    options = parser.parse_args()
    ahead._serve, ahead.visible_gpus = serve, list  # type: ignore[assignment]
    cells = [make_cell(CELL, UNITS, seed) for seed in range(options.seeds)]
    alone = [measured(cell, 1, options.times) for cell in cells]
    rows = []
    for processes in PROCESSES:
        runs = alone if processes == 1 else [measured(cell, processes, options.times) for cell in cells]
        ideal = [_simulated(cell, 1) / _simulated(cell, processes) for cell in cells]
        gains = [one / run for (one, _), (run, _) in zip(alone, runs, strict=True)]
        same = "yes" if [kept for _, kept in runs] == [kept for _, kept in alone] else "NO"
        seconds = median(taken for taken, _ in runs)
        rows.append((processes, f"{seconds:.1f}", f"{median(gains):.1f}", f"{median(ideal):.1f}", same))
    headers = ("processes", "seconds", "times as fast", "on the simulated clock", "the same set")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def _simulated(cell: Cell, processes: int) -> float:
    """Return the seconds of the simulated clock."""
    return simulated(cell, processes, lambda accepted: ACCEPTED if accepted else REJECTED).seconds


if __name__ == "__main__":
    main()
