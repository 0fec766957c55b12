"""Median oracle calls of each ddmin strategy on synthetic oracles.

    python benchmarks/ddmin_calls.py                       # n = 56 and 90, seeds 0-19
    python benchmarks/ddmin_calls.py --n 224 --cells c_exp_0.5 b_k16

Cells over n units in a row, one generator per seed; the oracle is asked about a set S:
a_kK: K units drawn without replacement are all needed; b_kK: K neighbours at a uniform start are all needed;
c_exp_T: weights Exponential(1), the sum over S must reach T times the total; d_exp_T: the same with each
    weight made negative with probability .2, redrawn until the total exceeds .2 of the sum of |weights|.
The prior column hands `minimize` importances: c, d: |weight|; a, b: 1 if needed, else .25; each times
lognormal(0, 1). Counted: distinct questions, the empty set included; the full set is assumed true and free.
Every result is proven 1-minimal by explicit tests (checked here), which are part of the count.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from statistics import median

from safety_harness.ddmin import minimize

Oracle = Callable[[tuple[int, ...]], bool]
CELLS = ("a_k8", "b_k8", "c_exp_0.5", "c_exp_0.8", "d_exp_0.5", "d_exp_0.8")
COLUMNS = (("ddmin", False), ("adaptive", False), ("adaptive", True))


def make_cell(cell: str, n: int, rng: random.Random) -> tuple[Oracle, list[float]]:
    """The oracle of a cell and a noisy prior for it."""
    kind, _, size = cell.partition("_")
    if kind in "ab":
        count = int(size.removeprefix("k"))
        start = rng.randrange(n - count + 1)
        needed = frozenset(rng.sample(range(n), count) if kind == "a" else range(start, start + count))
        return needed.issubset, [(1.0 if i in needed else 0.25) * rng.lognormvariate(0, 1) for i in range(n)]
    weights = [rng.expovariate(1) for _ in range(n)]
    while kind == "d":
        weights = [w if rng.random() >= 0.2 else -w for w in (rng.expovariate(1) for _ in range(n))]
        if sum(weights) > 0.2 * sum(map(abs, weights)):
            break
    threshold = float(size.removeprefix("exp_")) * sum(weights) - 1e-9
    return (
        lambda subset: sum(weights[i] for i in subset) >= threshold,
        [abs(w) * rng.lognormvariate(0, 1) for w in weights],
    )


def measure(cell: str, n: int, seeds: int, strategy: str, prior: bool) -> tuple[float, float]:
    """Median calls and median size over the seeds."""
    calls, sizes = [], []
    for seed in range(seeds):
        oracle, weights = make_cell(cell, n, random.Random(f"{cell}/{n}/{seed}"))
        full = frozenset(range(n))
        result = minimize(range(n), oracle, strategy=strategy, weights=weights if prior else None, assume={full: True})
        if not result.minimal or not oracle(result.kept):
            raise SystemExit(f"{strategy} on {cell}, n={n}, seed {seed}: not a proven 1-minimal result")
        calls.append(result.calls)
        sizes.append(len(result.kept))
    return median(calls), median(sizes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=[56, 90])
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args(argv)
    heads = [name + (" + prior" if prior else "") for name, prior in COLUMNS]
    print(f"{'cell':<10} {'n':>4}  " + "  ".join(f"{head:>18}" for head in heads) + "   calls (size)")
    for n in args.n:
        for cell in args.cells:
            row = (measure(cell, n, args.seeds, name, prior) for name, prior in COLUMNS)
            print(f"{cell:<10} {n:>4}  " + "  ".join(f"{f'{c:g} ({s:g})':>18}" for c, s in row), flush=True)


if __name__ == "__main__":
    main()
