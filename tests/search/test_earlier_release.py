"""Check that a new release of a student is searched from the units that moved in the last one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.errors import DataError
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.search import find
from safety_harness.search.find import find_patch, patch_key, select
from safety_harness.search.priors import Importance
from tests.refusal_world import entry
from tests.samples import results_with
from tests.search.probing import accepted_by, direct_minimality


@pytest.fixture
def earlier(tmp_path: Path, default_patch: Patch) -> Path:
    """Return the results.json of a release whose patch is the default one."""
    return results_with(tmp_path / "earlier.json", {"world/plain": {"patch": default_patch.model_dump()}})


def new_release(world: Path) -> Evaluator:
    """Return the student after one more hour of tuning: its embeddings are a little different."""
    evaluator = open_evaluator(entry(world))
    with torch.no_grad():
        evaluator.generator.model.get_input_embeddings().weight.mul_(1.001)
    evaluator.checkpoint.__dict__["fingerprint"] = "another release"
    return evaluator


@pytest.mark.usefixtures("cache")
def test_units_that_moved_before_are_tried_first(
    world: Path, earlier: Path, default_patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take the prior away: what is still enough needs none, and each unit is proven to be needed anew."""
    monkeypatch.setattr(Importance, "__init__", lambda *_: pytest.fail("a prior"))
    evaluator = new_release(world)
    patch = find_patch(evaluator, earlier=earlier)
    assert patch.found
    assert patch.minimal
    assert "from units that moved before" in patch.reason
    assert set(patch.units) <= set(default_patch.units)
    assert patch.probes < default_patch.probes
    assert not any(direct_minimality(evaluator, select(evaluator, patch)).values())
    assert accepted_by(evaluator, select(evaluator, patch))
    assert find_patch(new_release(world), earlier=earlier) == patch  # from the cache


@pytest.mark.usefixtures("cache")
def test_units_that_are_not_enough_any_more_start_nothing(
    world: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a student of another teacher have units of which nothing helps: it is searched as if there were none."""
    usual = find_patch(open_evaluator(entry(world, teacher="prudish", search={"over_refusal": 1.0})))
    few = find.earlier_units(open_evaluator(entry(world)), earlier)[:1]
    monkeypatch.setattr(find, "earlier_units", lambda *_: few)
    evaluator = open_evaluator(entry(world, teacher="prudish", search={"over_refusal": 1.0}))
    again = find_patch(evaluator, earlier=earlier)
    assert again.units == usual.units
    assert again.key != usual.key


@pytest.mark.parametrize(
    ("units", "student", "message"),
    [
        (("99.gate",), "world/plain", "another model now"),
        (("0.gate",), "world/other", "records no units of world/plain"),
        ((), "world/plain", "records no units of world/plain"),
    ],
)
def test_units_of_another_model_are_passed_over_aloud(
    world: Path, tmp_path: Path, default_patch: Patch, units: tuple[str, ...], student: str, message: str
) -> None:
    facts = {**default_patch.model_dump(), "student": student, "units": units, "certificate": {}}
    results = results_with(tmp_path / "earlier.json", {student: {"patch": facts}})
    evaluator = open_evaluator(entry(world))
    with pytest.warns(UserWarning, match=message):
        assert find.earlier_units(evaluator, results) == ()
    assert patch_key(evaluator, ()) == patch_key(evaluator)


def test_units_of_a_search_that_saw_what_is_gated_now_are_passed_over(
    world: Path, tmp_path: Path, default_patch: Patch
) -> None:
    """Start no search from units that were found under an attack of the gate, whatever it was called."""
    attack = builtin_attacks()["leet"]
    facts = {**default_patch.model_dump(), "certificate": {}}
    record = {"patch": facts, "identity": {"search_attacks": {"mine": attack.fingerprint}}}
    results = results_with(tmp_path / "earlier.json", {"world/plain": record})
    evaluator = open_evaluator(entry(world))
    assert find.earlier_units(evaluator, results)
    family = evaluator.student.family
    gate = family.gate.model_copy(update={"attacks": ("leet",)})
    evaluator.student = replace(evaluator.student, family=family.model_copy(update={"gate": gate}))
    with pytest.warns(UserWarning, match="Their search saw mine, a gated attack"):
        assert find.earlier_units(evaluator, results) == ()


def test_results_that_cannot_be_read_end_it_before_a_search(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as results"):
        find_patch(open_evaluator(replace(entry(world))), earlier=tmp_path / "gone.json")
