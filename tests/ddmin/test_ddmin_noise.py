"""Oracles that err: what is returned was accepted again and again, wrong turns are taken back, repeats are judged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.ddmin import ArgumentError, Noise, NotReproduced, Unresolved, minimize

Oracle = Callable[[tuple[int, ...]], bool]


class Erring:
    """`truth` over `range(n)` with answers flipped at a rate; keeps every answer."""

    def __init__(self, truth: Oracle, flips: float, seed: int, void: float = 0.0) -> None:
        self.truth, self.flips, self.void, self.rng = truth, flips, void, random.Random(seed)
        self.answers: dict[tuple[int, ...], Counter[bool]] = {}

    def __call__(self, subset: tuple[int, ...]) -> bool:
        tally = self.answers.setdefault(subset, Counter())
        if self.rng.random() < self.void:
            raise Unresolved
        answer = self.truth(subset) != (self.rng.random() < self.flips)
        tally[answer] += 1
        return answer


def threshold(n: int, share: float, seed: int) -> Oracle:
    rng = random.Random(seed)
    weights = [rng.expovariate(1) for _ in range(n)]
    return lambda subset: sum(weights[i] for i in subset) >= share * sum(weights)


@given(
    st.integers(1, 40),
    st.floats(0.05, 0.95),
    st.integers(0, 2**32),
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from(["none", "monotone", "explicit", "confidence"]),
    st.integers(1, 3),
)
def test_what_is_returned_was_accepted_more_often_than_refused(
    n: int, share: float, seed: int, flips: float, certificate: str, workers: int
) -> None:
    """For any rate, believed or not: the oracle below errs at a rate of its own."""
    oracle = Erring(threshold(n, share, seed), random.Random(seed).choice([0.0, 0.02, 0.3]), seed, void=0.05)
    try:
        result = minimize(range(n), oracle, noise=Noise(flips), certificate=certificate, workers=workers, max_calls=600)
    except NotReproduced:
        return
    except ValueError:
        assert sum(map(Counter.total, oracle.answers.values())) >= 600  # not even the full set was settled
        return
    assert result.kept in oracle.answers
    assert oracle.answers[result.kept][True] > oracle.answers[result.kept][False] or result.frozen
    assert result.kept == tuple(sorted(result.kept))


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("n", [32, 90])
def test_two_percent_flips_give_valid_results_for_a_third_more_calls(n: int, share: float) -> None:
    noisy = clean = 0
    for seed in range(20):
        truth = threshold(n, share, seed)
        result = minimize(range(n), Erring(truth, 0.02, seed), noise=Noise(0.02))
        assert truth(result.kept)
        noisy += result.calls
        clean += minimize(range(n), truth).calls
    assert noisy <= 1.5 * clean


@given(st.integers(2, 24), st.floats(0.1, 0.9), st.integers(0, 2**32), st.integers(0, 60))
def test_any_one_wrong_acceptance_is_taken_back(n: int, share: float, seed: int, wrong: int) -> None:
    truth = threshold(n, share, seed)
    asked: list[tuple[int, ...]] = []

    def oracle(subset: tuple[int, ...]) -> bool:
        asked.append(subset)
        return truth(subset) or len(asked) == wrong + 1

    result = minimize(range(n), oracle, noise=Noise(0.02))
    assert truth(result.kept)
    assert not any(truth(tuple(u for u in result.kept if u != unit)) for unit in result.kept)


def test_one_unlucky_first_answer_does_not_refuse_the_full_set() -> None:
    answers = iter([False])

    def oracle(subset: tuple[int, ...]) -> bool:
        return next(answers, 3 in subset)

    with pytest.raises(NotReproduced):
        minimize(range(8), lambda subset: len(subset) < 8, noise=Noise(0.02))
    assert minimize(range(8), oracle, noise=Noise(0.02)).kept == (3,)


def test_repeats_that_always_agree_are_no_evidence_and_are_not_asked_for_any_more() -> None:
    truth = threshold(60, 0.7, 1)
    believed_noisy = minimize(range(60), truth, noise=Noise(0.3))
    assert believed_noisy.frozen
    assert truth(believed_noisy.kept)
    assert believed_noisy.disagreements == 0
    assert believed_noisy.repeats == 9  # .58 ** 9 is below 1 %, .58 ** 8 is not
    honest = minimize(range(60), Erring(truth, 0.02, 5), noise=Noise(0.02))
    assert not honest.frozen


def test_confidence_asks_about_every_kept_unit_until_it_is_sure() -> None:
    truth = threshold(30, 0.6, 2)
    oracle = Erring(truth, 0.02, 1)
    result = minimize(range(30), oracle, noise=Noise(0.02), certificate="confidence")
    assert set(result.certificate.values()) == {"tested"}
    for unit in result.kept:
        without = oracle.answers[tuple(u for u in result.kept if u != unit)]
        assert without[False] - without[True] >= 2


@pytest.mark.parametrize(("arguments", "message"), [({"flips": 0.5}, "flips is 0.5"), ({"error": 0.0}, "error is 0.0")])
def test_impossible_rates_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Noise(**arguments)
