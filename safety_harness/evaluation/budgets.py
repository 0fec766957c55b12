"""Turn the shares that settings name into the counts that the oracle holds against a probe.

A share that the settings leave open is derived from the gate (:mod:`safety_harness.gate.room`).
"""

from __future__ import annotations

import math

from safety_harness.errors import ConfigError, DataError
from safety_harness.evaluation.oracle import Oracle
from safety_harness.gate.records import Budgets, SearchFacts
from safety_harness.gate.room import MOST_OF_TEACHER, Aim, Sizes, aim
from safety_harness.registry.load import Student
from safety_harness.registry.settings import SearchSettings
from safety_harness.registry.splits import StudentSplits

# A product of a share and a count may miss its whole number by a rounding error; no share is meant this exactly.
ROUNDING = 1e-9


def search_budgets(settings: SearchSettings, oracle: Oracle) -> Budgets:
    """Return what *settings* call enough, given what the student of *oracle* and its teacher do.

    Raises:
        VoidProbe: all of the teacher gives too many unscored answers.
        ConfigError: a share of each kind of harm is asked for, and no question names its kind.
    """
    if settings.target_dsr is not None:
        target = at_least(settings.target_dsr * len(oracle.harmful))
    elif settings.target_share is not None:
        target = at_least(settings.target_share * oracle.refused_whole)
    else:
        target = min(_aim(oracle).refusals, at_least(MOST_OF_TEACHER * oracle.refused_whole))
    return Budgets(
        target=target,
        floors=_floors(settings, oracle),
        over_refusal_limit=_over_refusal_limit(settings, oracle),
        task_floor=_task_floor(settings, oracle),
    )


def _floors(settings: SearchSettings, oracle: Oracle) -> dict[str, int]:
    """Return the fewest refusals of each kind of harm."""
    share = settings.kind_share
    if share is None:
        return {}
    if not oracle.kinds:
        raise ConfigError(
            f"{oracle.harmful.name}: kind_share is set, and no question there names its kind. Give each a category, or "
            "remove the setting."
        )
    return {kind: at_most(share * refused) for kind, refused in oracle.refused_whole_of_kinds.items()}


def recorded_budgets(facts: SearchFacts, settings: SearchSettings, oracle: Oracle) -> Budgets:
    """Return the budgets that a patch was searched with. An older patch leaves some of them to today's *settings*.

    Raises:
        DataError: a floor is of a kind of harm that no question has any more.
    """
    if unknown := facts.floors.keys() - oracle.kinds:
        raise DataError(
            f"{oracle.student.id}: the patch was searched for with questions of the kind {min(unknown)!r}, which none "
            "has today. Search again."
        )
    limit, floor = facts.over_refusal_limit, facts.task_floor
    return Budgets(
        target=facts.target,
        floors=facts.floors,
        over_refusal_limit=_over_refusal_limit(settings, oracle) if limit is None else limit,
        task_floor=_task_floor(settings, oracle) if floor is None else floor,
    )


def leaves_to_gate(settings: SearchSettings) -> bool:
    """Return whether *settings* leave a budget to be derived from the gate."""
    open_target = settings.target_dsr is None and settings.target_share is None
    return open_target or settings.over_refusal is None or settings.task is None


def aim_of(student: Student, questions: StudentSplits) -> Aim:
    """Return the counts that a search of *student* asks for where its settings leave them to the gate."""
    harmful, harmless, task = questions.harmful, questions.harmless, questions.task
    searched = Sizes(len(harmful.search), len(harmless.search), len(task.search) if task else 0)
    held_out = Sizes(len(harmful.report), len(harmless.report), len(task.report) if task else 0)
    return aim(searched, held_out, student.gate)


def _aim(oracle: Oracle) -> Aim:
    return aim_of(oracle.student, oracle.questions)


def _over_refusal_limit(settings: SearchSettings, oracle: Oracle) -> int:
    """Return how many harmless questions may be refused."""
    if settings.over_refusal is None:
        return oracle.over_refused_before + _aim(oracle).rise
    return at_most(oracle.over_refused_before + settings.over_refusal * len(oracle.harmless))


def _task_floor(settings: SearchSettings, oracle: Oracle) -> int:
    """Return how many task questions must be answered right; 0 without a task."""
    if not oracle.task:
        return 0
    if settings.task is None:
        return max(0, oracle.right_before - _aim(oracle).loss)
    return at_least(oracle.right_before - settings.task * len(oracle.task))


def at_least(number: float) -> int:
    """Return the smallest count that reaches *number*."""
    return math.ceil(number - ROUNDING)


def at_most(number: float) -> int:
    """Return the largest count that does not exceed *number*."""
    return math.floor(number + ROUNDING)
