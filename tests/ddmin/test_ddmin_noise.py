"""Check oracles that err: results were accepted repeatedly, wrong turns are taken back, repeats are judged."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.ddmin import ArgumentError, Noise, NotReproduced, Reduction, Unresolved, minimize
from tests.ddmin.shared import comparable

Oracle = Callable[[tuple[int, ...]], bool]


class Erring:
    """`truth` over `range(n)` with answers flipped at a rate; keeps every answer.

    The k-th answer to a question is the same in every run and every order.
    """

    def __init__(self, truth: Oracle, flips: float, seed: int, void: float = 0.0) -> None:
        self.truth, self.flips, self.seed, self.void = truth, flips, seed, void
        self.answers: dict[tuple[int, ...], Counter[bool]] = defaultdict(Counter)
        self.asked: Counter[tuple[int, ...]] = Counter()

    def __call__(self, subset: tuple[int, ...]) -> bool:
        self.asked[subset] += 1
        rng = random.Random(f"{self.seed}{subset}{self.asked[subset]}")
        if rng.random() < self.void:
            raise Unresolved
        answer = self.truth(subset) != (rng.random() < self.flips)
        self.answers[subset][answer] += 1
        return answer


def threshold(n: int, share: float, seed: int) -> Oracle:
    """Return an oracle that accepts the sets that reach this share of the weight."""
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
    """Check for any rate, true or not: the oracle errs at a rate of its own.

    Several workers also ask ahead, so only the oracle of a single worker has given no answer that the search ignored.
    """

    def run(workers: int) -> tuple[Erring, Reduction[int] | None]:
        oracle = Erring(threshold(n, share, seed), random.Random(seed).choice([0.0, 0.02, 0.3]), seed, void=0.05)
        options: dict[str, Any] = {"noise": Noise(flips), "certificate": certificate, "max_calls": 600}
        try:
            return oracle, minimize(range(n), oracle, workers=workers, **options)
        except NotReproduced:
            return oracle, None
        except ValueError:
            assert oracle.asked.total() >= 600  # not even the full set was settled
            return oracle, None

    oracle, result = run(1)
    together = run(workers)[1]
    if result is None or together is None:
        assert result is together
        return
    assert comparable(together) == comparable(result)
    assert result.kept in oracle.answers
    assert oracle.answers[result.kept][True] > oracle.answers[result.kept][False] or result.frozen
    assert result.kept == tuple(sorted(result.kept))


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("n", [32, 90])
def test_two_percent_flips_give_valid_results_for_few_more_calls(n: int, share: float) -> None:
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


def test_repeats_that_always_agree_are_no_evidence() -> None:
    """Check that such an oracle is recognised, and that no repeats are asked for after that."""
    truth = threshold(60, 0.7, 1)
    believed_noisy = minimize(range(60), truth, noise=Noise(0.3))
    assert believed_noisy.frozen
    assert truth(believed_noisy.kept)
    assert believed_noisy.disagreements == 0
    assert believed_noisy.repeats == 9  # 0.58 ** 9 is below 1 %, 0.58 ** 8 is not
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
