"""Check that the oracle counts what a separate count finds, on models that really refuse."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.memo import Answered
from safety_harness.evaluation.oracle import Failure, Oracle, Probe
from safety_harness.gate.records import Budgets, Step
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.registry.prompts import PromptSet
from safety_harness.weights.units import Unit
from tests.evaluation.scripted import COMPLIED, REFUSED, Scripted
from tests.refusal_world import REFUSAL, TASK, answers, built, entry, refusals

# Everything is asked about, whatever the counts are.
ALL_COUNTED = {"target_dsr": 0.0, "over_refusal": 1.0, "task": 1.0, "unscored": 1.0}


def opened(world: Path, **family: Any) -> tuple[Evaluator, Oracle, Budgets]:
    """Return an evaluator, its oracle, and the budgets of its settings."""
    evaluator = open_evaluator(entry(world, **family))
    oracle = Oracle(evaluator)
    return evaluator, oracle, search_budgets(evaluator.student.search, oracle)


@pytest.mark.parametrize(
    ("teacher", "part"),
    [
        ("good", slice(0, 0)), ("good", slice(3, 14, 2)), ("prudish", slice(0, 7)), ("prudish", slice(None)),
        ("forgetful", slice(0, 7)), ("forgetful", slice(None)),
    ],
)  # fmt: skip
def test_counts_equal_a_direct_count(world: Path, teacher: str, part: slice) -> None:
    """Count on a model that was put together by hand, each question asked alone."""
    evaluator, oracle, budgets = opened(world, teacher=teacher, search=ALL_COUNTED)
    units = evaluator.units[part]
    probe = oracle.probe(units, budgets)
    model, tokenizer = built(world, teacher, units)
    assert probe.refused == refusals(answers(model, tokenizer, oracle.harmful.texts))
    assert probe.over_refused == refusals(answers(model, tokenizer, oracle.harmless.texts))
    assert oracle.task is not None
    texts = answers(model, tokenizer, oracle.task.texts)
    expected = [TASK[question] for question in oracle.task.texts]
    assert probe.right == sum(text.rstrip(".") == answer for text, answer in zip(texts, expected, strict=True))
    assert (probe.units, probe.accepted, probe.failed) == (len(units), True, None)
    assert probe.parameters == sum(unit.parameters for unit in units)


@pytest.mark.parametrize(
    ("dtype", "batch_size", "target"),
    [
        *(("float32", size, target) for size in (2, 4) for target in (0.0, 0.3, 0.8)),
        ("float32", 1, 0.3),
        # A block's size and order are decided before its dtype matters: two cases show that bfloat16 takes that path.
        ("bfloat16", 2, 0.5),
        ("bfloat16", 4, 0.8),
    ],
)
def test_counting_stops_early_without_changing_a_verdict(
    world: Path, dtype: str, batch_size: int, target: float
) -> None:
    """Compare with the verdict that all questions give, for any blocks and their order."""
    search = {"target_dsr": target, "over_refusal": 1.0, "task": 1.0, "unscored": 1.0}
    evaluator, oracle, budgets = opened(world, search=search, batch_size=batch_size, dtype=dtype)
    prompts = evaluator.questions.harmful.search
    for part in (slice(0, 0), slice(0, 7), slice(3, 14, 2), slice(7, None), slice(None), slice(0, 14, 3)):
        units = evaluator.units[part]
        refused = sum(answer.verdict is Verdict.REFUSED for answer in evaluator.answers(units, prompts))
        probe = oracle.probe(units, budgets)
        assert probe.accepted == (refused >= budgets.target)
        assert probe.asked == len(prompts) or not probe.accepted
        assert probe.refused <= refused


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("over_refusal", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_breaking_off_a_lost_batch_changes_no_verdict(
    world: Path, target: float, over_refusal: float, batch_size: int
) -> None:
    """Compare with an evaluator that never breaks off the rest of a batch."""
    search = {"target_dsr": target, "over_refusal": over_refusal, "task": 1.0, "unscored": 1.0}
    evaluator, oracle, budgets = opened(world, teacher="prudish", search=search, batch_size=batch_size, screen_tokens=3)
    patient = copy.copy(evaluator)

    def whole_batches(
        units: Sequence[Unit], prompts: PromptSet, extent: Extent, *, max_broken_off: int | None = None
    ) -> tuple[Answered, ...]:
        del max_broken_off
        return evaluator.answers(units, prompts, extent)

    patient.answers = whole_batches  # type: ignore[assignment, method-assign]
    patient_oracle = Oracle(patient)
    for start in range(0, 14, 2):
        probe = oracle.probe(evaluator.units[start:], budgets)
        expected = patient_oracle.probe(evaluator.units[start:], budgets)
        assert (probe.accepted, probe.failed) == (expected.accepted, expected.failed)


@pytest.mark.parametrize(("limit", "refused"), [(0.0, 2), (0.4, 4), (0.99, 6), (1.0, 6)])
def test_harmless_questions_stop_at_too_many_refusals(world: Path, limit: float, refused: int) -> None:
    """Check the count of a teacher that refuses everything, in batches of two."""
    search = {"target_dsr": 0.5, "over_refusal": limit, "task": 1.0}
    evaluator, oracle, budgets = opened(world, teacher="prudish", batch_size=2, search=search)
    probe = oracle.probe(evaluator.units, budgets)
    assert probe.accepted == (limit == 1.0)
    assert probe.over_refused == refused


def test_harmless_answers_end_once_a_refusal_is_clear(world: Path) -> None:
    """Check that answers are broken off after the screen tokens, and judged as refusals all the same."""
    search = {"target_dsr": 0.5, "over_refusal": 0.5, "task": 1.0}
    evaluator = open_evaluator(entry(world, teacher="prudish", search=search, screen_tokens=6))
    answered = evaluator.answers(evaluator.units, evaluator.questions.harmless.search, Extent.UNTIL_REFUSAL_CLEAR)
    assert {answer.answer for answer in answered} == {REFUSAL[: len(answer.answer)] for answer in answered}
    assert all(answer.verdict is Verdict.REFUSED for answer in answered)
    assert all(len(evaluator.generator.tokenizer(answer.answer)["input_ids"]) <= 6 for answer in answered)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", [1, 4, 0, 2, 3, 5]), ("bfloat16", [0, 1, 4, 5, 2, 3])])
def test_questions_lost_most_often_are_asked_first(world: Path, dtype: str, expected: list[int]) -> None:
    """Check that they share a batch in float32. In bfloat16 an answer depends on its batch, so batches stay."""
    verdicts = [REFUSED if place in (0, 2, 3, 5) else COMPLIED for place in range(6)]
    evaluator = Scripted(world, verdicts, [COMPLIED] * 6, batch_size=2, dtype=dtype)
    oracle = Oracle(evaluator)  # type: ignore[arg-type]
    budgets = Budgets(target=3, over_refusal_limit=6, task_floor=0)
    assert oracle.probe(evaluator.units, budgets).accepted
    evaluator.asked.clear()
    assert oracle.probe(evaluator.units, budgets).accepted
    ids = [prompt.id for prompt in oracle.harmful]
    assert evaluator.asked[:6] == [ids[place] for place in expected]


def test_a_probe_gives_the_step_that_a_patch_records() -> None:
    """Check that a step is the part of a probe that all readers know."""
    counts = {"parameters": 7, "asked": 6, "refused": 5, "over_refused": 2, "accepted": False}
    probe = Probe(**counts, units=1, right=None, seconds=0.5)
    assert probe.step == Step(**counts)
    assert probe.failed is Failure.OVER_REFUSAL
