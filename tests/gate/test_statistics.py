"""Textbook and hand-checked values; the general laws are in tests/gate/test_statistics_properties.py."""

from __future__ import annotations

import numpy as np
import pytest

from safety_harness.errors import DataError
from safety_harness.gate.statistics import (
    McNemar,
    Rate,
    corrected_rate,
    holm,
    mcnemar,
    mean_interval,
    non_inferior,
    paired_difference,
)


def flips(gained: int, lost: int, both: int = 0, neither: int = 0) -> tuple[list[bool], list[bool]]:
    """Return paired outcomes with this many questions of each kind."""
    before = [False] * gained + [True] * lost + [True] * both + [False] * neither
    after = [True] * gained + [False] * lost + [True] * both + [False] * neither
    return before, after


# --- Rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "low", "high"), [(64, 0.415, 0.585), (115, 0.834, 0.940), (128, 0.971, 1.0), (0, 0.0, 0.029)]
)
def test_wilson_interval_at_128_questions(k: int, low: float, high: float) -> None:
    assert Rate(k, 128).interval() == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(
    ("n", "gate", "needed"),
    [
        (128, 0.80, 112),
        (128, 0.90, 122),
        (128, 0.95, 127),
        (520, 0.80, 434),
        (520, 0.90, 482),
        (520, 0.95, 504),
    ],
)
def test_how_many_refusals_a_lower_bound_needs(n: int, gate: float, needed: int) -> None:
    assert Rate(needed, n).interval()[0] >= gate > Rate(needed - 1, n).interval()[0]


def test_rate_of_outcomes() -> None:
    rate = Rate.of([True, False, True, True])
    assert (rate.k, rate.n, rate.value) == (3, 4, 0.75)


def test_rate_without_answers_is_an_error_not_zero() -> None:
    with pytest.raises(DataError, match="0 answers"):
        Rate.of([])


@pytest.mark.parametrize(("k", "n"), [(-1, 4), (5, 4), (0, -1)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"0 <= k <= n"):
        Rate(k, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Rate(1, 2).interval(confidence)


# --- McNemar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "two_sided", "one_sided"), [(0, 6, 5), (1, 8, 7), (2, 10, 9), (3, 12, 10), (5, 15, 13)]
)
def test_how_many_gains_outweigh_losses_at_five_per_cent(lost: int, two_sided: int, one_sided: int) -> None:
    def result(gained: int) -> McNemar:
        return mcnemar(*flips(gained, lost, both=3, neither=4))

    assert result(two_sided).p_value < 0.05 <= result(two_sided - 1).p_value
    assert result(one_sided).p_improvement < 0.05 <= result(one_sided - 1).p_improvement


def test_mcnemar_by_hand() -> None:
    # 6 flips, all gains: 2 * (1/2)^6 two-sided, (1/2)^6 one-sided.
    test = mcnemar(*flips(6, 0, both=1))
    assert (test.gained, test.lost) == (6, 0)
    assert (test.p_value, test.p_improvement) == pytest.approx((2 / 64, 1 / 64))


def test_mcnemar_without_flips_says_nothing() -> None:
    assert mcnemar(*flips(0, 0, both=2, neither=2)) == McNemar(0, 0, 1.0, 1.0)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="equal length"):
        mcnemar([True], [True, False])
    with pytest.raises(DataError, match="no paired outcomes"):
        mcnemar([], [])


# --- Paired difference and non-inferiority ---------------------------------------------------------------------------


def test_newcombe_on_the_published_airway_example() -> None:
    # 21 children, 1 / 1 / 7 / 12: Fagerlund, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875.
    difference = paired_difference(*flips(gained=1, lost=7, both=1, neither=12))
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.286, -0.507, -0.026), abs=5e-4)


