"""Choose a search by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from safety_harness.ddmin.classic import Classic
from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.guided import adaptive
from safety_harness.ddmin.halving import Halving
from safety_harness.ddmin.types import Plan, PriorOrder, Question, Strategy

STRATEGIES: Mapping[str, Strategy] = {"adaptive": adaptive, "halving": Halving, "ddmin": Classic}


def choose(name: str, order: PriorOrder) -> Callable[[Question], Plan]:
    """Return a function that makes the plan of this strategy for a set. Raises ArgumentError for unknown names.

    order: the original position of each rank where there is a prior, otherwise None.
    """
    if name not in STRATEGIES:
        raise ArgumentError(f"unknown strategy {name!r}; choose one of: {', '.join(sorted(STRATEGIES))}")
    strategy = STRATEGIES[name]
    return lambda kept: strategy(kept, order)
