"""Check that every way to drive a reduction gives the sequential result: ask and tell, threads, asyncio."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safety_harness.ddmin import (
    Answer,
    Ask,
    Event,
    Reducer,
    Unresolved,
    minimize,
    minimize_async,
    partial_result,
)
from tests.ddmin.shared import comparable

Oracle = Callable[[tuple[int, ...]], bool]


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, Oracle]:
    """Draw thresholds (some weights negative), conjunctions, and coins; some questions have no answer."""
    n, seed = draw(st.integers(1, 24)), draw(st.integers(0, 2**32))
    kind = draw(st.sampled_from(["threshold", "needed", "coins"]))
    rng = random.Random(seed)
    weights = [rng.gauss(1, 1) for _ in range(n)]
    share, void = rng.random(), draw(st.sampled_from([0.0, 0.0, 0.2]))
    needed = {i for i in range(n) if rng.random() < 0.2}

    def oracle(subset: tuple[int, ...]) -> bool:
        coin = random.Random(f"{seed}{subset}")
        if len(subset) == n:
            return True
        if coin.random() < void:
            raise Unresolved
        if kind == "threshold":
            return sum(weights[i] for i in subset) >= share * sum(weights)
        return needed <= set(subset) if kind == "needed" else coin.random() < 0.4

    return n, oracle


options = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(["adaptive", "halving", "ddmin"]),
        "certificate": st.sampled_from(["none", "monotone", "explicit"]),
        "check_empty": st.booleans(),
    },
    optional={"max_calls": st.integers(1, 40), "target_size": st.integers(0, 12)},
)


def trace(events: list[Event]) -> list[Event]:
    """Drop the estimates: threads estimate with other answers at hand."""
    return [replace(event, estimate=0) for event in events]


@given(problems(), options, st.integers(2, 6))
def test_threads_give_the_result_and_the_events_of_one(
    problem: tuple[int, Oracle], chosen: dict[str, Any], workers: int
) -> None:
    n, oracle = problem
    alone: list[Event] = []
    together: list[Event] = []
    expected = minimize(range(n), oracle, on_event=alone.append, **chosen)
    got = minimize(range(n), oracle, workers=workers, on_event=together.append, **chosen)
    assert comparable(got) == comparable(expected)
    assert trace(together) == trace(alone)
    assert expected.speculated == 0


@given(problems(), options, st.integers(1, 6), st.randoms(use_true_random=False))
def test_asyncio_gives_the_result_of_one_worker(
    problem: tuple[int, Oracle], chosen: dict[str, Any], workers: int, rng: random.Random
) -> None:
    """Let the answers come in any order."""
    n, oracle = problem

    async def answer(subset: tuple[int, ...]) -> bool:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        return oracle(subset)

    expected = minimize(range(n), oracle, **chosen)
    got = asyncio.run(minimize_async(range(n), answer, workers=workers, **chosen))
    assert comparable(got) == comparable(expected)


@given(problems(), st.integers(1, 8))
def test_ask_many_begins_with_the_next_question_and_repeats_none(problem: tuple[int, Oracle], wanted: int) -> None:
    n, oracle = problem
    reducer = Reducer(range(n))
    while asks := reducer.ask_many(wanted):
        assert asks[0] == reducer.ask()
        assert len({ask.question for ask in asks}) == len(asks) <= wanted
        assert all(ask.units == tuple(i for i in range(n) if i in ask.units) for ask in asks)
        try:
            reducer.tell(asks[0], oracle(asks[0].units))
        except Unresolved:
            reducer.tell(asks[0], Answer.UNRESOLVED)
    assert reducer.ask() is None


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_only_an_error_whose_turn_comes_ends_the_run(workers: int) -> None:
    """Break questions that a single worker never asks: they must not end the run of several workers either."""
    needed = {3, 20, 41}
    asked: set[tuple[int, ...]] = set()

    def recording(subset: tuple[int, ...]) -> bool:
        asked.add(subset)
        return needed <= set(subset)

    expected = minimize(range(56), recording)

    def breaking(subset: tuple[int, ...]) -> bool:
        if subset not in asked:
            raise OSError("never asked by one worker")
        return needed <= set(subset)

    got = minimize(range(56), breaking, workers=workers)
    assert comparable(got) == comparable(expected)

    def broken(subset: tuple[int, ...]) -> bool:
        if len(subset) < 30:
            raise OSError("the oracle broke")
        return needed <= set(subset)

    with pytest.raises(OSError, match="the oracle broke") as caught:
        minimize(range(56), broken, workers=workers)
    best = partial_result(caught.value)
    assert best is not None
    assert needed <= set(best.kept)


def test_threads_are_used_and_save_time() -> None:
    seen: set[int] = set()

    def slow(subset: tuple[int, ...]) -> bool:
        seen.add(threading.get_ident())
        time.sleep(0.02)  # long enough to outweigh the search's own time on a busy machine
        return {3, 20, 41, 50, 60, 77} <= set(subset)

    begun = time.monotonic()
    alone = minimize(range(90), slow)
    between = time.monotonic()
    together = minimize(range(90), slow, workers=4)
    assert comparable(together) == comparable(alone)
    assert len(seen) >= 3
    assert time.monotonic() - between < 0.9 * (between - begun)


def test_a_cancelled_coroutine_carries_the_best_so_far() -> None:
    """Cancel with calls under way, and check that none is left running."""
    open_calls = 0

    async def main() -> BaseException:
        async def oracle(subset: tuple[int, ...]) -> bool:
            nonlocal open_calls
            open_calls += 1
            try:
                await asyncio.sleep(0 if len(subset) > 20 else 60)
            finally:
                open_calls -= 1
            return {3, 20} <= set(subset)

        task = asyncio.create_task(minimize_async(range(56), oracle, workers=3))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value

    best = partial_result(asyncio.run(main()))
    assert best is not None
    assert {3, 20} <= set(best.kept)
    assert len(best.kept) < 56
    assert open_calls == 0


class AskTell(RuleBasedStateMachine):
    """Answers in any order, early or late or twice, that give what the plain function gives."""

    @initialize(problem=problems(), chosen=options)
    def start(self, problem: tuple[int, Oracle], chosen: dict[str, Any]) -> None:
        self.n, self.oracle = problem
        self.reducer = Reducer(range(self.n), **chosen)
        self.expected = minimize(range(self.n), self.oracle, **chosen)
        self.early: list[Ask[int]] = []

    def answer(self, ask: Ask[int]) -> None:
        try:
            self.reducer.tell(ask, self.oracle(ask.units))
        except Unresolved:
            self.reducer.tell(ask, Answer.UNRESOLVED)

    @rule()
    def answer_the_next(self) -> None:
        ask = self.reducer.ask()
        if ask is not None:
            self.answer(ask)

    @rule(wanted=st.integers(1, 6), pick=st.integers(0, 5))
    def answer_one_ahead(self, wanted: int, pick: int) -> None:
        asks = self.reducer.ask_many(wanted)
        if asks:
            self.early.append(asks[pick % len(asks)])
            self.answer(self.early[-1])

    @precondition(lambda self: getattr(self, "early", None))
    @rule(pick=st.integers(0, 99))
    def answer_again(self, pick: int) -> None:
        self.answer(self.early[pick % len(self.early)])

    @rule()
    def asking_is_idempotent(self) -> None:
        assert self.reducer.ask() == self.reducer.ask()

    @invariant()
    def best_so_far_was_accepted(self) -> None:
        if getattr(self, "reducer", None) and self.reducer.has_result:
            assert self.oracle(self.reducer.result().kept)

    def teardown(self) -> None:
        if getattr(self, "reducer", None) is None:
            return
        while (ask := self.reducer.ask()) is not None:
            self.answer(ask)
        assert comparable(self.reducer.result()) == comparable(self.expected)


TestAskTell = AskTell.TestCase
TestAskTell.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
