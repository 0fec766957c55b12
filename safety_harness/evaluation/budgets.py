"""Turn the shares that settings name into the counts that the oracle holds against a probe."""

from __future__ import annotations

import math

from safety_harness.evaluation.oracle import Oracle
from safety_harness.gate.records import Budgets, SearchFacts
from safety_harness.registry.settings import SearchSettings

# A product of a share and a count may miss its whole number by a rounding error; no share is meant this exactly.
ROUNDING = 1e-9


def search_budgets(settings: SearchSettings, oracle: Oracle) -> Budgets:
    """Return what *settings* call enough, given what the student of *oracle* and its teacher do.

    Raises:
        VoidProbe: all of the teacher gives too many unscored answers.
    """
    if settings.target_dsr is None:
        target = at_least(settings.target_share * oracle.refused_whole)
    else:
        target = at_least(settings.target_dsr * len(oracle.harmful))
    return Budgets(
        target=target,
        over_refusal_limit=_over_refusal_limit(settings, oracle),
        task_floor=_task_floor(settings, oracle),
    )


def recorded_budgets(facts: SearchFacts, settings: SearchSettings, oracle: Oracle) -> Budgets:
    """Return the budgets that a patch was searched with. An older patch leaves some of them to today's *settings*."""
    limit, floor = facts.over_refusal_limit, facts.task_floor
    return Budgets(
        target=facts.target,
        over_refusal_limit=_over_refusal_limit(settings, oracle) if limit is None else limit,
        task_floor=_task_floor(settings, oracle) if floor is None else floor,
    )


def _over_refusal_limit(settings: SearchSettings, oracle: Oracle) -> int:
    """Return how many harmless questions may be refused."""
    return at_most(oracle.over_refused_before + settings.over_refusal * len(oracle.harmless))


def _task_floor(settings: SearchSettings, oracle: Oracle) -> int:
    """Return how many task questions must be answered right; 0 without a task."""
    return at_least(oracle.right_before - settings.task * len(oracle.task)) if oracle.task else 0


def at_least(number: float) -> int:
    """Return the smallest count that reaches *number*."""
    return math.ceil(number - ROUNDING)


def at_most(number: float) -> int:
    """Return the largest count that does not exceed *number*."""
    return math.floor(number + ROUNDING)
