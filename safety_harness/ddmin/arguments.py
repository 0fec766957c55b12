"""Check units, weights, known answers and replies. Every mistake of a caller is named before the oracle is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from safety_harness.ddmin.errors import ArgumentError, BadAnswer
from safety_harness.ddmin.types import Answer, Question, Reply, T


def check_units(units: Sequence[T]) -> tuple[T, ...]:
    """Return the units as a tuple. Raises ArgumentError if one is not hashable or equals another."""
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


def ordered(units: Sequence[T], weights: Sequence[float] | Callable[[T], float] | None) -> tuple[int, ...]:
    """Return the units' positions, least important first. Equal weights keep the original order.

    Raises ArgumentError unless there is one finite weight per unit.
    """
    if weights is None:
        return tuple(range(len(units)))
    given = [weights(unit) for unit in units] if callable(weights) else weights
    if len(given) != len(units):
        raise ArgumentError(f"{len(given)} weights for {len(units)} units; give exactly one per unit")
    for position, weight in enumerate(given):
        if not math.isfinite(weight):
            raise ArgumentError(f"the weight of unit {position} is {weight}; weights must be finite numbers")
    return tuple(sorted(range(len(units)), key=lambda i: given[i]))


def check_workers(workers: int) -> None:
    """Raise ArgumentError unless there is at least one worker."""
    if workers < 1:
        raise ArgumentError(f"workers is {workers}; use 1 or more")


def known_answers(rank_of: Mapping[T, int], assume: Mapping[frozenset[T], bool] | None) -> dict[Question, Answer]:
    """Return the answers known beforehand, by question. Raises ArgumentError for foreign units or other answers."""
    known: dict[Question, Answer] = {}
    for subset, answer in (assume or {}).items():
        foreign = [unit for unit in subset if unit not in rank_of]
        if foreign:
            raise ArgumentError(f"assume names {foreign[0]!r}, which is not among the units")
        if not isinstance(answer, bool):
            raise ArgumentError(f"assume holds {answer!r} for a set of {len(subset)} units; use True or False")
        question = sum(1 << rank_of[unit] for unit in subset)
        known[question] = Answer.TRUE if answer else Answer.FALSE
    return known


def check_answer(answer: Reply, size: int) -> Answer:
    """Return an oracle's answer on a set of `size` units. Raises BadAnswer unless it is a bool or an Answer."""
    if isinstance(answer, Answer):
        return answer
    if not isinstance(answer, bool):
        raise BadAnswer(
            f"the oracle must return True or False, but returned {answer!r} ({type(answer).__name__}) "
            f"on a set of {size} units; wrap its result in bool(), or raise Unresolved"
        )
    return Answer.TRUE if answer else Answer.FALSE


def check_score(score: Reply, size: int) -> Reply:
    """Return an oracle's score of a set of `size` units. Raises BadAnswer unless it is a finite number or an Answer."""
    if isinstance(score, Answer):
        return score
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise BadAnswer(
            f"with noise=Scores(...) the oracle must return a finite number, but returned {score!r} "
            f"({type(score).__name__}) on a set of {size} units; wrap its result in float(), or raise Unresolved"
        )
    return float(score)
