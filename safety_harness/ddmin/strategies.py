"""The searches by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from safety_harness.ddmin.classic import Classic
from safety_harness.ddmin.errors import ArgumentError
from safety_harness.ddmin.guided import adaptive
from safety_harness.ddmin.halving import Halving
from safety_harness.ddmin.types import Plan, Question, Ranks, Strategy

STRATEGIES: Mapping[str, Strategy] = {"adaptive": adaptive, "halving": Halving, "ddmin": Classic}


def choose(name: str, order: Ranks) -> Callable[[Question], Plan]:
    """Makes plans of that strategy; `order` gives the original position of each rank if there is a prior."""
    if name not in STRATEGIES:
        raise ArgumentError(f"unknown strategy {name!r}; choose one of: {', '.join(sorted(STRATEGIES))}")
    return partial(_make, STRATEGIES[name], order)


def _make(strategy: Strategy, order: Ranks, kept: Question) -> Plan:
    return strategy(kept, order)
