"""The statistics of a gate: rates with intervals, paired tests, non-inferiority, judge-corrected rates.

Rates are shares in 0..1, never per cent. Everything returns a small frozen dataclass that carries its counts, so that
a report can always show k/n. Sequences of booleans are paired by position: element i of `before` and of `after` is
the same question. Too little data to say anything is a DataError; a misuse by the caller is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from safety_harness.errors import DataError

CONFIDENCE = 0.95
# Below this a p-value speaks.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Rate:
    """k of n. Raises DataError for n = 0: without a scored answer there is no rate, which is not a rate of 0."""

    k: int
    n: int

    def __post_init__(self) -> None:
        if self.n == 0:
            raise DataError("a rate over 0 answers is undefined: every answer is missing or unscored; see the answers")
        if not 0 <= self.k <= self.n:
            raise ValueError(f"a rate needs 0 <= k <= n, got k={self.k}, n={self.n}")

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Rate:
        """Share of true outcomes."""
        return cls(sum(map(bool, outcomes)), len(outcomes))

    @property
    def value(self) -> float:
        return self.k / self.n

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson score interval (Wilson 1927), two-sided."""
        _check_confidence(confidence)
        found = stats.binomtest(self.k, self.n).proportion_ci(confidence, method="wilson")
        # Rounding can leave the bound a hair on the wrong side of the share itself at k = 0 and k = n.
        return min(float(found.low), self.value), max(float(found.high), self.value)


@dataclass(frozen=True)
class McNemar:
    """Exact test on the questions whose outcome flipped.

    `p_value` is two-sided; `p_improvement` is one-sided: how surprising so many gains would be if gains and losses
    were equally likely. Without any flip both are 1.
    """

    gained: int
    lost: int
    p_value: float
    p_improvement: float


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """Exact (binomial) McNemar test for paired outcomes (McNemar 1947)."""
    _, gained, lost, _ = _paired_table(before, after)
    flips = gained + lost
    if not flips:
        return McNemar(0, 0, 1.0, 1.0)
    two_sided = float(stats.binomtest(gained, flips, 0.5).pvalue)
    one_sided = float(stats.binomtest(gained, flips, 0.5, alternative="greater").pvalue)
    return McNemar(gained, lost, min(1.0, two_sided), min(1.0, one_sided))


@dataclass(frozen=True)
class Difference:
    """rate(after) - rate(before), with its interval."""

    value: float
    low: float
    high: float


def paired_difference(before: Sequence[bool], after: Sequence[bool], confidence: float = CONFIDENCE) -> Difference:
    """Interval for the difference of two paired rates.

    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: the Wilson limits of both rates, combined with
    their correlation phi, whose numerator is reduced by n/2 when it is positive.
    """
    both, gained, lost, neither = _paired_table(before, after)
    n = both + gained + lost + neither
    new, old = Rate(both + gained, n), Rate(both + lost, n)
    (new_low, new_high), (old_low, old_high) = new.interval(confidence), old.interval(confidence)
    phi = _correlation(both, gained, lost, neither)
    value = (gained - lost) / n
    down = _combine(new.value - new_low, old_high - old.value, phi)
    up = _combine(new_high - new.value, old.value - old_low, phi)
    return Difference(value, max(-1.0, value - down), min(1.0, value + up))


@dataclass(frozen=True)
class NonInferiority:
    """Whether a change for the worse beyond `margin` is excluded by the whole interval."""

    difference: Difference
    margin: float
    holds: bool


def non_inferior(
    before: Sequence[bool],
    after: Sequence[bool],
    *,
    margin: float,
    worse: Literal["higher", "lower"],
    confidence: float = CONFIDENCE,
) -> NonInferiority:
    """Paired non-inferiority of a rate: `worse="higher"` for over-refusal, `worse="lower"` for task accuracy.

    Holds when the two-sided interval of the difference stays on the good side of the margin, which is a one-sided
    test at (1 - confidence) / 2. A failure is no proof of harm: it may only mean too few questions.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"a margin is a share in 0..1, got {margin}")
    found = paired_difference(before, after, confidence)
    holds = found.high < margin if worse == "higher" else found.low > -margin
    return NonInferiority(found, margin, holds)


@dataclass(frozen=True)
class Mean:
    """A mean with its interval, over n independent values."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Mean:
    """Student's t interval of a mean, for per-document differences of log-perplexity or per-answer KL, in nats.

    Raises DataError for fewer than two values, or for one that is not finite.
    """
    _check_confidence(confidence)
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        raise DataError(f"an interval of a mean needs at least 2 values, got {data.size}: measure more documents")
    if not np.isfinite(data).all():
        raise DataError(f"{int((~np.isfinite(data)).sum())} of {data.size} values are not finite: check the model")
    centre = float(data.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, data.size - 1) * stats.sem(data))
    return Mean(centre, centre - half, centre + half, int(data.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) in the order given: compare the result with the plain alpha."""
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value lies in 0..1, got {p}")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = worst
    return adjusted


@dataclass(frozen=True)
class CorrectedRate:
    """A rate freed of the judge's known error, with an interval over both samples, clipped to 0..1."""

    value: float
    low: float
    high: float


def corrected_rate(
    rate: Rate, sensitivity: Rate, specificity: Rate, confidence: float = CONFIDENCE
) -> CorrectedRate | None:
    """True rate behind a judged rate; None when the judge is no better than chance (Se + Sp <= 1).

    Rogan-Gladen (1978) estimate (p + Sp - 1) / (Se + Sp - 1). The interval carries the sampling error of the judged
    answers and of the labelled ones: Lang and Reiczigel, Preventive Veterinary Medicine 113 (2014) 13-22, as applied
    to language-model judges in arXiv 2511.21140. It assumes that the judge errs on these answers as often as on the
    labelled ones, so those must be in the same style.
    """
    _check_confidence(confidence)
    if sensitivity.value + specificity.value <= 1:
        return None
    z = float(stats.norm.ppf((1 + confidence) / 2))
    n, n_se, n_sp = rate.n + z**2, sensitivity.n + 2, specificity.n + 2
    p, se, sp = (rate.k + z**2 / 2) / n, (sensitivity.k + 1) / n_se, (specificity.k + 1) / n_sp
    if se + sp <= 1:
        return None
    true = (p + sp - 1) / (se + sp - 1)
    from_se, from_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z**2 * (true * from_se - (1 - true) * from_sp)
    spread = math.sqrt(p * (1 - p) / n + true**2 * from_se + (1 - true) ** 2 * from_sp) / (se + sp - 1)
    value = _clip((rate.value + specificity.value - 1) / (sensitivity.value + specificity.value - 1))
    low, high = _clip(true + shift - z * spread), _clip(true + shift + z * spread)
    return CorrectedRate(value, min(low, value), max(high, value))


# --- Parts -----------------------------------------------------------------------------------------------------------


def _paired_table(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, int, int]:
    """Counts of (true in both, gained, lost, true in neither)."""
    if len(before) != len(after):
        raise ValueError(f"paired outcomes must be of equal length, got {len(before)} before and {len(after)} after")
    if not len(before):
        raise DataError("no paired outcomes: no question was scored both before and after; see the unscored answers")
    pairs = [(bool(old), bool(new)) for old, new in zip(before, after, strict=True)]
    return (
        pairs.count((True, True)),
        pairs.count((False, True)),
        pairs.count((True, False)),
        pairs.count((False, False)),
    )


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not product:
        return 0.0
    cross = float(both * neither - gained * lost)
    if cross > 0:
        cross = max(0.0, cross - (both + gained + lost + neither) / 2)
    return cross / math.sqrt(product)


def _combine(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
