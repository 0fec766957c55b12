"""Check what fixed searches cost, to the call: an unintended change of the search shows here.

Eighteen oracles over 24 to 200 units. After an intended change, measure with benchmarks/ddmin/calls.py that it pays,
and then write the new figures here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from safety_harness.ddmin import Event, Noise, Reducer, Scores, minimize

Subset = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An oracle over `range(n)`: the share that a set reaches, how much is enough, and a prior with errors."""

    n: int
    share: Callable[[Subset], float]
    enough: float
    prior: list[float]

    def truth(self, subset: Subset) -> bool:
        return self.share(subset) >= self.enough


def case(kind: str, n: int, size: float) -> Case:
    """Draw a case. `spread`, `row`: this many units are needed. `sum`, `signed`: this share of the weight is."""
    rng = random.Random(f"{kind}{n}{size}")
    if kind in ("spread", "row"):
        count = int(size)
        start = rng.randrange(n - count + 1)
        needed = frozenset(rng.sample(range(n), count) if kind == "spread" else range(start, start + count))
        worth = [1.0 if unit in needed else 0.25 for unit in range(n)]
        return Case(n, lambda s: len(needed.intersection(s)) / count, 1.0, _distorted(worth, rng))
    weights = [rng.expovariate(1) * (-1 if kind == "signed" and rng.random() < 0.15 else 1) for _ in range(n)]
    total = sum(weights)
    prior = _distorted([abs(weight) for weight in weights], rng)
    return Case(n, lambda s: sum(weights[unit] for unit in s) / total, size, prior)


def _distorted(worth: list[float], rng: random.Random) -> list[float]:
    """Return the worths as a prior with errors has them."""
    return [value * rng.lognormvariate(0, 1) for value in worth]


def counted(kind: str, n: int, size: float, **options: Any) -> tuple[int, int]:
    """Return the calls, and the number of units kept."""
    problem = case(kind, n, size)
    if options.pop("prior", False):
        options["weights"] = problem.prior
    result = minimize(range(n), problem.truth, **options)
    assert problem.truth(result.kept)
    return result.calls, len(result.kept)


def in_rounds(kind: str, n: int, size: float, workers: int) -> int:
    """Count how many times `workers` questions must be asked at once."""
    problem = case(kind, n, size)
    reducer, rounds = Reducer(range(n)), 0
    while asks := reducer.ask_many(workers):
        rounds += 1
        for ask in asks:
            reducer.tell(ask, problem.truth(ask.units))
    return rounds


def estimated(kind: str, n: int, size: float) -> int:
    """Sum over a run how far the estimate of the calls to come is off."""
    problem = case(kind, n, size)
    events: list[Event] = []
    calls = minimize(range(n), problem.truth, on_event=events.append).calls
    return sum(abs(event.estimate - (calls - event.calls)) for event in events if event.kind == "answered")


def noisy(kind: str, n: int, size: float) -> tuple[int, int, int]:
    """Return calls and repeats where answers flip, and calls where scores have an error."""
    problem, rng = case(kind, n, size), random.Random(0)
    flips = minimize(range(n), lambda s: problem.truth(s) != (rng.random() < 0.02), noise=Noise(0.02))
    test = Scores(problem.enough - 0.05, 0.05, 0.02)
    scores = minimize(range(n), lambda s: problem.share(s) + rng.gauss(0, 0.02), noise=test)
    return flips.calls, flips.repeats, scores.calls


class Costs(NamedTuple):
    """(calls, units kept) of searches, rounds of four workers, error of the estimate, calls and repeats with noise."""

    default: tuple[int, int]
    explicit: tuple[int, int]
    with_prior: tuple[int, int]
    explicit_with_prior: tuple[int, int]
    halving: tuple[int, int]
    rounds: int
    estimate_off: int
    noise: tuple[int, int, int]


