"""Simulate how often the interval of the labelled DSR holds the truth.

    python -m benchmarks.quality.label_coverage

simulates runs of 128 questions, of whose answers people label some. It prints the tables and writes them to
``label_coverage.md``. It takes about five minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate

from safety_harness.gate.asked import Asked
from safety_harness.gate.labelled import Cell, estimate
from safety_harness.gate.labels import order
from safety_harness.gate.statistics import CONFIDENCE, Rate

N = 128
RUNS = 10_000
LABELS = (25, 50)
RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
JUDGES = ((0.8, 0.8), (0.9, 0.9), (0.95, 0.6), (0.99, 0.7), (0.97, 0.97), (0.99, 0.99), (1.0, 1.0))
"""Sensitivity and specificity of each judge."""
REFUSED_BEFORE = (0.05, 0.5, 0.85)
PAGE = Path(__file__).with_suffix(".md")
COLUMNS = ("labels", "DSR", "sensitivity", "specificity", "holds it", "DSR below", "DSR above", "width", "normal",
           "as judged")  # fmt: skip


@dataclass(frozen=True)
class World:
    """How a student answers and is judged: the DSR, the judge's error, and the share that it calls refused before."""

    dsr: float
    sensitivity: float
    specificity: float
    before: float = 0.0

    def draw(self, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for each question what is true of the answer, and the judge's verdicts before and after patching."""
        truth = chance.random(N) < self.dsr
        right = chance.random(N) < np.where(truth, self.sensitivity, self.specificity)
        return truth, chance.random(N) < self.before, truth == right


@dataclass
class Tally:
    """How often each interval holds the truth, and on which side it lies where it does not."""

    holds: int = 0
    below: int = 0
    above: int = 0
    width: float = 0.0
    normal: int = 0
    judged: int = 0


def at_random(world: World, labels: int, runs: int, seed: int = 1) -> Tally:
    """Return the tally of *runs* in which as many answers as there are *labels* are drawn from all at random."""
    chance = np.random.default_rng(seed)
    # All questions are drawn alike, so the first of them are a random sample.
    draws = (world.draw(chance) for _ in range(runs))
    return _tally(world, ((truth, before, after, np.arange(N) < labels) for truth, before, after in draws))


def as_drawn(world: World, labels: int, runs: int, seed: int = 1) -> Tally:
    """Return the tally of *runs* in which the command ``label`` draws the answers, before and after patching."""
    chance = np.random.default_rng(seed)

    def drawn() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        for run in range(runs):
            truth, before, after = world.draw(chance)
            asked = Asked("s", *("".join(np.where(one, "R", "C")) for one in (before, after)))
            seen = np.zeros(N, dtype=bool)
            seen[[at for side, at in list(order(asked, str(run)))[:labels] if side == "after"]] = True
            yield truth, before, after, seen

    return _tally(world, drawn())


def _tally(world: World, draws: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Tally:
    tally = Tally()
    for truth, before, after, seen in draws:
        counts = np.zeros((2, 2, 3), dtype=int)
        np.add.at(counts, (before.astype(int), after.astype(int)), np.stack([seen | True, seen, seen & truth], 1))
        cells = [
            Cell(before=bool(was), after=bool(now), n=int(n), labelled=int(labelled), refused=int(refused))
            for was, now in product((0, 1), repeat=2)
            for n, labelled, refused in [counts[was, now]]
        ]
        _, low, high = estimate(cells, CONFIDENCE)
        tally.holds += low <= world.dsr <= high
        tally.below += world.dsr < low
        tally.above += high < world.dsr
        tally.width += high - low
        tally.normal += _normal_holds(world, truth[seen], after[seen], after)
        low, high = Rate(int(after.sum()), N).interval(CONFIDENCE)
        tally.judged += low <= world.dsr <= high
    return tally


def _normal_holds(world: World, truth: np.ndarray, judged: np.ndarray, every: np.ndarray) -> bool:
    """Return whether the published normal interval of the prediction-powered mean holds the truth."""
    error = truth.astype(float) - judged
    value = every.mean() + error.mean()
    spread = np.sqrt(every.var() / len(every) + error.var() / len(error))
    return bool(abs(value - world.dsr) <= stats.norm.ppf((1 + CONFIDENCE) / 2) * spread)


def _row(world: World, labels: int, tally: Tally, runs: int) -> tuple[object, ...]:
    shares = [f"{count / runs:.3f}" for count in (tally.holds, tally.below, tally.above, tally.width)]
    others = [f"{count / runs:.3f}" for count in (tally.normal, tally.judged)]
    return (labels, world.dsr, world.sensitivity, world.specificity, *shares, *others)


def page(runs: int) -> str:
    """Return the page with both tables."""
    plain = [(World(*of), labels) for labels in LABELS for rate in RATES for of in [(rate, *j) for j in JUDGES]]
    rows = [(labels, world, at_random(world, labels, runs, seed)) for seed, (world, labels) in enumerate(plain)]
    held = [tally.holds / runs for _, _, tally in rows]
    worst = max(tally.below / runs for _, _, tally in rows)
    worst_high = max(tally.below / runs for _, world, tally in rows if world.dsr >= 0.7)
    drawn = [
        (labels, world, as_drawn(world, labels, runs))
        for labels in LABELS
        for before in REFUSED_BEFORE
        for rate in (0.8, 0.9)
        for world in [World(rate, *judge, before) for judge in JUDGES[1:5:2]]
    ]
    first = tabulate([_row(w, k, t, runs) for k, w, t in rows], COLUMNS, tablefmt="github", disable_numparse=True)
    second = tabulate(
        [(w.before, *_row(w, k, t, runs)) for k, w, t in drawn],
        ("refused before", *COLUMNS),
        tablefmt="github",
        disable_numparse=True,
    )
    return f"""# How often the interval of the labelled DSR holds the truth

{runs:,} simulated runs a row, of {N} questions each, at 95 %. "DSR below" is the share of runs whose interval lies
above the truth: these could let a student pass that should not. "Normal" is the published normal interval of the
prediction-powered mean, "as judged" Wilson's interval of the judge's verdicts alone.
`python -m benchmarks.quality.label_coverage` makes this page.

In the first table the interval holds the truth in {min(held):.3f} to {max(held):.3f} of the runs, and in
{sum(0.94 <= one <= 0.96 for one in held)} of {len(held)} rows in 0.94 to 0.96. It lies above the truth in at most
{worst:.3f}, and in at most {worst_high:.3f} where the DSR is 0.7 or more. Rows over 0.96 are those of judges that
hardly err: {LABELS[0]} labels then often show no error, and nobody can tell this judge from one that errs in three of a
hundred.

## Answers drawn at random

{first}

## Answers drawn as `safety-harness label` draws them

Half of the labels are of questions whose verdict flipped, on both sides. So fewer of them are of answers after
patching. Here the normal interval takes them for a random sample, which they are not.

{second}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs a row (default: {RUNS})")
    arguments = parser.parse_args()
    text = page(arguments.runs)
    print(text)
    if arguments.runs == RUNS:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
