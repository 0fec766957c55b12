"""Measure what `safety_harness.ddmin` costs with noise and scores, its first calls, and its own time.

    PYTHONPATH=. python -m benchmarks.ddmin.modes --out benchmarks/ddmin/modes.md

Oracles are those of `cells.py`, n = 32, 90, 224, 672, seeds 0-19; figures are medians.
- Noise: e cells. Calls are compared with the default on the same cell without flips, which also judges validity.
- Scores: c cells. The share is measured with a normal error of 0.03, about what 256 questions give. The margin is one,
  two and four times this error.
- Anytime: the share of the default's whole reduction that the first 25 calls bring, at n = 672.
- Own time: everything but the oracle.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.ddmin.cells import FLIPS, NOISY, SIZES, Cell, make_cell
from safety_harness.ddmin import Noise, Reducer, Reduction, Scores, minimize

SPREAD = 0.03  # standard deviation of a measured share


def noise(seeds: int) -> list[str]:
    """Return the table of oracles whose answers flip."""
    lines = [
        "| cell | calls without flips | calls | ratio | accepted in truth | 1-minimal in truth |",
        "|---" * 6 + "|",
    ]
    for n in SIZES:
        for name in NOISY:
            cells = [make_cell(name, n, seed) for seed in range(seeds)]
            full = {frozenset(range(n)): True}
            clean = median(minimize(range(n), cell.truth, assume=full).calls for cell in cells)
            results = [minimize(range(n), cell.ask, assume=full, noise=Noise(FLIPS)) for cell in cells]
            calls = median(result.calls for result in results)
            valid = sum(cell.truth(result.kept) for cell, result in zip(cells, results, strict=True))
            small = sum(cell.one_minimal(result.kept) for cell, result in zip(cells, results, strict=True))
            lines.append(f"| {name}@{n} | {clean:g} | {calls:g} | {calls / clean:.2f} | {valid} | {small} |")
    return lines


def scores(seeds: int) -> list[str]:
    """Return the table of oracles that return scores."""
    lines = [
        "| cell | margin | calls without error | calls | ratio | within the margin in truth | units kept, ratio |",
        "|---" * 7 + "|",
    ]
    for n in SIZES:
        for name in ("c_exp_0.5", "c_exp_0.8"):
            for margin in (SPREAD, 2 * SPREAD, 4 * SPREAD):
                lines.append(_scored([make_cell(name, n, seed) for seed in range(seeds)], margin))
    return lines


def _scored(cells: Sequence[Cell], margin: float) -> str:
    """Return the row of one cell and margin."""
    name, n = cells[0].name, cells[0].n
    test = Scores(float(name.rpartition("_")[2]), margin, SPREAD)
    plain = [minimize(range(n), cell.truth) for cell in cells]
    results = [minimize(range(n), _measured(cell), noise=test) for cell in cells]
    valid = sum(cell.share(result.kept) >= test.threshold - margin for cell, result in zip(cells, results, strict=True))
    calls, clean = median(result.calls for result in results), median(result.calls for result in plain)
    size = sum(len(result.kept) for result in results) / sum(len(result.kept) for result in plain)
    return f"| {name}@{n} | {margin:g} | {clean:g} | {calls:g} | {calls / clean:.2f} | {valid} | {size:.2f} |"


def _measured(cell: Cell) -> Callable[[tuple[int, ...]], float]:
    """Return the cell's oracle as a measurement with an error."""
    rng = random.Random(f"score/{cell.name}/{cell.n}/{cell.seed}")
    return lambda subset: cell.share(subset) + rng.gauss(0, SPREAD)


def anytime(seeds: int) -> list[str]:
    """Return the table of what the first calls bring."""
    lines = ["| cell | share of the reduction after 25 calls: median | least |", "|---" * 3 + "|"]
    for name in ("c_exp_0.5", "c_exp_0.8", "c_pow_0.5", "c_pow_0.8", "d_exp_0.5", "d_exp_0.8"):
        cells = [make_cell(name, 672, seed) for seed in range(seeds)]
        shares = [_share(minimize(range(672), cell.truth, assume={frozenset(range(672)): True})) for cell in cells]
        lines.append(f"| {name}@672 | {median(shares):.3f} | {min(shares):.3f} |")
    return lines


def _share(result: Reduction[int]) -> float:
    """Return the share of the final reduction that the first 25 calls brought."""
    units = len(result.kept) + len(result.removed)
    early = min(size for calls, size in result.history if calls <= 25)
    return (units - early) / max(units - len(result.kept), 1)


def own_time(seeds: int) -> list[str]:
    """Return the table of the time spent outside of the oracle."""
    lines = ["| run | calls | own time | share at 10 ms a call |", "|---" * 4 + "|"]
    for n in SIZES:
        for name in ("a_k16", "c_exp_0.8", "d_exp_0.8"):
            calls, seconds = zip(*(_timed(make_cell(name, n, seed).truth, n) for seed in range(seeds)), strict=True)
            lines.append(_row(f"{name}@{n}", median(calls), median(seconds)))
    needed = frozenset(random.Random(0).sample(range(10_000), 50))
    lines.append(_row("50 needed of 10,000", *_timed(needed.issubset, 10_000)))
    return lines


def _timed(oracle: object, n: int) -> tuple[int, float]:
    """Return the calls, and the seconds spent in everything but the oracle."""
    assert callable(oracle)
    begun, asking, calls = time.perf_counter(), 0.0, 0
    reducer = Reducer(range(n))
    while (ask := reducer.ask()) is not None:
        before = time.perf_counter()
        answer = bool(oracle(ask.units))
        asking += time.perf_counter() - before
        calls += 1
        reducer.tell(ask, answer)
    reducer.result()
    return calls, time.perf_counter() - begun - asking


def _row(name: str, calls: float, seconds: float) -> str:
    """Return a row of own time, with its share of a run whose calls take 10 ms each."""
    return f"| {name} | {calls:g} | {seconds:.3f} s | {seconds / (seconds + 0.01 * calls):.2%} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all four, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write the tables there, in Markdown")
    args = parser.parse_args(argv)
    parts = (("2 % flips", noise), ("Scores", scores), ("Anytime", anytime), ("Own time", own_time))
    texts = [f"## {title}\n\n" + "\n".join(make(args.seeds)) for title, make in parts]
    text = f"Python {sys.version.split()[0]}; seeds 0-{args.seeds - 1}.\n\n" + "\n\n".join(texts) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(f"# Modes\n\n`python -m benchmarks.ddmin.{Path(__file__).stem}`: {text}", encoding="utf-8")


if __name__ == "__main__":
    main()
