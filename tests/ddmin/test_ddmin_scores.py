"""Check oracles that return scores with an error: how often sets are measured, and what the results are worth."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from math import inf, log, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.ddmin import (
    ArgumentError,
    BadAnswer,
    Event,
    JournalError,
    NotReproduced,
    Scores,
    Unresolved,
    minimize,
)
from tests.ddmin.shared import comparable

SPREAD = 0.03
TEST = Scores(threshold=0.6, margin=0.05, spread=SPREAD)


class Measuring:
    """A set's share of all weight, measured with an error; keeps every measurement.

    The k-th measurement of a set is the same in every run and every order.
    """

    def __init__(self, n: int, seed: int, spread: float = SPREAD, void: float = 0.0) -> None:
        self.seed, self.spread, self.void = seed, spread, void
        rng = random.Random(seed)
        weights = [rng.expovariate(1) for _ in range(n)]
        self.weights = [weight / sum(weights) for weight in weights]
        self.scores: dict[tuple[int, ...], list[float]] = defaultdict(list)
        self.calls = 0
        self.break_at: int | None = None

    def truth(self, subset: tuple[int, ...]) -> float:
        return sum(self.weights[unit] for unit in subset)

    def __call__(self, subset: tuple[int, ...]) -> float:
        if self.calls == self.break_at:
            raise OSError("killed")
        self.calls += 1
        rng = random.Random(f"{self.seed}{subset}{len(self.scores[subset])}")
        if rng.random() < self.void:
            raise Unresolved
        score = self.truth(subset) + rng.gauss(0, self.spread)
        self.scores[subset].append(score)
        return score


@given(
    st.integers(1, 40),
    st.floats(0.05, 0.95),
    st.integers(0, 2**32),
    st.sampled_from([0.005, 0.03, 0.2]),
    st.sampled_from(["none", "monotone", "explicit", "confidence"]),
    st.integers(1, 3),
)
def test_what_is_returned_measured_above_the_margins_middle(
    n: int, threshold: float, seed: int, spread: float, certificate: Any, workers: int
) -> None:
    """Check for any spread, true or not: the oracle has a spread of its own."""
    oracle = Measuring(n, seed, void=0.05)
    test = Scores(threshold, 0.05, spread)
    try:
        result = minimize(range(n), oracle, noise=test, certificate=certificate, workers=workers, max_calls=600)
    except NotReproduced:
        return
    except ValueError:
        assert oracle.calls >= 600  # not even the full set was settled
        return
    assert result.kept in oracle.scores
    assert result.kept == tuple(sorted(result.kept))
    direct = sum(test.weight(score) for score in oracle.scores[result.kept])
    assert direct > 0
    assert fmean(oracle.scores[result.kept]) > threshold - test.margin / 2


@pytest.mark.parametrize("n", [32, 90])
def test_sets_below_the_margin_are_not_returned(n: int) -> None:
    for seed in range(40):
        oracle = Measuring(n, seed)
        kept = minimize(range(n), oracle, noise=TEST).kept
        assert oracle.truth(kept) >= TEST.threshold - TEST.margin


def test_a_wide_margin_costs_no_repeats_and_a_narrow_one_some() -> None:
    calls = dict.fromkeys((None, 0.2, 0.06, 0.03), 0)
    sizes = dict.fromkeys(calls, 0)
    for margin in calls:
        for seed in range(10):
            oracle = Measuring(60, seed)
            if margin is None:
                result = minimize(range(60), lambda subset, of=oracle: of.truth(subset) >= TEST.threshold)
            else:
                result = minimize(range(60), oracle, noise=replace(TEST, margin=margin))
            calls[margin] += result.calls
            sizes[margin] += len(result.kept)
    assert calls[0.2] < 1.1 * calls[None]
    assert calls[0.06] < 2.5 * calls[None]
    assert calls[0.06] < calls[0.03] < 5 * calls[None]
    assert all(size < 1.05 * sizes[None] for size in sizes.values())


def test_confidence_measures_every_removal_until_it_is_sure() -> None:
    oracle = Measuring(24, 3)
    result = minimize(range(24), oracle, noise=TEST, certificate="confidence")
    assert set(result.certificate.values()) == {"tested"}
    for unit in result.kept:
        without = oracle.scores[tuple(each for each in result.kept if each != unit)]
        assert sum(TEST.weight(score) for score in without) <= -log(1000)


def test_scores_that_always_agree_are_taken_as_they_are() -> None:
    oracle = Measuring(60, 1, spread=0.0)
    result = minimize(range(60), oracle, noise=replace(TEST, spread=0.1))
    assert result.frozen
    assert result.repeats == 7  # 0.5 ** 7 is below 1 %, 0.5 ** 6 is not
    assert oracle.truth(result.kept) >= TEST.threshold
    assert not minimize(range(60), Measuring(60, 1), noise=TEST).frozen


@given(st.integers(1, 24), st.integers(0, 2**32), st.sampled_from(["monotone", "explicit", "confidence"]))
def test_threads_give_the_result_and_the_events_of_one(n: int, seed: int, certificate: Any) -> None:
    together: list[Event] = []
    alone: list[Event] = []
    options: dict[str, Any] = {"noise": TEST, "certificate": certificate}
    expected = minimize(range(n), Measuring(n, seed), on_event=alone.append, **options)
    got = minimize(range(n), Measuring(n, seed), workers=3, on_event=together.append, **options)
    assert comparable(got) == comparable(expected)
    assert [replace(event, estimate=0) for event in together] == [replace(event, estimate=0) for event in alone]


@given(st.integers(2, 16), st.integers(0, 2**32), st.integers(1, 40))
def test_a_killed_run_measures_nothing_twice_and_ends_the_same(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, kill: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "scores"
    expected = minimize(range(n), Measuring(n, seed), noise=TEST)
    oracle = Measuring(n, seed)
    oracle.break_at = kill
    try:
        minimize(range(n), oracle, noise=TEST, journal=path)
    except OSError:
        oracle.break_at = None
    got = minimize(range(n), oracle, noise=TEST, journal=path)
    assert comparable(got) == comparable(expected)
    assert oracle.calls == expected.calls


def test_a_journal_of_scores_is_not_one_of_answers(tmp_path: Path) -> None:
    scores, answers = tmp_path / "scores", tmp_path / "answers"
    minimize(range(8), Measuring(8, 0), noise=TEST, journal=scores)
    minimize(range(8), lambda subset: 3 in subset, journal=answers)
    before = scores.read_bytes(), answers.read_bytes()
    with pytest.raises(JournalError, match="not a journal of this oracle"):
        minimize(range(8), lambda subset: 3 in subset, journal=scores)
    with pytest.raises(JournalError, match="not a journal of this oracle"):
        minimize(range(8), Measuring(8, 0), noise=TEST, journal=answers)
    assert (scores.read_bytes(), answers.read_bytes()) == before


@pytest.mark.parametrize("score", [b"NaN", b"7", b'"0.5"'])
def test_a_damaged_score_is_named(tmp_path: Path, score: bytes) -> None:
    path = tmp_path / "scores"
    minimize(range(8), Measuring(8, 0), noise=TEST, journal=path)
    with path.open("ab") as journal:
        journal.write(b'{"set": "1", "answer": ' + score + b"}\n")
    with pytest.raises(JournalError, match="is damaged"):
        minimize(range(8), Measuring(8, 0), noise=TEST, journal=path)


@pytest.mark.parametrize("score", [True, None, nan, inf, "0.9"])
def test_what_is_not_a_finite_number_is_refused(score: Any) -> None:
    with pytest.raises(BadAnswer, match="must return a finite number"):
        minimize(range(8), lambda _: score, noise=TEST)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": nan}, "threshold is nan"),
        ({"margin": 0.0}, "margin is 0.0"),
        ({"spread": -1.0}, "spread is -1.0"),
        ({"spread": inf}, "spread is inf"),
        ({"error": 1.0}, "error is 1.0"),
    ],
)
def test_impossible_tests_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        replace(TEST, **arguments)


def test_a_full_set_that_scores_too_little_is_not_reproduced() -> None:
    oracle: Callable[[tuple[int, ...]], float] = Measuring(12, 0)
    with pytest.raises(NotReproduced):
        minimize(range(12), oracle, noise=replace(TEST, threshold=1.2))
