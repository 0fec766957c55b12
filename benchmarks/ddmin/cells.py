"""Define the oracle cells that the delta-debugging benchmarks run on.

A cell has n units in a row, and its oracle is asked about a set S. `random.Random(f"{cell}/{n}/{seed}")` draws in the
order stated:
a_kK: `sample(range(n), K)` are all needed.
b_kK: K neighbours are all needed, from `randrange(n - K + 1)` on.
c_exp_T: n weights `expovariate(1)`. c_pow_T: n weights `(1 - random()) ** (-1 / 1.16)` (Pareto). The oracle is true if
    the sum over S is at least T times the total, less 1e-9.
d_exp_T: n weights `expovariate(1)`, then one `random()` per unit that makes its weight negative if below 0.2. Weights
    are drawn again until the total exceeds 0.2 of the sum of absolute weights. The threshold is on the signed total.
e_exp_T: c_exp_T, with each evaluation's answer flipped when a second generator, `Random(f"flip/{cell}/{n}/{seed}")`,
    draws below 0.02. The full set is never flipped.
Scores (c, d, e): the sum over S as a share of the total. The caller adds a normal error.
Prior: |weight| in c, d, e; in a, b 1 if needed, else 0.25. Each is multiplied by `lognormvariate(0, 1)`, drawn last,
    one per unit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

SIZES = (32, 90, 224, 672)
NOISELESS = (
    *(f"a_k{k}" for k in (1, 2, 4, 8, 16)),
    *(f"b_k{k}" for k in (4, 8, 16)),
    *(f"{kind}_{share}" for kind in ("c_exp", "c_pow", "d_exp") for share in ("0.5", "0.8")),
)
NOISY = ("e_exp_0.5", "e_exp_0.8")
FLIPS = 0.02

Oracle = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class Cell:
    """An oracle over `range(n)`: `truth` without noise, `ask` as it answers (noisy in the e cells), and a prior.

    `share` is what a threshold cell compares with its threshold. In the other cells it is the truth as 0 or 1.
    """

    name: str
    n: int
    seed: int
    truth: Oracle
    ask: Oracle
    prior: list[float]
    share: Callable[[tuple[int, ...]], float]

    def one_minimal(self, kept: tuple[int, ...]) -> bool:
        """Return whether `kept` is accepted and no single unit can be left out of it, in truth."""
        return self.truth(kept) and not any(self.truth(tuple(v for v in kept if v != u)) for u in kept)


def make_cell(name: str, n: int, seed: int) -> Cell:
    """Draw the cell of this name. Raises ValueError for a name of another form."""
    rng = random.Random(f"{name}/{n}/{seed}")
    kind, _, rest = name.partition("_")
    if kind in ("a", "b") and rest.startswith("k"):
        count = int(rest[1:])
        truth, worth = _conjunction(rng, n, count, block=kind == "b")
        share: Callable[[tuple[int, ...]], float] = truth
    elif kind in ("c", "d", "e"):
        shape, _, at = rest.partition("_")
        weights = _weights(rng, n, shape, signed=kind == "d")
        total, worth = sum(weights), [abs(weight) for weight in weights]
        threshold = float(at) * total - 1e-9

        def truth(subset: tuple[int, ...]) -> bool:
            return sum(weights[i] for i in subset) >= threshold

        def share(subset: tuple[int, ...]) -> float:
            return sum(weights[i] for i in subset) / total

    else:
        raise ValueError(f"no such cell: {name}")
    prior = [value * rng.lognormvariate(0, 1) for value in worth]
    ask = _flipping(truth, n, random.Random(f"flip/{name}/{n}/{seed}")) if kind == "e" else truth
    return Cell(name, n, seed, truth, ask, prior, share)


def _conjunction(rng: random.Random, n: int, count: int, *, block: bool) -> tuple[Oracle, list[float]]:
    """Draw the needed units. Return the oracle, and each unit's worth for the prior."""
    if block:
        start = rng.randrange(n - count + 1)
        needed = frozenset(range(start, start + count))
    else:
        needed = frozenset(rng.sample(range(n), count))
    return needed.issubset, [1.0 if i in needed else 0.25 for i in range(n)]


def _weights(rng: random.Random, n: int, shape: str, *, signed: bool) -> list[float]:
    """Draw the weights of a threshold cell."""
    while True:
        if shape == "exp":
            weights = [rng.expovariate(1) for _ in range(n)]
        else:
            weights = [(1 - rng.random()) ** (-1 / 1.16) for _ in range(n)]
        if not signed:
            return weights
        weights = [-w if rng.random() < 0.2 else w for w in weights]
        if sum(weights) > 0.2 * sum(map(abs, weights)):
            return weights


def _flipping(truth: Oracle, n: int, rng: random.Random) -> Oracle:
    """Return the oracle with some answers flipped."""
    return lambda subset: truth(subset) != (len(subset) < n and rng.random() < FLIPS)
