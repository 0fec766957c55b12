"""Simulate the clock of a search whose likely later probes are answered ahead, by 1, 2, 4 and 8 processes.

    PYTHONPATH=. python -m benchmarks.ddmin.ahead --out benchmarks/ddmin/ahead.md

Every probe takes the same time, or the seconds of a 7B student on an H200 by what becomes of it. The driver is that of
`minimize(workers=K)`. A run counts only if it keeps what one process keeps, after as many calls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.ddmin.cells import Cell, make_cell
from safety_harness.ddmin import Ask, Reducer
from safety_harness.ddmin.types import Answer

PROCESSES = (1, 2, 4, 8)
# A threshold at 93 % of 30 layers keeps about as many of them as the recorded searches do (reports/smollm2.json).
CELLS = {"c_exp_0.8": (32, 90), "a_k16": (32,), "d_exp_0.8": (32,), "c_exp_0.93": (30,)}
# Seconds of a probe that refuses too little, and of an accepted one (safety_harness/evaluation/estimate.py).
REJECTED, ACCEPTED = 0.4, 1.7


class Run(NamedTuple):
    """What one simulated search took, and what it came to."""

    seconds: float
    probes: int
    kept: tuple[int, ...]
    calls: int


def simulated(cell: Cell, processes: int, cost: Callable[[bool], float]) -> Run:
    """Return a search of so many *processes*. A probe takes what its answer costs."""
    full = {frozenset(range(cell.n)): True}
    reducer = Reducer(range(cell.n), certificate="explicit", weights=cell.prior, assume=full)
    running: dict[int, tuple[float, Ask[int], bool]] = {}
    clock, probes = 0.0, 0
    while asks := reducer.ask_many(processes):
        for ask in asks:
            if ask.question not in running and len(running) < processes:
                answer = cell.truth(ask.units)
                running[ask.question] = clock + cost(answer), ask, answer
                probes += 1
        clock = max(clock, min(end for end, _, _ in running.values()))
        for question, (end, ask, answer) in list(running.items()):
            if end <= clock:
                del running[question]
                reducer.tell(ask, Answer.TRUE if answer else Answer.FALSE)
    result = reducer.result()
    return Run(clock, probes, result.kept, result.calls)


def rows(seeds: int) -> list[str]:
    """Return the table: how many times as fast, and in brackets how many times the probes."""
    lines = [
        f"| cell | probes' time | probes | {' | '.join(f'{count} processes' for count in PROCESSES[1:])} |",
        "|---" * (3 + len(PROCESSES[1:])) + "|",
    ]
    for name, sizes in CELLS.items():
        for n in sizes:
            cells = [make_cell(name, n, seed) for seed in range(seeds)]
            for about, cost in {
                "equal": lambda _: 1.0,
                "by answer": lambda answer: ACCEPTED if answer else REJECTED,
            }.items():
                lines.append(f"| {name}@{n} | {about} | {_row(cells, cost)} |")
    return lines


def _row(cells: list[Cell], cost: Callable[[bool], float]) -> str:
    """Return the columns of one kind of cells."""
    alone = [simulated(cell, 1, cost) for cell in cells]
    columns = [f"{median(run.probes for run in alone):g}"]
    for processes in PROCESSES[1:]:
        runs = [simulated(cell, processes, cost) for cell in cells]
        if [run[2:] for run in runs] != [run[2:] for run in alone]:
            raise SystemExit(f"{cells[0].name}: {processes} processes keep something else")
        faster = median(one.seconds / run.seconds for one, run in zip(alone, runs, strict=True))
        more = median(run.probes / one.probes for one, run in zip(alone, runs, strict=True))
        columns.append(f"{faster:.1f} ({more:.2f})")
    return " | ".join(columns)


def main() -> None:
    """Write the table to a file, or print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds = f"seeds 0-{options.seeds - 1}"
    head = f"`python -m benchmarks.ddmin.ahead`: {seeds}; times as fast as one process (times its probes), medians."
    text = "\n".join(["# Probes ahead, on a simulated clock", "", head, "", *rows(options.seeds), ""])
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
