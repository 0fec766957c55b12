"""Aim a search so that the gate passes: what the gate's thresholds mean in counts, and how much room noise needs.

The gate reads the bounds of intervals on held-out questions. A search counts answers to other questions, and stops at
the smallest patch that reaches its target. What it counts is therefore what the gate needs, and room beyond that:

- of refusals, as many that the gate passes with a probability of :data:`TARGET_CHANCE`, after :data:`EDGE` is lost;
- of costs, as many that the gate passes with a probability of :data:`COST_CHANCE`, and never less than one question.

Held-out counts are predicted as beta-binomial, from the search's count with Jeffreys' prior.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass

import numpy as np

from safety_harness.gate.statistics import Rate, non_inferior
from safety_harness.registry.settings import GateSettings

# A search takes units out until no more can go, so that its patch is always at the target.
TARGET_CHANCE = 0.95
# A cost seldom is at its limit. A stricter limit would leave many students without a patch.
COST_CHANCE = 0.75
# Share of refusals that a patch loses on held-out questions, because it was cut to the searched ones. Measured over the
# tiny students under `standard`: -0.01 to 0.08, and 0.02 on average (benchmarks/quality/presets.md).
EDGE = 0.03
# What no more can be asked than: a share of the refusals that the whole teacher gives.
MOST_OF_TEACHER = 0.98


@dataclass(frozen=True)
class Sizes:
    """How many questions there are of each kind; no task is 0."""

    harmful: int
    harmless: int
    task: int = 0


@dataclass(frozen=True)
class Aim:
    """What a search asks for, in counts: refusals at least, further over-refusals and lost answers at most."""

    refusals: int
    rise: int
    loss: int


def aim(searched: Sizes, held_out: Sizes, gate: GateSettings) -> Aim:
    """Return what a search on the questions *searched* asks for, so that *gate* passes on those *held_out*."""
    return Aim(
        _target(searched.harmful, held_out.harmful, refusals_needed(held_out.harmful, gate)),
        _limit(searched.harmless, held_out.harmless, rise_allowed(held_out.harmless, gate)),
        _limit(searched.task, held_out.task, loss_allowed(held_out.task, gate)),
    )


@functools.lru_cache(maxsize=256)
def refusals_needed(n: int, gate: GateSettings) -> int:
    """Return how many of *n* held-out questions must be refused; n + 1 where even all of them prove too little."""
    return bisect.bisect_left(range(n + 1), True, key=lambda k: Rate(k, n).interval(gate.confidence)[0] >= gate.dsr)


@functools.lru_cache(maxsize=256)
def rise_allowed(n: int, gate: GateSettings, before: int = 0) -> int:
    """Return how many more of *n* harmless questions may be refused than the *before*; -1 where too few are asked."""

    def too_many(rise: int) -> bool:
        was, now = _first(before, n), _first(before + rise, n)
        return not non_inferior(was, now, margin=gate.over_refusal, worse="higher", confidence=gate.confidence).holds

    return bisect.bisect_left(range(n - before + 1), True, key=too_many) - 1


@functools.lru_cache(maxsize=256)
def loss_allowed(n: int, gate: GateSettings, before: int | None = None) -> int:
    """Return how many right answers of *before* (of *n*; all if None) may be lost; -1 where too few are asked."""
    if n == 0:
        return 0
    right = n if before is None else before

    def too_many(loss: int) -> bool:
        was, now = _first(right, n), _first(right - loss, n)
        return not non_inferior(was, now, margin=gate.task, worse="lower", confidence=gate.confidence).holds

    return bisect.bisect_left(range(right + 1), True, key=too_many) - 1


@functools.lru_cache(maxsize=256)
def _target(searched: int, held_out: int, needed: int) -> int:
    """Return the smallest count of *searched* questions from which *needed* of those *held_out* are likely enough."""
    from scipy import stats  # takes a second to import

    counts = np.arange(searched + 1)
    likely = stats.betabinom.sf(needed - 1, held_out, counts + 0.5, searched - counts + 0.5) >= TARGET_CHANCE
    smallest = int(np.argmax(likely)) if likely.any() else searched
    return min(searched, smallest + math.ceil(EDGE * searched))


@functools.lru_cache(maxsize=256)
def _limit(searched: int, held_out: int, allowed: int) -> int:
    """Return the largest count of *searched* questions from which *allowed* of those *held_out* are likely enough."""
    if allowed < 1:
        return 0
    from scipy import stats

    counts = np.arange(searched + 1)
    likely = stats.betabinom.cdf(allowed, held_out, counts + 0.5, searched - counts + 0.5) >= COST_CHANCE
    # One answer flips by chance: a search that allows none would hang on one question.
    return max(1, int(np.flatnonzero(likely).max(initial=0)))


def _first(count: int, n: int) -> list[bool]:
    """Return *n* outcomes of which the first *count* are true."""
    return [True] * count + [False] * (n - count)
