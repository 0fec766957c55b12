"""Check patches that another run recorded in its results."""

from __future__ import annotations

from pathlib import Path

import pytest

import safety_harness.evaluation.evaluator
from safety_harness.errors import DataError
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.registry.schema import ModelSpec
from safety_harness.search.find import recorded_patch
from tests.refusal_world import entry
from tests.samples import results_with
from tests.search.probing import never, probed


def recording(folder: Path, evaluator: Evaluator, patch: Patch) -> Path:
    """Write a results.json that records *patch* of *evaluator*."""
    about = {"patch": {**patch.model_dump(mode="json"), "share": patch.share}, "identity": evaluator.identity()}
    return results_with(folder / "results.json", {patch.student: about})


def test_a_recorded_patch_needs_no_search(
    world: Path, tmp_path: Path, default_patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a patch where any probe is an error: on the machine that found it, and on another."""
    evaluator = open_evaluator(entry(world))
    file = recording(tmp_path, evaluator, default_patch)
    probed(monkeypatch, never)
    assert recorded_patch(evaluator, file) == default_patch
    monkeypatch.setattr(safety_harness.evaluation.evaluator, "device_name", lambda _: "another")
    assert recorded_patch(evaluator, file) == default_patch


def test_a_patch_of_something_else_is_refused(world: Path, tmp_path: Path, default_patch: Patch) -> None:
    """Ask for it with another teacher, other questions, another transfer and another student."""
    evaluator = open_evaluator(entry(world))
    file = recording(tmp_path, evaluator, default_patch)
    for student, message in (
        (entry(world, teacher="prudish"), "found for another teacher than today's"),
        (entry(world, search={"prior_questions": 2}), "found for another set of questions"),
        (
            entry(world, search={"transfer": "add"}, ancestor=ModelSpec(path=world / "student")),
            r"transfer 'replace'.* say 'add'. Set `transfer`",
        ),
    ):
        with pytest.raises(DataError, match=message):
            recorded_patch(open_evaluator(student), file)
    with pytest.raises(DataError, match=r"none.json: records no patch of world/plain"):
        recorded_patch(evaluator, results_with(tmp_path / "none.json", {"world/another": {}}))
