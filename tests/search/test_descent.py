"""Check the order that is learnt: each step adds the gradients that it claims, and the steps get somewhere."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.memo import Answered
from safety_harness.registry.prompts import Prompt
from safety_harness.search.priors import PRIORS, Importance, descent
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.descent import (
    KEPT_TOKENS,
    Schedule,
    StepQuestions,
    learnt_order,
    selection_threshold,
)
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.refusal_world import REFUSAL, entry

Scores = Mapping[str, torch.Tensor]
FIRST_WEIGHTS = (3.0, 3.0, 3.0, 1.5, 1.5)
# Steps that ask everything: six questions of either kind and three of the task. A fifth of a small model moves.
EVERYTHING = Schedule(harmful_rows=6, harmless_rows=6, task_rows=3, share=0.2, rows_per_pass=4)


def importance_by(evaluator: Evaluator, name: str, schedule: Schedule = EVERYTHING) -> Importance:
    """Return the importance of units by the prior *name*; a descent follows *schedule*."""
    if name != "descent":
        return Importance(evaluator, PRIORS[name])
    channel_facts = functools.partial(learnt_order, schedule=schedule)
    return Importance(evaluator, replace(PRIORS["descent"], channel_facts=channel_facts))


def order(evaluator: Evaluator, name: str, schedule: Schedule = EVERYTHING) -> Scores:
    """Return the score of every channel by the prior *name*."""
    importance = importance_by(evaluator, name, schedule)
    return {unit.module: importance.of_channels(unit) for unit in evaluator.units}


def answer_logprobs(model: Any, question: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Return log-probabilities at every token of one answer: shape (tokens, vocabulary)."""
    logits = model(input_ids=torch.tensor([[*question, *answer]])).logits[0]
    logprobs: torch.Tensor = logits.log_softmax(-1)[len(question) - 1 : len(question) - 1 + len(answer)]
    return logprobs


