"""The order that is learnt: its steps are the gradients that they say they are, and they get where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.registry.prompts import Prompt
from safety_harness.search.priors import Importance, contrast, descent
from safety_harness.search.priors.base import likeliest
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.refusal_world import REFUSAL, entry

Scores = Mapping[str, torch.Tensor]
FIRST = (3.0, 3.0, 3.0, 1.5, 1.5)


def order(evaluator: Evaluator, name: str) -> Scores:
    """Scores of every channel by the prior *name*."""
    settings = evaluator.student.search.model_copy(update={"prior": name})
    spec = evaluator.student.spec.model_copy(update={"search": settings})
    evaluator.student = replace(evaluator.student, spec=spec)
    importance = Importance(evaluator)
    return {unit.module: importance.of_channels(unit) for unit in evaluator.units}


def said(model: Any, question: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([[*question, *answer]])).logits[0]
    found: torch.Tensor = logits.log_softmax(-1)[len(question) - 1 : len(question) - 1 + len(answer)]
    return found


def weighted(values: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    by = torch.tensor(weights)
    return (values * by).sum() / by.sum()


class Objective:
    """What a step would raise, over all of the search's questions, each asked alone."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator, self._model = evaluator, evaluator.generator.model
        questions, tokenizer = evaluator.questions.prior, evaluator.generator.tokenizer
        self._refusal = [*tokenizer(REFUSAL)["input_ids"], tokenizer.eos_token_id]
        self._harmful = [self._encoded(prompt) for prompt in questions.harmful]
        assert evaluator.questions.task
        self._kept = []
        for prompts, cost in (
            (questions.harmless, descent.DIVERGENCE_COST),
            (evaluator.questions.task.search, descent.TASK_COST),
        ):
            for prompt, own in zip(prompts, evaluator.asked((), prompts), strict=True):
                row = self._encoded(prompt), tokenizer(own.answer)["input_ids"][: descent.KEPT_TOKENS]
                with torch.no_grad():
                    self._kept.append((row, said(self._model, *row), cost / len(prompts)))

    def _encoded(self, prompt: Prompt) -> list[int]:
        encoded: list[int] = self._evaluator.generator.encode(prompt.text)
        return encoded

    def __call__(self) -> torch.Tensor:
        """Of the model as it stands."""
        total = torch.zeros(())
        for question in self._harmful:
            now = said(self._model, question, self._refusal)
            tokens = torch.tensor(self._refusal)
            weights = [3.0 if place < 5 else 1.0 for place in range(len(self._refusal))]
            total = total + weighted(now[range(len(tokens)), tokens], weights) / len(self._harmful)
        for row, before, cost in self._kept:
            apart = (before.exp() * (before - said(self._model, *row))).sum(-1)
            weights = [*FIRST, *[0.5] * descent.KEPT_TOKENS][: len(apart)]
            total = total - cost * weighted(apart, weights)
        return total


