"""Check the search on models that really refuse: its patch is enough, and nothing in it is spare."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from safety_harness.errors import DataError, VoidProbe
from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Outcome
from safety_harness.search.find import find_patch, select
from safety_harness.search.reduce import search
from safety_harness.weights.checkpoint import Checkpoint
from tests.refusal_world import entry
from tests.search.probing import accepted_by, accepting, cached, direct_minimality, probed


@pytest.mark.parametrize(
    ("strategy", "prior", "grain"),
    [
        ("adaptive", "contrast", "channel"),
        ("adaptive", "contrast", "module"),
        ("adaptive", "descent", "channel"),
        ("adaptive", "norm", "channel"),
        ("adaptive", "descent", "component"),
        ("ddmin", "norm", "module"),
    ],
)
def test_a_patch_is_enough_and_1_minimal(world: Path, strategy: str, prior: str, grain: str) -> None:
    """Ask a new oracle about the patch, and about it without each unit."""
    chosen = entry(world, search={"strategy": strategy, "prior": prior, "grain": grain})
    evaluator = open_evaluator(chosen)
    before = {name: tensor.clone() for name, tensor in evaluator.generator.model.state_dict().items()}
    patch = find_patch(evaluator)
    assert all(torch.equal(before[n], t) for n, t in evaluator.generator.model.state_dict().items())
    assert (patch.found, patch.reason, patch.minimal) == (True, "found", True)
    assert patch.certificate == dict.fromkeys(patch.units, "tested")
    assert 0 < len(patch.units) < patch.candidates == len(evaluator.units) == 21
    fresh = open_evaluator(chosen)
    units = select(fresh, patch)
    assert tuple(unit.id for unit in units) == patch.units
    assert accepted_by(fresh, units)
    assert direct_minimality(fresh, units) == dict.fromkeys(patch.units, False)
    assert patch.parameters == sum(unit.parameters for unit in units)
    student = Checkpoint(world / "student")
    assert patch.share == pytest.approx(patch.parameters / student.parameters)
    sizes = sum(math.prod(student.shapes[name]) for unit in units for name in unit.tensors)
    assert patch.changed == (sizes if grain == "component" else None)


def test_components_of_another_machine_are_not_taken_for_those_that_were_searched(world: Path) -> None:
    """Search, and open the patch where a matrix decomposes otherwise: it is refused, and channels need no digest."""
    evaluator = open_evaluator(entry(world, search={"grain": "component", "prior": "norm", "target_share": 0.5}))
    patch = find_patch(evaluator)
    assert patch.found
    units = select(evaluator, patch)
    assert patch.numbers == evaluator.transplanter.digest(units)
    left, right = evaluator.transplanter.factors(units[0].parts[0], units[0].rank)
    left[:, list(units[0].channels or (0,))] *= 1.01
    with pytest.raises(DataError, match="are other numbers here than where they were searched for"):
        select(evaluator, patch)
    assert right.isfinite().all()
    plain = find_patch(open_evaluator(entry(world, search={"grain": "module", "prior": "norm"})))
    assert (plain.numbers, plain.changed) == (None, None)


@pytest.mark.parametrize("grain", ["channel", "module"])
def test_a_patch_moves_the_teachers_numbers(world: Path, grain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a patch of a tenth of the parameters, which in this small world is never enough by itself."""
    evaluator, teacher = open_evaluator(entry(world, search={"grain": grain})), Checkpoint(world / "good")
    tenth = 0.1 * sum(unit.parameters for unit in evaluator.units)
    probed(monkeypatch, accepting(lambda units: sum(unit.parameters for unit in units) >= tenth))
    patch = find_patch(evaluator)
    units = select(evaluator, patch)
    assert tuple(unit.id for unit in units) == patch.units
    assert tenth <= patch.parameters == sum(unit.parameters for unit in units) < 3 * tenth
    assert all(patch.parameters - unit.parameters < tenth for unit in units)
    assert any(unit.channels for unit in units) == (grain == "channel")
    tensors = evaluator.transplanter.moving(units)
    assert set(tensors) == {name for unit in units for name in unit.tensors}
    for unit in units:
        for spot in (part.disk for part in unit.parts):
            channels = torch.tensor(unit.channels or range(spot.shape[spot.axis]))
            assert torch.equal(tensors[spot.name], teacher.tensor(spot.name).index_select(spot.axis, channels))


