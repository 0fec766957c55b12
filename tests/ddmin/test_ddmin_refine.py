"""Units that split: coarse first, refined where needed, with the certificate of the finest level."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.ddmin import ArgumentError, Event, minimize

Unit = tuple[int, int]  # a run of leaves, from and to
Oracle = Callable[[tuple[Unit, ...]], bool]


def leaves(units: tuple[Unit, ...]) -> set[int]:
    return {leaf for start, end in units for leaf in range(start, end)}


def halves(unit: Unit) -> list[Unit]:
    start, end = unit
    middle = (start + end) // 2
    return [(start, middle), (middle, end)] if end - start > 1 else []


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Unit], Oracle]:
    """Runs of leaves of uneven length; some leaves are needed, or their weights must add up (some negative)."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    bounds = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    units = list(pairwise(bounds))
    rng = random.Random(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        needed = {i for i in range(bounds[-1]) if rng.random() < 0.15}
        return units, lambda subset: needed <= leaves(subset)
    weights = [rng.gauss(1, 0.8) for _ in range(bounds[-1])]
    share = rng.random()
    return units, lambda subset: sum(weights[i] for i in leaves(subset)) >= min(share * sum(weights), sum(weights))


@given(problems(), st.sampled_from(["monotone", "explicit"]), st.integers(1, 3), st.booleans())
def test_the_finest_level_is_reached_and_certified(
    problem: tuple[list[Unit], Oracle], certificate: Any, workers: int, prior: bool
) -> None:
    units, oracle = problem
    asked: list[tuple[Unit, ...]] = []

    def recording(subset: tuple[Unit, ...]) -> bool:
        asked.append(subset)
        return oracle(subset)

    result = minimize(
        units,
        recording,
        split=halves,
        certificate=certificate,
        workers=workers,
        weights=(lambda unit: random.Random(repr(unit)).random()) if prior else None,
    )
    assert oracle(result.kept)
    assert all(end - start == 1 for start, end in result.kept)
    assert leaves(result.kept) | leaves(result.removed) == leaves(tuple(units))
    assert not leaves(result.kept) & leaves(result.removed)
    if certificate == "explicit":
        assert result.minimal
        assert not any(oracle(tuple(u for u in result.kept if u != unit)) for unit in result.kept)
    if workers == 1:
        assert result.calls == len(asked) == len({frozenset(leaves(subset)) for subset in asked})


@given(problems(), st.integers(1, 30), st.sampled_from(["calls", "interrupt"]))
def test_a_stop_on_any_level_gives_an_accepted_set_of_that_level(
    problem: tuple[list[Unit], Oracle], budget: int, how: str
) -> None:
    units, oracle = problem
    count = 0

    def counting(subset: tuple[Unit, ...]) -> bool:
        nonlocal count
        if how == "interrupt" and count == budget:
            raise KeyboardInterrupt
        count += 1
        return oracle(subset)

    whole = minimize(units, oracle, split=halves)
    got = minimize(units, counting, split=halves, max_calls=budget if how == "calls" else None)
    assert got.calls >= count == min(budget, whole.calls)
    assert oracle(got.kept)
    if budget >= whole.calls:
        assert (got.kept, got.certificate, got.stopped) == (whole.kept, whole.certificate, None)
    else:
        assert got.stopped == ("calls" if how == "calls" else "interrupted")


def test_exact_calls_and_each_level_can_be_resumed(tmp_path: Path) -> None:
    needed = {700, 701, 702, 3000}

    def oracle(subset: tuple[Unit, ...]) -> bool:
        return needed <= leaves(subset)

    units = [(start, start + 256) for start in range(0, 4096, 256)]
    result = minimize(units, oracle, split=halves, journal=tmp_path / "answers")
    assert result.kept == ((700, 701), (701, 702), (702, 703), (3000, 3001))
    assert result.calls == 56

    def never(_: tuple[Unit, ...]) -> bool:
        pytest.fail("asked again")

    again = minimize(units, never, split=halves, journal=tmp_path / "answers")
    assert (again.kept, again.calls, again.replayed) == (result.kept, result.calls, result.calls)


def test_events_of_all_levels_and_target_size() -> None:
    events: list[Event] = []
    result = minimize([(0, 64)], lambda s: 5 in leaves(s), split=halves, on_event=events.append, target_size=1)
    assert result.kept == ((5, 6),)
    assert result.stopped == "size"
    assert sum(event.kind == "asked" for event in events) == result.calls


def test_weights_of_units_that_split_must_be_a_function() -> None:
    with pytest.raises(ArgumentError, match="as a function of the unit"):
        minimize([(0, 4)], lambda _: True, split=halves, weights=[1.0])
