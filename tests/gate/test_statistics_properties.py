"""Laws that every interval and test must obey, whatever the counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safety_harness.gate.statistics import (
    Rate,
    corrected_rate,
    holm,
    mcnemar,
    mean_interval,
    non_inferior,
    paired_difference,
)

counts = st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.floats(0.5, 0.999)
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)
p_lists = st.lists(st.floats(0, 1), max_size=12)


def split(rows: list[tuple[bool, bool]]) -> tuple[list[bool], list[bool]]:
    return [old for old, _ in rows], [new for _, new in rows]


@given(counts, confidences)
def test_interval_contains_the_rate_and_stays_in_range(count: tuple[int, int], confidence: float) -> None:
    rate = Rate(*count)
    low, high = rate.interval(confidence)
    assert 0 <= low <= rate.value <= high <= 1
    assert low < high


@given(counts, confidences)
def test_interval_rises_with_k_and_mirrors(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    low, high = Rate(k, n).interval(confidence)
    if k < n:
        next_low, next_high = Rate(k + 1, n).interval(confidence)
        assert next_low > low
        assert next_high > high
    assert Rate(n - k, n).interval(confidence) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(counts)
def test_more_confidence_is_wider(count: tuple[int, int]) -> None:
    narrow, wide = Rate(*count).interval(0.8), Rate(*count).interval(0.99)
    assert wide[0] <= narrow[0]
    assert narrow[1] <= wide[1]


@given(pairs)
def test_mcnemar_is_symmetric_and_sees_only_flips(rows: list[tuple[bool, bool]]) -> None:
    before, after = split(rows)
    forth, back = mcnemar(before, after), mcnemar(after, before)
    assert (forth.gained, forth.lost) == (back.lost, back.gained)
    assert forth.p_value == pytest.approx(back.p_value)
    assert 0 <= forth.p_improvement <= 1
    padded = mcnemar([*before, True, False], [*after, True, False])
    assert padded == forth


@given(pairs)
def test_mcnemar_improvement_favours_gains(rows: list[tuple[bool, bool]]) -> None:
    before, after = split(rows)
    more = mcnemar([*before, False], [*after, True])
    assert more.p_improvement <= mcnemar(before, after).p_improvement + 1e-12


@given(pairs, confidences)
def test_paired_interval_contains_the_difference_and_mirrors(rows: list[tuple[bool, bool]], confidence: float) -> None:
    before, after = split(rows)
    forth, back = paired_difference(before, after, confidence), paired_difference(after, before, confidence)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low), abs=1e-9)
    assert forth.value == pytest.approx(Rate.of(after).value - Rate.of(before).value)


@given(pairs, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_margin_never_loses_non_inferiority(rows: list[tuple[bool, bool]], one: float, two: float) -> None:
    before, after = split(rows)
    for worse in ("higher", "lower"):
        strict = non_inferior(before, after, margin=min(one, two), worse=worse)
        loose = non_inferior(before, after, margin=max(one, two), worse=worse)
        assert loose.holds or not strict.holds


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.floats(-5, 5))
def test_mean_interval_contains_the_mean_and_moves_with_the_data(values: list[float], shift: float) -> None:
    mean, moved = mean_interval(values), mean_interval([value + shift for value in values])
    assert mean.low <= mean.value <= mean.high
    assert mean.value == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
    assert (moved.low, moved.high) == pytest.approx((mean.low + shift, mean.high + shift), abs=1e-6)


@given(p_lists)
def test_holm_is_never_below_the_raw_value_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(raw <= new <= 1 for raw, new in zip(p_values, adjusted, strict=True))
    ranked = [new for _, new in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


@given(p_lists, st.floats(0.001, 0.2))
def test_holm_rejects_at_least_what_bonferroni_rejects(p_values: list[float], alpha: float) -> None:
    # A product that rounds to alpha itself may fall on either side; leave that case out.
    assume(all(abs(p * len(p_values) - alpha) > 1e-12 for p in p_values))
    adjusted = holm(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        if raw * len(p_values) < alpha:
            assert new < alpha


@given(counts, counts, counts)
def test_corrected_rate_is_a_share_within_its_interval(
    judged: tuple[int, int], se: tuple[int, int], sp: tuple[int, int]
) -> None:
    rate = corrected_rate(Rate(*judged), Rate(*se), Rate(*sp))
    if Rate(*se).value + Rate(*sp).value <= 1:
        assert rate is None
    if rate is not None:
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


@given(st.integers(0, 127), st.integers(60, 100), st.integers(60, 100))
def test_corrected_rate_rises_with_the_judged_rate(k: int, se: int, sp: int) -> None:
    lower, higher = (corrected_rate(Rate(count, 128), Rate(se, 100), Rate(sp, 100)) for count in (k, k + 1))
    assert lower is not None
    assert higher is not None
    assert lower.value <= higher.value
