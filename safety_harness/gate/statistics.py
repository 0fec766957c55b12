"""Compute the statistics of a gate: rates with intervals, paired tests, non-inferiority, judge-corrected rates.

Rates are shares in 0..1, never per cent. Results are small frozen dataclasses with their counts, so that a report can
always show k/n. Sequences of booleans are paired by position: element i of `before` and of `after` is the same
question. Too little data is a DataError. A misuse by the caller is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special  # scipy.stats takes a second to import, in every process

from safety_harness.errors import DataError

CONFIDENCE = 0.95
# Significance level.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Rate:
    """k of n. Raises DataError for n = 0: without a scored answer there is no rate, not even a rate of 0."""

    k: int
    n: int

    def __post_init__(self) -> None:
        if self.n == 0:
            raise DataError("a rate over 0 answers is undefined: every answer is missing or unscored; see the answers")
        if not 0 <= self.k <= self.n:
            raise ValueError(f"a rate needs 0 <= k <= n, got k={self.k}, n={self.n}")

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Rate:
        """Return the share of true outcomes."""
        return cls(sum(map(bool, outcomes)), len(outcomes))

    @property
    def value(self) -> float:
        return self.k / self.n

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the Wilson score interval (Wilson 1927), two-sided."""
        _check_confidence(confidence)
        z = _normal_quantile(confidence)
        centre = (2 * self.k + z**2) / (2 * (self.n + z**2))
        half = z * math.sqrt(4 * self.k * (self.n - self.k) / self.n + z**2) / (2 * (self.n + z**2))
        # At k = 0 and k = n, rounding can leave the bound slightly on the wrong side of the share itself.
        return max(0.0, min(centre - half, self.value)), min(1.0, max(centre + half, self.value))


def _normal_quantile(confidence: float) -> float:
    """Return the distance from 0 within which a standard normal value lies with this probability."""
    return float(special.ndtri((1 + confidence) / 2))


def kappa_interval(counts: Sequence[int], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return an interval of Cohen's kappa by a bootstrap of 10,000 draws, of a fixed seed.

    *counts* are those of a table of two raters: both yes, first alone, second alone, neither.
    """
    _check_confidence(confidence)
    n = sum(counts)
    both, first, second, neither = np.random.default_rng(0).multinomial(n, np.asarray(counts) / n, 10_000).T / n
    chance = (both + first) * (both + second) + (neither + second) * (neither + first)
    defined = chance < 1
    kappas = ((both + neither - chance)[defined]) / (1 - chance[defined])
    low, high = np.quantile(kappas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class McNemar:
    """Exact test on the questions whose outcome flipped.

    `p_value` is two-sided. `p_improvement` is one-sided: the probability of as many gains or more if gains and losses
    were equally likely. Without any flip both are 1.
    """

    gained: int
    lost: int
    p_value: float
    p_improvement: float


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """Return the exact (binomial) McNemar test for paired outcomes (McNemar 1947)."""
    _, gained, lost, _ = _paired_table(before, after)
    flips = gained + lost
    if not flips:
        return McNemar(0, 0, 1.0, 1.0)
    # A fair coin is symmetric: as many gains or more are as likely as as many losses or more.
    two_sided = 2 * float(special.bdtr(min(gained, lost), flips, 0.5))
    one_sided = float(special.bdtr(lost, flips, 0.5))
    return McNemar(gained, lost, min(1.0, two_sided), min(1.0, one_sided))


def hit_at(hits: Sequence[int], draws: int, k: int, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return how likely a question has a hit among *k* answers, with its interval, of *hits* among *draws* answers.

    It is the mean of 1 - C(n - c, k) / C(n, k) over the questions (Chen et al. 2021, arXiv 2107.03374). The draws of a
    question are one cluster, so the interval is a bootstrap over questions: 10,000 draws of a fixed seed. Where all
    questions are alike the bootstrap shows no spread, and the interval is Wilson's.
    """
    _check_confidence(confidence)
    if not 1 <= k <= draws or not all(0 <= count <= draws for count in hits):
        raise ValueError(f"hits need 0 <= c <= n and 1 <= k <= n, got k={k}, n={draws} and hits {list(hits)[:5]}")
    if not len(hits):
        raise DataError("no question was asked, so there is no rate of hits")
    each = np.array([1 - math.comb(draws - count, k) / math.comb(draws, k) for count in hits])
    if each.min() == each.max():
        low, high = Rate(round(each.sum()), each.size).interval(confidence)
        return float(each.mean()), min(low, float(each.mean())), max(high, float(each.mean()))
    means = np.random.default_rng(0).choice(each, (10_000, len(each))).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(each.mean()), float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """rate(after) - rate(before), with its interval."""

    value: float
    low: float
    high: float


def paired_difference(before: Sequence[bool], after: Sequence[bool], confidence: float = CONFIDENCE) -> Difference:
    """Return the difference of two paired rates with its interval.

    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: the Wilson limits of both rates are combined with
    the correlation phi of the outcomes. Its numerator is reduced by n/2 when it is positive.
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
    """Test a rate for paired non-inferiority: `worse="higher"` for over-refusal, `worse="lower"` for task accuracy.

    The test holds when the two-sided interval of the difference stays on the good side of the margin. That is a
    one-sided test at (1 - confidence) / 2. A failure is no proof of harm: it may only mean too few questions.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"a margin is a share in 0..1, got {margin}")
    difference = paired_difference(before, after, confidence)
    holds = difference.high < margin if worse == "higher" else difference.low > -margin
    return NonInferiority(difference, margin, holds)


@dataclass(frozen=True)
class Mean:
    """A mean with its interval, over n independent values."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Mean:
    """Return a mean with Student's t interval: of log-perplexity differences by document, or KL by answer, in nats.

    Raises:
        DataError: fewer than two values, or one that is not finite.
    """
    _check_confidence(confidence)
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        raise DataError(f"an interval of a mean needs at least 2 values, got {data.size}: measure more documents")
    if not np.isfinite(data).all():
        raise DataError(f"{int((~np.isfinite(data)).sum())} of {data.size} values are not finite: check the model")
    centre = float(data.mean())
    half = float(special.stdtrit(data.size - 1, (1 + confidence) / 2) * data.std(ddof=1) / math.sqrt(data.size))
    return Mean(centre, centre - half, centre + half, int(data.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method (Holm 1979), to be compared with the plain level.

    They stand in the order given.
    """
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
    """Return the true rate behind a judged rate; None when the judge is no better than chance (Se + Sp <= 1).

    The estimate is Rogan and Gladen's (1978): (p + Sp - 1) / (Se + Sp - 1). The interval carries the sampling error of
    the judged answers and of the labelled ones: Lang and Reiczigel, Preventive Veterinary Medicine 113 (2014) 13-22,
    as applied to language-model judges in arXiv 2511.21140. It assumes that the judge errs on these answers as often
    as on the labelled ones, so both must be in the same style.
    """
    _check_confidence(confidence)
    if sensitivity.value + specificity.value <= 1:
        return None
    z = _normal_quantile(confidence)
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
    """Return the counts of (true in both, gained, lost, true in neither)."""
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
