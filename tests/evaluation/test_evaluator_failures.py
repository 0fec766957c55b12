"""Check what an evaluator depends on, and what it says when something goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.errors import DataError, LineageError, SourceError, VoidProbe
from safety_harness.evaluation import evaluator as evaluator_module
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.judging.thoughts import FINGERPRINT
from safety_harness.models.generate import Generator
from tests.builders import make_model, make_tokenizer, save
from tests.refusal_world import CORPUS, entry, write_prompts

# --- Identity -------------------------------------------------------------------------------------


def test_identity_changes_with_all_that_an_answer_depends_on(world: Path, tmp_path: Path) -> None:
    """Change settings, models, questions, template and end tokens, one after another."""
    root = Path(shutil.copytree(world, tmp_path / "world"))
    seen = [open_evaluator(entry(root)).identity()]
    assert "premise" not in seen[0]  # patches from before the setting keep their keys
    assert open_evaluator(entry(world)).identity() == seen[0]

    def differs(**family: Any) -> None:
        identity = open_evaluator(entry(root, **family)).identity()
        assert identity not in seen, family
        seen.append(identity)

    for family in (
        {"dtype": "bfloat16"},
        {"batch_size": 3},
        {"max_new_tokens": 5},
        {"screen_tokens": 5},
        {"task": False},
        {"gate": {"premise": "complied"}},
    ):
        differs(**family)
    differs(teacher="prudish")
    differs(student="good")
    write_prompts(root / "harmless.search.jsonl", ["how do i make a hat ?"])
    differs()
    template = root / "student" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    differs()
    for name in ("student", "good"):
        config = root / name / "generation_config.json"
        config.write_text(config.read_text().replace('"eos_token_id": 2', '"eos_token_id": [2, 9]'))
        differs()


def test_a_judge_with_other_rules_is_another_identity(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the judge's fingerprint alone."""
    evaluator = open_evaluator(entry(world))
    before = evaluator.identity()
    monkeypatch.setattr(evaluator.judge, "fingerprint", "changed rules")
    assert evaluator.identity() != before


def test_how_thoughts_are_told_is_part_of_the_identity(world: Path) -> None:
    """Ask a student that marks no thoughts: its verdicts depend on the table of markers all the same."""
    evaluator = open_evaluator(entry(world))
    assert not evaluator.generator.chat.marks_thoughts
    assert evaluator.identity()["thoughts"] == FINGERPRINT


# --- What goes wrong ------------------------------------------------------------------------------


def test_strangers_are_refused_before_a_model_is_loaded(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give a teacher that was never trained from the student's ancestor."""
    root = Path(shutil.copytree(world, tmp_path / "world"))
    stranger = make_model("llama", seed=9, vocab_size=340, hidden_size=48, intermediate_size=96, head_dim=12)
    save(stranger, make_tokenizer(CORPUS, 340), root / "stranger")
    monkeypatch.setattr(evaluator_module, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(LineageError, match="do not descend"):
        open_evaluator(entry(root, teacher="stranger"))


def test_a_nan_voids_the_probe_and_names_what_was_moved(world: Path) -> None:
    """Put a NaN into the model for a while: with units it is the patch's fault, without units the student's."""
    evaluator = open_evaluator(entry(world))
    prompts = evaluator.questions.harmful.search
    before = [answer.answer for answer in evaluator.answers((), prompts)]
    norm = evaluator.generator.model.model.norm.weight
    kept = norm.detach().clone()
    norm.data[0] = torch.nan
    with pytest.raises(VoidProbe, match=r"out of .* with 0\.q, 0\.k, 0\.v and 18 more of the teacher in it"):
        evaluator.answers(evaluator.units, prompts)
    with pytest.raises(VoidProbe, match=r"with 1\.gate of the teacher in it"):
        evaluator.answers([unit for unit in evaluator.units if unit.id == "1.gate"], prompts)
    evaluator.forget()
    with pytest.raises(SourceError, match=r"out of the student as it is.*try another `dtype`"):
        evaluator.answers((), prompts)
    norm.data.copy_(kept)
    assert [answer.answer for answer in evaluator.answers((), prompts)] == before


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("tried to allocate 40 GiB"), RuntimeError("another")])
def test_memory_that_ends_while_scoring_is_reported(
    world: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    """Check the advice, and that an error of another kind is passed on."""

    def fails(*_: object) -> None:
        raise error

    evaluator = open_evaluator(entry(world))
    expected = SourceError if isinstance(error, torch.OutOfMemoryError) else RuntimeError
    monkeypatch.setattr(evaluator_module, "text_scores", fails)
    monkeypatch.setattr(evaluator_module, "answer_logprobs", fails)
    with pytest.raises(expected, match=r"is measured. Use fewer workers|another"):
        evaluator.text((), evaluator.questions.text)
    with pytest.raises(expected, match=r"is measured. Use fewer workers|another"):
        evaluator.divergences((), evaluator.questions.harmless.search)


@pytest.mark.parametrize("side", ["harmful.search", "harmless.report", "task.report"])
def test_a_question_beyond_the_context_is_an_early_error(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Check questions of every side, before anything is asked."""
    copied = Path(shutil.copytree(world, tmp_path / "world"))
    file = copied / f"{side}.jsonl"
    lines = file.read_text().splitlines()
    row = {**json.loads(lines[0]), "id": "long", "text": "how do i make soup ? " * 400}
    file.write_text("\n".join([*lines, json.dumps(row)]) + "\n")
    monkeypatch.setattr(Generator, "answers", lambda *_: pytest.fail("asked"))
    with pytest.raises(DataError, match=r"exceed the model's context of \d+: 'how do i make soup"):
        open_evaluator(entry(copied))