@pytest.mark.parametrize(("together", "modules"), [("block", {3, 4}), ("layer", {6, 7})])
def test_units_that_go_together_are_kept_together(
    world: Path, together: str, modules: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Want two channels of one MLP: all that is likely in their block or layer comes with them."""
    evaluator = open_evaluator(entry(world, search={"together": together, "grain": "module"}))
    needed = {unit for unit in evaluator.units if unit.id in ("1.up", "1.down")}
    probed(monkeypatch, accepting(lambda units: needed <= set(units)))
    patch = find_patch(evaluator)
    assert len(patch.units) == len(patch.certificate) == 1
    assert set(patch.certificate.values()) == {"tested"}
    units = select(evaluator, patch)
    assert needed <= set(units)
    assert {unit.layer for unit in units} == {1}
    assert len(units) in modules
    assert patch.candidates == len(evaluator.units) * 2 // 7 if together == "block" else len(evaluator.units) // 7
    check = Subject(evaluator, units).minimality(patch)
    assert check.passed
    assert check.numbers["units"] == 1


def test_facts_of_the_search_are_the_oracles(world: Path, default_patch: Patch) -> None:
    """Compare the facts of a patch with those of a new oracle."""
    evaluator = open_evaluator(entry(world))
    oracle = Oracle(evaluator)
    assert default_patch.search.model_dump() == {
        "questions": 6, "refused_before": oracle.refused_before, "refused_whole": oracle.refused_whole,
        **search_budgets(evaluator.student.search, oracle).model_dump(),
    }  # fmt: skip
    assert (default_patch.student, default_patch.teacher, default_patch.key) == ("world/plain", "good", "key")


def test_no_set_is_probed_twice(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check every set that the oracle is asked about."""
    sets = probed(monkeypatch)
    patch = search(open_evaluator(entry(world)), "key")
    assert len(sets) == patch.probes == len(patch.course)
    assert len(set(sets)) == len(sets)
    assert sets[0] == frozenset()


@pytest.mark.parametrize("settings", [{}, {"target_dsr": 0.5}])
def test_a_student_that_refuses_enough_needs_no_patch(world: Path, settings: dict[str, float]) -> None:
    """Check a student that is its own teacher: that it gains nothing must not be taken for failure."""
    patch = find_patch(open_evaluator(entry(world, student="good", teacher="good", search=settings)))
    assert (patch.found, patch.units, patch.minimal, patch.probes) == (True, (), True, 1)
    assert "refuses enough as it is" in patch.reason


def test_a_teacher_that_refuses_nothing_is_no_help(world: Path) -> None:
    """Check a teacher that answers everything."""
    patch = find_patch(open_evaluator(entry(world, teacher="student")))
    assert (patch.found, patch.units, patch.minimal) == (False, (), False)
    assert "all of the teacher gives 0 refusals, no more than the student's 0" in patch.reason


@pytest.mark.parametrize(("teacher", "constraint"), [("prudish", "over-refusal"), ("forgetful", "task")])
def test_a_patch_that_costs_too_much_is_not_found(world: Path, teacher: str, constraint: str) -> None:
    """Check that the reason names the budget, and that the gate repeats it."""
    evaluator = open_evaluator(entry(world, teacher=teacher))
    patch = find_patch(evaluator)
    assert not patch.found
    assert f"fails on {constraint}" in patch.reason
    check = Subject(evaluator).minimality(patch)
    assert check.outcome is Outcome.FAIL
    assert patch.reason in check.summary


def test_a_degenerate_student_is_void_and_leaves_nothing(world: Path, cache: Path) -> None:
    """Check a student that babbles."""
    evaluator = open_evaluator(entry(world, student="broken"))
    with pytest.raises(VoidProbe):
        find_patch(evaluator)
    assert cached(cache) == []
