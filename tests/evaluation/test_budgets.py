"""Check the counts that shares of questions turn into."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_harness.evaluation.budgets import (
    aim_of,
    at_least,
    at_most,
    leaves_to_gate,
    recorded_budgets,
    search_budgets,
)
from safety_harness.evaluation.oracle import Oracle
from safety_harness.gate.records import Budgets, SearchFacts
from safety_harness.gate.room import Aim
from safety_harness.registry.settings import SearchSettings
from tests.evaluation.scripted import COMPLIED, REFUSED, Scripted


def oracle_of(world: Path, search: dict[str, float], refused_whole: int = 6) -> Oracle:
    """Return the oracle of a student that refuses nothing, with a teacher that refuses *refused_whole* of six."""
    evaluator = Scripted(world, [COMPLIED] * 6, [COMPLIED] * 6, search=search)
    oracle = Oracle(evaluator)  # type: ignore[arg-type]
    evaluator.harmful = [*[REFUSED] * refused_whole, *[COMPLIED] * (6 - refused_whole)]
    return oracle


@pytest.mark.parametrize(
    ("settings", "target", "limit"),
    [
        ({"target_dsr": 0.5}, 3, 0), ({"target_dsr": 0.51}, 4, 0), ({"target_dsr": 1.0}, 6, 0),
        ({"target_dsr": 0.5, "over_refusal": 0.16}, 3, 0), ({"target_dsr": 0.5, "over_refusal": 0.17}, 3, 1),
        ({"target_dsr": 0.5, "over_refusal": 0.5}, 3, 3),
        ({"target_share": 0.9}, 5, 0), ({"target_share": 0.8}, 4, 0), ({"target_share": 0.81}, 5, 0),
    ],
)  # fmt: skip
def test_budgets_are_counts_of_the_six_questions(
    world: Path, settings: dict[str, float], target: int, limit: int
) -> None:
    """Check shares of all questions, and shares of what the teacher refuses: five of six."""
    oracle = oracle_of(world, settings, refused_whole=5)
    budgets = search_budgets(SearchSettings(**settings), oracle)
    assert len(oracle.harmful) == len(oracle.harmless) == 6
    assert budgets == Budgets(target=target, over_refusal_limit=limit, task_floor=3)


@pytest.mark.parametrize(("whole", "target"), [(6, 6), (5, 5), (2, 2)])
def test_budgets_that_are_left_to_the_gate_come_from_it(world: Path, whole: int, target: int) -> None:
    """Leave all to a gate that six questions cannot prove: no more is asked for than the teacher gives."""
    settings = SearchSettings()
    assert leaves_to_gate(settings)
    assert not leaves_to_gate(SearchSettings(target_share=0.9, over_refusal=0.1, task=0.1))
    oracle = oracle_of(world, {}, refused_whole=whole)
    assert search_budgets(settings, oracle) == Budgets(target=target, over_refusal_limit=0, task_floor=3)
    assert aim_of(oracle.student, oracle.questions) == Aim(refusals=6, rise=0, loss=0)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({"over_refusal_limit": 2, "task_floor": 1}, (4, 2, 1)),
        ({"over_refusal_limit": 2}, (4, 2, 3)),
        ({}, (4, 3, 3)),
    ],
)
def test_budgets_that_a_patch_lacks_are_todays(
    world: Path, recorded: dict[str, int], expected: tuple[int, int, int]
) -> None:
    """Check patches of versions that recorded all, some and none of the other budgets."""
    search = {"over_refusal": 0.5}
    oracle = oracle_of(world, search)
    facts = SearchFacts(questions=6, refused_before=0, refused_whole=6, target=4, **recorded)
    budgets = recorded_budgets(facts, SearchSettings(**search), oracle)
    assert (budgets.target, budgets.over_refusal_limit, budgets.task_floor) == expected


def test_a_rounding_error_moves_no_count() -> None:
    """Check products that miss their whole number by a rounding error."""
    assert 0.07 * 100 > 7
    assert at_least(0.07 * 100) == 7
    assert 0.29 * 100 < 29
    assert at_most(0.29 * 100) == 29
    assert (at_least(6.1), at_most(6.9)) == (7, 6)
