"""Check what ends a reduction early: a budget, an interrupt, an error, a full set that is not accepted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import safety_harness.ddmin as package
from safety_harness.ddmin import Event, partial_result, reducer
from safety_harness.ddmin.errors import BadAnswer, NotReproduced, Unresolved
from tests.ddmin.shared import EACH, minimize, needs


@EACH
def test_false_on_the_full_set_is_not_reproduced(strategy: str) -> None:
    with pytest.raises(NotReproduced, match="is false on the full set of 5 units") as caught:
        minimize(range(5), lambda _: False, strategy=strategy)
    assert partial_result(caught.value) is None


@pytest.mark.parametrize(
    ("raised", "leaves", "message"),
    [(Unresolved(), NotReproduced, "has no answer"), (KeyboardInterrupt("now"), KeyboardInterrupt, "now")],
)
def test_without_the_full_set_there_is_nothing_to_return(
    raised: BaseException, leaves: type[BaseException], message: str
) -> None:
    def oracle(_: tuple[int, ...]) -> bool:
        raise raised

    with pytest.raises(leaves, match=message) as caught:
        minimize(range(5), oracle)
    assert partial_result(caught.value) is None


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_an_oracle_that_returns_no_bool_keeps_the_best_so_far(answer: object) -> None:
    def oracle(subset: tuple[int, ...]) -> Any:
        return True if len(subset) >= 6 else answer if subset else False

    with pytest.raises(BadAnswer, match="must return True or False") as caught:
        minimize(range(8), oracle, strategy="ddmin")
    partial = partial_result(caught.value)
    assert partial is not None
    assert len(partial.kept) == 8
    assert "best so far: 8 of 8 units, not proven minimal" in caught.value.__notes__[0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where this process was started in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_real_interrupt_keeps_the_best_so_far() -> None:
    def oracle(subset: tuple[int, ...]) -> bool:
        if len(subset) == 1:
            signal.raise_signal(signal.SIGINT)
        return {3, 5} <= set(subset)

    result = minimize(range(8), oracle, strategy="ddmin")
    assert result.stopped == "interrupted"
    assert {3, 5} <= set(result.kept)
    assert str(result) == f"{len(result.kept)} of 8 units, not proven minimal, stopped: interrupted"


@pytest.mark.parametrize("error", [StopIteration("oracle"), GeneratorExit("oracle"), SystemExit(3)])
def test_odd_exceptions_of_the_oracle_propagate_too(error: BaseException) -> None:
    def oracle(subset: tuple[int, ...]) -> bool:
        if 0 < len(subset) < 8:
            raise error
        return len(subset) == 8

    with pytest.raises(type(error)) as caught:
        minimize(range(8), oracle)
    partial = partial_result(caught.value)
    assert partial is not None
    assert partial.kept == tuple(range(8))


def test_an_exception_of_the_listener_keeps_the_best_so_far() -> None:
    def listener(event: Event) -> None:
        if event.kind == "accepted" and event.size < 8:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError) as caught:
        minimize(range(8), needs(7), on_event=listener)
    partial = partial_result(caught.value)
    assert partial is not None
    assert len(partial.kept) < 8


@EACH
def test_seconds_stop_before_the_next_call(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(reducer, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def oracle(subset: tuple[int, ...]) -> bool:
        now[0] += 4.0
        return {3, 40} <= set(subset)

    result = minimize(range(56), oracle, strategy=strategy, max_seconds=10.0)
    assert (result.calls, result.seconds, result.stopped) == (3, 12.0, "seconds")
    assert {3, 40} <= set(result.kept)
    assert not result.minimal


def test_budget_of_one_call_returns_the_full_set_untested() -> None:
    result = minimize("abc", lambda subset: "b" in subset, max_calls=1)
    assert (result.kept, result.calls, result.stopped) == (("a", "b", "c"), 1, "calls")
    assert result.certificate == dict.fromkeys("abc", "untested")
    assert not result.minimal


def test_target_size_ends_the_search() -> None:
    result = package.minimize(range(100), needs(3), target_size=20)
    assert result.stopped == "size"
    assert 1 <= len(result.kept) <= 20


def test_there_is_no_result_before_a_set_was_accepted() -> None:
    with pytest.raises(ValueError, match="no set has been accepted"):
        package.Reducer(range(8)).result()