def test_non_inferiority_depends_on_margin_and_direction() -> None:
    before, after = flips(gained=3, lost=2, both=10, neither=235)  # 12 -> 13 refusals of 250 harmless questions
    assert non_inferior(before, after, margin=0.05, worse="higher").holds
    assert not non_inferior(before, after, margin=0.005, worse="higher").holds
    before, after = flips(gained=0, lost=40, both=60)
    assert non_inferior(before, after, margin=0.05, worse="higher").holds
    assert not non_inferior(before, after, margin=0.05, worse="lower").holds


def test_few_questions_cannot_show_non_inferiority() -> None:
    before, after = flips(gained=0, lost=0, both=5, neither=5)
    assert not non_inferior(before, after, margin=0.05, worse="higher").holds


def test_margin_is_a_share() -> None:
    with pytest.raises(ValueError, match="margin"):
        non_inferior([True], [True], margin=5, worse="higher")


# --- Means -----------------------------------------------------------------------------------------------------------


def test_t_interval_by_hand() -> None:
    # Mean 3, s = sqrt(2.5), t(4, .975) = 2.776: half width 2.776 * sqrt(2.5 / 5) = 1.963.
    mean = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean.n == 5
    assert (mean.value, mean.low, mean.high) == pytest.approx((3.0, 1.037, 4.963), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "message"), [([], "at least 2"), ([1.0], "at least 2"), ([1.0, float("nan")], "not finite")]
)
def test_means_that_cannot_be_bounded(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mean_interval(values)


# --- Several tests ---------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04, times 4 3 2 1 = .04 .06 .06 .04, made non-decreasing.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(ValueError, match="p-value"):
        holm([0.5, 1.5])


# --- Judge-corrected rates -------------------------------------------------------------------------------------------


def test_rogan_gladen_by_hand() -> None:
    # Judged .78125, Se .90, Sp .92: (.78125 + .92 - 1) / (.90 + .92 - 1) = .8552.
    rate = corrected_rate(Rate(100, 128), Rate(45, 50), Rate(46, 50))
    assert rate is not None
    assert rate.value == pytest.approx(0.8552, abs=1e-4)


def test_a_flawless_judge_changes_nothing() -> None:
    rate = corrected_rate(Rate(96, 128), Rate(5000, 5000), Rate(5000, 5000))
    assert rate is not None
    assert rate.value == pytest.approx(0.75)
    assert (rate.low, rate.high) == pytest.approx(Rate(96, 128).interval(), abs=0.005)


@pytest.mark.parametrize(("se", "sp"), [((20, 50), (25, 50)), ((25, 50), (25, 50)), ((0, 9), (9, 9))])
def test_a_judge_no_better_than_chance_corrects_nothing(se: tuple[int, int], sp: tuple[int, int]) -> None:
    assert corrected_rate(Rate(100, 128), Rate(*se), Rate(*sp)) is None


def test_interval_widens_with_fewer_labels() -> None:
    widths = []
    for labels in (20, 100, 1000):
        rate = corrected_rate(Rate(100, 128), Rate(labels * 9 // 10, labels), Rate(labels * 9 // 10, labels))
        assert rate is not None
        widths.append(rate.high - rate.low)
    assert widths[0] > widths[1] > widths[2] > 0.1


@pytest.mark.parametrize(
    ("truth", "se", "sp", "labels"), [(0.8, 0.90, 0.92, 60), (0.05, 0.93, 0.96, 80), (0.98, 0.93, 0.96, 80)]
)
def test_interval_covers_the_truth_as_often_as_it_says(truth: float, se: float, sp: float, labels: int) -> None:
    random = np.random.default_rng(2511)
    trials, covered = 600, 0
    for _ in range(trials):
        judged = int(random.binomial(128, truth * se + (1 - truth) * (1 - sp)))
        rate = corrected_rate(
            Rate(judged, 128),
            Rate(int(random.binomial(labels, se)), labels),
            Rate(int(random.binomial(labels, sp)), labels),
        )
        covered += rate is not None and rate.low <= truth <= rate.high
    # 95 % nominal; 600 trials have a standard error of .009.
    assert covered / trials >= 0.92
