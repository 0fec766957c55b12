"""The entry: checks the arguments and both ends, runs the search, then the proof."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safety_harness.ddmin.adaptive import adaptive
from safety_harness.ddmin.certify import certify
from safety_harness.ddmin.classic import ddmin
from safety_harness.ddmin.errors import ArgumentError, NotReproduced, attach_partial
from safety_harness.ddmin.ledger import BudgetSpent, Ledger
from safety_harness.ddmin.types import Answer, Event, Plan, Question, Reduction, Stop, Strategy, T

STRATEGIES: Mapping[str, Strategy] = {"adaptive": adaptive, "ddmin": ddmin}


def minimize(
    units: Sequence[T],
    oracle: Callable[[tuple[T, ...]], bool],
    *,
    strategy: str = "adaptive",
    weights: Sequence[float] | None = None,
    max_calls: int | None = None,
    max_seconds: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    assume: Mapping[frozenset[T], bool] | None = None,
) -> Reduction[T]:
    """A subset of `units` that the oracle accepts and from which no single unit can be left out.

    That holds for any deterministic oracle, monotone or not. If the oracle is monotone (adding units never
    turns true into false) the result is minimal in the strong sense, too: no proper subset is accepted.

    units: hashable, no two equal. oracle: gets a subset as a tuple in original order.
    strategy: a key of STRATEGIES; "adaptive" asks least, "ddmin" is the algorithm of 2002, for comparison.
    weights: one importance per unit; those of small weight are tried first, so those of large weight tend to
        stay. They change what is asked and which minimal set is found, never whether it is one.
    max_calls, max_seconds: budget of distinct oracle calls (the full and the empty set included) and of wall
        time, looked at before each call: a call under way is not cut short.
    on_event: called at every step, e.g. for a progress bar.
    assume: answers of this same oracle known beforehand, e.g. {frozenset(units): True}; they count as seen,
        are never asked, and cost no budget.

    The full set is asked first, then the empty set: if the oracle accepts that, `kept` is () after two calls.
    When the budget ends or on Ctrl-C the best set so far is returned, with `stopped` set; a Ctrl-C before the
    full set was accepted has nothing to return and propagates. The oracle may raise Unresolved to say that
    there is no answer. Any other exception, from `on_event` as well, propagates unchanged and carries the
    best set so far: `partial_result(error)`.

    Raises ArgumentError for arguments that cannot be used, NotReproduced if the oracle does not accept the
    full set, BadAnswer if it returns something other than a bool.
    """
    every = _check_units(units)
    plan = _choose(strategy)
    order = _ordered(every, weights)
    _check_budget(max_calls, max_seconds)
    known = _known_answers(every, assume)
    ledger = Ledger(every, oracle, known=known, max_calls=max_calls, max_seconds=max_seconds, on_event=on_event)
    try:
        stopped = _run(ledger, plan, order)
    except KeyboardInterrupt:
        if ledger.best is None:
            raise
        stopped = "interrupted"
    except BaseException as error:
        if ledger.best is not None:
            attach_partial(error, ledger.reduction(None))
        raise
    return ledger.reduction(stopped)


def _run(ledger: Ledger[Any], strategy: Strategy, order: Sequence[int]) -> Stop | None:
    """Both ends, the search, the proof; returns what stopped it early, if anything did."""
    ledger.begin("check")
    _check_full(ledger, len(order))
    try:
        if ledger.ask(frozenset()) is Answer.TRUE:
            return None
        ledger.begin("search")
        kept = _drive(strategy(order), ledger)
        ledger.begin("certify")
        _drive(certify(kept), ledger)
    except BudgetSpent as spent:
        return spent.reason
    return None


def _drive(plan: Plan, ledger: Ledger[Any]) -> Sequence[int]:
    """Answer a plan's questions until it returns."""
    answer: Answer | None = None
    while True:
        try:
            question = next(plan) if answer is None else plan.send(answer)
        except StopIteration as end:
            kept: Sequence[int] = end.value
            return kept
        answer = ledger.ask(question)


def _check_full(ledger: Ledger[Any], count: int) -> None:
    answer = ledger.ask(frozenset(range(count)))
    if answer is Answer.TRUE:
        return
    said = "has no answer (Unresolved)" if answer is Answer.UNRESOLVED else "is false"
    raise NotReproduced(
        f"the oracle {said} on the full set of {count} units, so there is nothing to reduce; "
        "check that the oracle is deterministic and that the units together do what is wanted"
    )


def _check_units(units: Sequence[T]) -> tuple[T, ...]:
    every = tuple(units)
    first: dict[T, int] = {}
    for position, unit in enumerate(every):
        try:
            earlier = first.setdefault(unit, position)
        except TypeError as error:
            raise ArgumentError(
                f"unit {position} ({unit!r}) is not hashable; pass e.g. names, indices or tuples"
            ) from error
        if earlier != position:
            raise ArgumentError(f"units {earlier} and {position} are equal ({unit!r}); units must be distinct")
    return every


def _choose(strategy: str) -> Strategy:
    if strategy not in STRATEGIES:
        raise ArgumentError(f"unknown strategy {strategy!r}; choose one of: {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[strategy]


def _ordered(units: tuple[T, ...], weights: Sequence[float] | None) -> list[int]:
    """Positions, least important first; equal weights keep the original order."""
    if weights is None:
        return list(range(len(units)))
    if len(weights) != len(units):
        raise ArgumentError(f"{len(weights)} weights for {len(units)} units; give exactly one per unit")
    for position, weight in enumerate(weights):
        if not math.isfinite(weight):
            raise ArgumentError(f"the weight of unit {position} is {weight}; weights must be finite numbers")
    return sorted(range(len(units)), key=lambda i: weights[i])


def _check_budget(max_calls: int | None, max_seconds: float | None) -> None:
    if max_calls is not None and max_calls < 1:
        raise ArgumentError(f"max_calls is {max_calls}; the full set alone takes one call, so use at least 1")
    if max_seconds is not None and not max_seconds > 0:
        raise ArgumentError(f"max_seconds is {max_seconds}; use a number above 0")


def _known_answers(units: tuple[T, ...], assume: Mapping[frozenset[T], bool] | None) -> dict[Question, Answer]:
    position = {unit: i for i, unit in enumerate(units)}
    known: dict[Question, Answer] = {}
    for subset, answer in (assume or {}).items():
        foreign = [unit for unit in subset if unit not in position]
        if foreign:
            raise ArgumentError(f"assume names {foreign[0]!r}, which is not among the units")
        if not isinstance(answer, bool):
            raise ArgumentError(f"assume holds {answer!r} for a set of {len(subset)} units; use True or False")
        known[frozenset(position[unit] for unit in subset)] = Answer.TRUE if answer else Answer.FALSE
    return known