EXPECTED = {
    ("spread", 24, 3): Costs((15, 3), (17, 3), (19, 3), (22, 3), (19, 3), 7, 108, (21, 6, 17)),
    ("spread", 24, 12): Costs((27, 12), (39, 12), (25, 12), (30, 12), (50, 12), 13, 129, (39, 12, 31)),
    ("row", 24, 6): Costs((17, 6), (23, 6), (15, 6), (21, 6), (16, 6), 6, 117, (23, 6, 19)),
    ("sum", 24, 0.5): Costs((19, 10), (24, 10), (11, 7), (11, 7), (27, 12), 9, 89, (28, 9, 23)),
    ("sum", 24, 0.85): Costs((28, 18), (43, 18), (23, 15), (24, 15), (46, 17), 11, 146, (39, 11, 26)),
    ("signed", 24, 0.6): Costs((19, 5), (26, 4), (11, 3), (12, 3), (19, 4), 9, 72, (25, 6, 25)),
    ("spread", 90, 3): Costs((23, 3), (25, 3), (24, 3), (26, 3), (32, 3), 9, 303, (29, 6, 25)),
    ("spread", 90, 12): Costs((64, 12), (76, 12), (58, 12), (69, 12), (94, 12), 31, 833, (86, 19, 90)),
    ("row", 90, 6): Costs((20, 6), (26, 6), (19, 6), (25, 6), (20, 6), 10, 304, (26, 6, 20)),
    ("sum", 90, 0.5): Costs((44, 30), (70, 30), (30, 21), (30, 21), (92, 35), 16, 354, (66, 19, 48)),
    ("sum", 90, 0.85): Costs((87, 72), (127, 72), (69, 57), (79, 57), (170, 66), 26, 1035, (109, 19, 133)),
    ("signed", 90, 0.6): Costs((48, 27), (87, 26), (39, 21), (66, 20), (84, 27), 22, 376, (71, 23, 101)),
    ("spread", 200, 3): Costs((29, 3), (32, 3), (30, 3), (32, 3), (40, 3), 15, 558, (40, 11, 32)),
    ("spread", 200, 12): Costs((72, 12), (84, 12), (74, 12), (84, 12), (123, 12), 32, 638, (93, 17, 76)),
    ("row", 200, 6): Costs((20, 6), (26, 6), (16, 6), (16, 6), (32, 6), 11, 966, (29, 9, 23)),
    ("sum", 200, 0.5): Costs((109, 87), (170, 87), (62, 52), (62, 52), (212, 91), 36, 1666, (137, 25, 216)),
    ("sum", 200, 0.85): Costs((186, 167), (204, 167), (122, 113), (122, 113), (347, 157), 53, 2745, (212, 17, 358)),
    ("signed", 200, 0.6): Costs((130, 70), (222, 68), (148, 48), (148, 48), (223, 63), 54, 3213, (172, 39, 292)),
}


@pytest.mark.parametrize(("problem", "costs"), EXPECTED.items(), ids=str)
def test_searches_make_the_recorded_calls(problem: tuple[str, int, float], costs: Costs) -> None:
    assert counted(*problem) == costs.default
    assert counted(*problem, certificate="explicit") == costs.explicit
    assert counted(*problem, prior=True) == costs.with_prior
    assert counted(*problem, certificate="explicit", prior=True) == costs.explicit_with_prior
    assert counted(*problem, strategy="halving", certificate="none") == costs.halving
    assert noisy(*problem) == costs.noise


@pytest.mark.parametrize(("problem", "costs"), EXPECTED.items(), ids=str)
def test_four_workers_need_the_recorded_rounds(problem: tuple[str, int, float], costs: Costs) -> None:
    assert in_rounds(*problem, 4) == costs.rounds


@pytest.mark.parametrize(("problem", "costs"), EXPECTED.items(), ids=str)
def test_the_estimate_of_calls_to_come_is_as_recorded(problem: tuple[str, int, float], costs: Costs) -> None:
    assert estimated(*problem) == pytest.approx(costs.estimate_off, rel=0.02)


@pytest.mark.parametrize(
    ("n", "needed", "calls"),
    [(400, {*range(50, 57), 300}, 49), (400, {*range(20, 30), 270}, 51), (142, {*range(9, 14), 137}, 30)],
)
def test_a_search_that_runs_dry_goes_on_from_the_other_end(n: int, needed: set[int], calls: int) -> None:
    result = minimize(range(n), needed.issubset)

    assert set(result.kept) == needed
    assert result.calls == calls
    assert not result.frozen  # nothing was asked twice, so nothing repeated itself too well