def weighted(values: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the weighted mean of *values*."""
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
            (questions.harmless, EVERYTHING.divergence_cost),
            (evaluator.questions.task.search, EVERYTHING.task_cost),
        ):
            for prompt, answered in zip(prompts, evaluator.answers((), prompts), strict=True):
                row = self._encoded(prompt), tokenizer(answered.answer)["input_ids"][:KEPT_TOKENS]
                with torch.no_grad():
                    self._kept.append((row, answer_logprobs(self._model, *row), cost / len(prompts)))

    def _encoded(self, prompt: Prompt) -> list[int]:
        """Return the tokens of one question."""
        encoded: list[int] = self._evaluator.generator.encode(prompt.text)
        return encoded

    def __call__(self) -> torch.Tensor:
        """Return the objective of the model as it stands: a scalar."""
        total = torch.zeros(())
        for question in self._harmful:
            now = answer_logprobs(self._model, question, self._refusal)
            tokens = torch.tensor(self._refusal)
            weights = [3.0 if place < 5 else 1.0 for place in range(len(self._refusal))]
            total = total + weighted(now[range(len(tokens)), tokens], weights) / len(self._harmful)
        for row, before, cost in self._kept:
            apart = (before.exp() * (before - answer_logprobs(self._model, *row))).sum(-1)
            weights = [*FIRST_WEIGHTS, *[0.5] * KEPT_TOKENS][: len(apart)]
            total = total - cost * weighted(apart, weights)
        return total


@pytest.fixture
def evaluator(world: Path) -> Evaluator:
    """The student with its good teacher."""
    return open_evaluator(entry(world))


def gained(evaluator: Evaluator, world: Path, objective: Objective, moved: Sequence[Unit]) -> Scores:
    """Return what each channel gains in *objective* where *moved* have moved, a parameter."""
    student, donor, model = Checkpoint(world / "student"), Checkpoint(world / "good"), evaluator.generator.model
    with evaluator.transplanter.transplanted(moved):
        model.zero_grad()
        objective().backward()
        gradient = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    gains = {}
    for unit in evaluator.units:
        (part,) = unit.parts
        by_number = gradient[part.disk.name] * (donor.tensor(part.disk.name) - student.tensor(part.disk.name))
        gains[unit.module] = by_number.sum(1 - part.disk.axis) / (unit.parameters / unit.width)
    return gains


def last_of_a_fifth(scores: Scores) -> float:
    """Return the lowest of the highest fifth of all scores."""
    every = torch.cat(list(scores.values())).sort(descending=True).values
    return float(every[int(0.2 * len(every)) - 1])


# --- Steps ----------------------------------------------------------------------------------------


def test_a_step_adds_gains_and_the_next_half_of_them(evaluator: Evaluator, world: Path) -> None:
    """Compare two steps with steps that are taken by hand, question by question."""
    schedule = replace(EVERYTHING, steps=2)
    contrasted = order(evaluator, "contrast")
    learnt = order(evaluator, "descent", schedule)
    objective = Objective(evaluator)
    scale = last_of_a_fifth(contrasted)
    expected = {module: score / scale for module, score in contrasted.items()}
    for times in (1.0, 0.5):
        gains = gained(evaluator, world, objective, likeliest(evaluator, expected, 0.2))
        if times == 1.0:
            step = last_of_a_fifth({module: gain.abs() for module, gain in gains.items()})
        before = expected
        expected = {module: score + times * schedule.rate * gains[module] / step for module, score in before.items()}
    largest = max(float(score.abs().max()) for score in learnt.values())

    def near(scores: Scores) -> bool:
        return all(torch.allclose(learnt[m], score, rtol=1e-3, atol=1e-3 * largest) for m, score in scores.items())

    assert near(expected)
    assert not near(before)


def test_steps_raise_what_they_step_along(evaluator: Evaluator) -> None:
    """Compare the objective at the first channels of a learnt order with the objective before the steps."""
    objective = Objective(evaluator)

    def reached(name: str) -> float:
        units = likeliest(evaluator, order(evaluator, name), 0.2)
        with torch.no_grad(), evaluator.transplanter.transplanted(units):
            return float(objective())

    before, after = reached("contrast"), reached("descent")
    assert after > before + 0.1 * abs(before)


def test_a_unit_scores_the_mean_of_its_channels(evaluator: Evaluator) -> None:
    """Check whole and cut units."""
    importance = importance_by(evaluator, "descent")
    for unit in evaluator.units:
        channels = importance.of_channels(unit)
        assert importance.of((unit,)) == pytest.approx(float(channels.mean()), rel=1e-4, abs=1e-4)
        some = cut(unit, (0, 2))
        assert importance.of((some,)) == pytest.approx(float(channels[[0, 2]].mean()), rel=1e-4, abs=1e-4)


def test_the_student_stays_and_the_order_is_reproduced(world: Path, evaluator: Evaluator) -> None:
    """Learn the order twice, and compare the student before and after."""
    before = {name: tensor.clone() for name, tensor in evaluator.generator.model.state_dict().items()}
    first = order(evaluator, "descent")
    assert all(torch.equal(before[name], tensor) for name, tensor in evaluator.generator.model.state_dict().items())
    again = order(open_evaluator(entry(world)), "descent")
    assert all(torch.equal(score, again[module]) for module, score in first.items())


# --- Questions ------------------------------------------------------------------------------------


def test_a_step_asks_questions_in_turn(evaluator: Evaluator) -> None:
    """Check that all questions come equally often, in another order each turn."""
    questions = StepQuestions(evaluator, replace(EVERYTHING, harmful_rows=2, harmless_rows=3, task_rows=1))
    steps = [questions.next_rows() for _ in range(6)]
    prior, task = evaluator.questions.prior, evaluator.questions.task
    assert task
    for prompts, times, asked in (
        (prior.harmful, 2, [row for step in steps for row in step.harmful]),
        (prior.harmless, 3, [kept.row for step in steps for kept in step.harmless]),
        (task.search, 2, [kept.row for step in steps for kept in step.task]),
    ):
        every = [tuple(evaluator.generator.encode(prompt.text)) for prompt in prompts]
        in_order = [tuple(question) for question, _ in asked]
        assert {question: in_order.count(question) for question in every} == dict.fromkeys(every, times)
        turns = [in_order[at : at + len(every)] for at in range(0, len(in_order), len(every))]
        assert any(turn != every for turn in turns)


def test_a_student_without_a_task_has_none_to_keep(world: Path) -> None:
    """Learn an order without task questions."""
    scores = order(open_evaluator(entry(world, task=False)), "descent")
    assert all(score.isfinite().all() for score in scores.values())


def test_a_student_that_says_nothing_has_nothing_to_keep(evaluator: Evaluator) -> None:
    """Learn an order where every answer of the student as it is is empty."""
    answers = evaluator.answers

    def silent(units: Sequence[Unit], *rest: Any) -> tuple[Answered, ...]:
        answered = answers(units, *rest)
        return answered if units else tuple(replace(one, answer="") for one in answered)

    evaluator.answers = silent  # type: ignore[assignment, method-assign]
    assert all(score.isfinite().all() for score in order(evaluator, "descent").values())


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([5.0, -1.0, 3.0, 4.0, 6.0, 0.0], 4.0),
        ([5.0, 0.0, 3.0, 0.0, -1.0, 0.0], 3.0),
        ([-5.0, -1.0, -3.0, -4.0, -1.0, -1.0], 1.0),
        ([0.0] * 6, 1.0),
    ],
)
def test_the_threshold_is_the_lowest_selected_gain(scores: list[float], threshold: float) -> None:
    """Check scores of which enough, few and none are positive."""
    by_module = {"first": torch.tensor(scores[:1]), "second": torch.tensor(scores[1:])}
    assert selection_threshold(by_module, 0.5) == threshold


def test_components_pay_a_cost_of_their_own(world: Path) -> None:
    """Weigh one step with all components moved: of the three costs, theirs alone counts."""
    evaluator = open_evaluator(entry(world, search={"grain": "component"}))
    rows = StepQuestions(evaluator, EVERYTHING).next_rows()

    def raised(component_cost: float, others: float) -> float:
        schedule = replace(EVERYTHING, component_cost=component_cost, divergence_cost=others, task_cost=others)
        with torch.no_grad(), evaluator.transplanter.transplanted(evaluator.units):
            return sum(float(piece) for piece in descent._objective(evaluator, rows, schedule))

    free, dear = raised(0, 3), raised(6, 3)
    assert dear < free
    assert raised(6, 99) == dear
    assert raised(3, 3) == pytest.approx((free + dear) / 2)