@pytest.fixture
def evaluator(world: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    """Steps that ask everything, six questions of either kind and three of the task; some channels of a small model."""
    monkeypatch.setattr(descent, "HARMFUL_ROWS", 6)
    monkeypatch.setattr(descent, "HARMLESS_ROWS", 6)
    monkeypatch.setattr(descent, "TASK_ROWS", 3)
    monkeypatch.setattr(descent, "BATCH", 4)
    monkeypatch.setattr(descent, "SHARE", 0.2)
    return open_evaluator(entry(world))


def gained(evaluator: Evaluator, world: Path, objective: Objective, moved: Sequence[Unit]) -> Scores:
    """What each channel gains in *objective* where *moved* have moved, a parameter."""
    own, donor, model = Checkpoint(world / "student"), Checkpoint(world / "good"), evaluator.generator.model
    with evaluator.transplanter.transplanted(moved):
        model.zero_grad()
        objective().backward()
        gradient = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    gains = {}
    for unit in evaluator.units:
        (part,) = unit.parts
        by_number = gradient[part.disk.name] * (donor.tensor(part.disk.name) - own.tensor(part.disk.name))
        gains[unit.module] = by_number.sum(1 - part.disk.axis) / (unit.parameters / unit.width)
    return gains


def last_of_a_fifth(scores: Scores) -> float:
    every = torch.cat(list(scores.values())).sort(descending=True).values
    return float(every[int(0.2 * len(every)) - 1])


def test_a_step_adds_what_each_channel_would_gain_and_the_next_half_of_it(
    evaluator: Evaluator, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "STEPS", 2)
    begun = order(evaluator, "contrast")
    found = order(evaluator, "descent")
    objective = Objective(evaluator)
    scale = last_of_a_fifth(begun)
    expected = {module: score / scale for module, score in begun.items()}
    for times in (1.0, 0.5):
        gains = gained(evaluator, world, objective, likeliest(evaluator, expected, 0.2))
        if times == 1.0:
            step = last_of_a_fifth({module: gain.abs() for module, gain in gains.items()})
        before = expected
        expected = {module: score + times * descent.RATE * gains[module] / step for module, score in before.items()}
    largest = max(float(score.abs().max()) for score in found.values())

    def near(scores: Scores) -> bool:
        return all(torch.allclose(found[m], score, rtol=1e-3, atol=1e-3 * largest) for m, score in scores.items())

    assert near(expected)
    assert not near(before)


def test_steps_raise_what_they_step_along(evaluator: Evaluator) -> None:
    objective = Objective(evaluator)

    def reached(name: str) -> float:
        units = likeliest(evaluator, order(evaluator, name), 0.2)
        with torch.no_grad(), evaluator.transplanter.transplanted(units):
            return float(objective())

    before, after = reached("contrast"), reached("descent")
    assert after > before + 0.1 * abs(before)


def test_of_a_unit_the_order_tells_the_mean_of_its_channels(evaluator: Evaluator) -> None:
    order(evaluator, "descent")
    importance = Importance(evaluator)
    for unit in evaluator.units:
        channels = importance.of_channels(unit)
        assert importance.of((unit,)) == pytest.approx(float(channels.mean()), rel=1e-4, abs=1e-4)
        some = cut(unit, (0, 2))
        assert importance.of((some,)) == pytest.approx(float(channels[[0, 2]].mean()), rel=1e-4, abs=1e-4)


def test_the_student_is_left_as_it_was_and_the_order_is_the_same_again(world: Path, evaluator: Evaluator) -> None:
    own = {name: tensor.clone() for name, tensor in evaluator.generator.model.state_dict().items()}
    first = order(evaluator, "descent")
    assert all(torch.equal(own[name], tensor) for name, tensor in evaluator.generator.model.state_dict().items())
    again = order(open_evaluator(entry(world)), "descent")
    assert all(torch.equal(score, again[module]) for module, score in first.items())


def test_a_step_asks_questions_in_turn(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, number in {"HARMFUL_ROWS": 2, "HARMLESS_ROWS": 3, "TASK_ROWS": 1}.items():
        monkeypatch.setattr(descent, rows, number)
    questions = descent._Questions(evaluator)
    asked: list[tuple[int, ...]] = []

    def refusing(_: Evaluator, rows: Sequence[Any]) -> torch.Tensor:
        asked.extend(tuple(question) for question, _ in rows)
        return torch.zeros(len(rows))

    def diverging(_: Evaluator, rows: Sequence[Any]) -> torch.Tensor:
        asked.extend(tuple(question) for (question, _), _ in rows)
        return torch.zeros(len(rows))

    monkeypatch.setattr(descent, "_refusing", refusing)
    monkeypatch.setattr(descent, "_diverging", diverging)
    for _ in range(6):
        list(questions.objective())
    prior, task = evaluator.questions.prior, evaluator.questions.task
    assert task
    for prompts, times in ((prior.harmful, 2), (prior.harmless, 3), (task.search, 2)):
        every = [tuple(evaluator.generator.encode(prompt.text)) for prompt in prompts]
        found = [question for question in asked if question in every]
        assert {question: found.count(question) for question in every} == dict.fromkeys(every, times)
        turns = [found[at : at + len(every)] for at in range(0, len(found), len(every))]
        assert any(turn != every for turn in turns)


def test_a_student_without_a_task_has_none_to_keep(world: Path) -> None:
    assert all(score.isfinite().all() for score in order(open_evaluator(entry(world, task=False)), "descent").values())


def test_a_student_that_says_nothing_has_no_answers_to_keep(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "own_answers", lambda *_: [])
    monkeypatch.setattr(contrast, "own_answers", lambda *_: [])
    assert all(score.isfinite().all() for score in order(evaluator, "descent").values())


@pytest.mark.parametrize(
    ("scores", "size"),
    [
        ([5.0, -1.0, 3.0, 4.0, 6.0, 0.0], 4.0),
        ([5.0, 0.0, 3.0, 0.0, -1.0, 0.0], 3.0),
        ([-5.0, -1.0, -3.0, -4.0, -1.0, -1.0], 1.0),
        ([0.0] * 6, 1.0),
    ],
)
def test_the_edge_is_the_last_that_is_chosen_of_those_that_gain(
    scores: list[float], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "SHARE", 0.5)
    assert descent._at_the_edge({"one": torch.tensor(scores[:1]), "other": torch.tensor(scores[1:])}) == size
