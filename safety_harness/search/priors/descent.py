"""Compute the prior ``descent``: an order of the channels that is learnt step by step, the likeliest moved at each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.models.likelihood import token_divergences
from safety_harness.progress import counted
from safety_harness.registry.prompts import PromptSet, batches
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.contrast import HARMFUL_QUESTIONS, HARMLESS_QUESTIONS, refusal_contrast, scores_of
from safety_harness.search.priors.gradients import (
    HARMFUL,
    HARMLESS,
    ROWS_PER_PASS,
    Row,
    at_answers,
    gains,
    logprob,
    own_answers,
    refusing,
    usual_refusal,
)

T = TypeVar("T")
Scores = Mapping[str, torch.Tensor]
"""Scores a parameter for each channel of a module: shape (channels,)."""

# How many first tokens of the student's own answer are to stay as likely as they are.
KEPT_TOKENS = 8


@dataclass(frozen=True)
class Schedule:
    """How long and how far a descent goes."""

    steps: int = 32
    share: float = 0.03
    """Share of everything that may move which is moved at each step: about what a patch moves."""
    component_share: float = 0.6
    """The same, of components."""
    harmful_rows: int = 8
    """Harmful questions of a step."""
    harmless_rows: int = 32
    """Harmless questions of a step."""
    task_rows: int = 8
    """Task questions of a step."""
    divergence_cost: float = 3.0
    """What a nat of divergence from the student on harmless questions costs, in nats of a refusal."""
    task_cost: float = 3.0
    """What a nat of divergence from the student on its task costs, in nats of a refusal."""
    component_cost: float = 10.0
    """What either costs where components move."""
    rate: float = 0.1
    """Relative step size. In the first step, the channel with the share-th largest gain moves by ``rate`` times the
    selection threshold. The size decays linearly to 0, so that the order settles."""
    rows_per_pass: int = ROWS_PER_PASS
    """Rows of one backward pass."""


DEFAULT = Schedule()


@dataclass(frozen=True)
class Kept:
    """A question with the student's own answer, and the student's log-probabilities there: (tokens, vocabulary)."""

    row: Row
    logprobs: torch.Tensor


@dataclass(frozen=True)
class StepRows:
    """What one step asks."""

    harmful: Sequence[Row]
    harmless: Sequence[Kept]
    task: Sequence[Kept]


def learnt_order(evaluator: Evaluator, schedule: Schedule = DEFAULT) -> Mapping[str, torch.Tensor]:
    """Return scores of channels, learnt by steps along their gains where the channels of the highest scores have moved.

    Each step moves the channels that are likeliest so far, in full, as a patch would. It takes the gradient of what is
    asked of a patch. A few harmful questions are to be refused. A few harmless questions, and a few of the task, are to
    be answered as the student does. (These task questions are of the search split, so the oracle asks them as well.)
    What each channel would gain, moved or not, is added to its score. This is a straight-through estimate, as in
    edge-popup (arXiv 1911.13299, section 3).

    The first scores are those of ``contrast``, whose order is of all questions at once. Begun at nothing, equally many
    steps refuse more harmless questions (docs/tried.md).

    Returns:
        Scores times parameters, which add up over channels: float32, shape (1, channels), for each module.
    """
    return descended(evaluator, scores_of(evaluator, refusal_contrast(evaluator)), schedule)


def descended(evaluator: Evaluator, first_scores: Scores, schedule: Schedule = DEFAULT) -> Mapping[str, torch.Tensor]:
    """Return what :func:`learnt_order` returns, from other *first_scores*, shape (channels,) for each module."""
    share = schedule.component_share if evaluator.student.search.components else schedule.share
    threshold = selection_threshold(first_scores, share)
    scores = {module: score / threshold for module, score in first_scores.items()}
    sizes = {unit.module: unit.parameters / unit.width for unit in evaluator.units}
    questions = StepQuestions(evaluator, schedule)
    first_gain = 1.0
    for step in counted("ranking", range(schedule.steps), schedule.steps):
        moved = likeliest(evaluator, scores, share)
        objective = _objective(evaluator, questions.next_rows(), schedule)
        gained = {module: gain / sizes[module] for module, gain in gains(evaluator, moved, objective).items()}
        if step == 0:
            first_gain = selection_threshold({module: gain.abs() for module, gain in gained.items()}, share)
        rate = schedule.rate * (1 - step / schedule.steps) / first_gain
        scores = {module: score + rate * gained[module] for module, score in scores.items()}
    return {module: (score * sizes[module])[None] for module, score in scores.items()}


def selection_threshold(scores: Scores, share: float) -> float:
    """Return the lowest of the highest *share* of all *scores*.

    With a teacher that differs in a few modules alone, fewer scores are positive. Then it is the median of the positive
    ones, or 1 if there are none.
    """
    every = torch.cat(list(scores.values()))
    highest = every.topk(max(1, int(share * len(every)))).values
    if highest[-1] > 0:
        return float(highest[-1])
    positive = highest[highest > 0]
    return float(positive.median()) if len(positive) else 1.0


class StepQuestions:
    """The prior's questions, of which every step asks some: all of them in turn, shuffled again for each turn."""

    def __init__(self, evaluator: Evaluator, schedule: Schedule = DEFAULT) -> None:
        self._schedule = schedule
        questions, shuffled = evaluator.questions.prior, random.Random(0)
        refusal = usual_refusal(evaluator)
        prompts = questions.harmful.first(HARMFUL_QUESTIONS)
        harmful = [refusing(evaluator, prompt, refusal) for prompt in prompts]
        self._harmful = _in_turn(harmful, shuffled)
        harmless = questions.harmless.first(HARMLESS_QUESTIONS)
        self._harmless = _in_turn(_kept(evaluator, harmless, schedule.rows_per_pass), shuffled)
        task = evaluator.questions.task
        self._task = _in_turn(_kept(evaluator, task.search, schedule.rows_per_pass) if task else [], shuffled)

    def next_rows(self) -> StepRows:
        """Return what the next step asks."""
        return StepRows(
            list(islice(self._harmful, self._schedule.harmful_rows)),
            list(islice(self._harmless, self._schedule.harmless_rows)),
            list(islice(self._task, self._schedule.task_rows)),
        )


def _objective(evaluator: Evaluator, asked: StepRows, schedule: Schedule) -> Iterator[torch.Tensor]:
    """Yield what a step is to raise, in parts of one batch each: scalars, computed one after another."""
    for refused in batches(asked.harmful, schedule.rows_per_pass):
        yield _refusing(evaluator, refused).sum() / len(asked.harmful)
    costs = (schedule.divergence_cost, schedule.task_cost)
    if evaluator.student.search.components:
        costs = (schedule.component_cost, schedule.component_cost)
    for rows, cost in zip((asked.harmless, asked.task), costs, strict=True):
        for batch in batches(rows, schedule.rows_per_pass):
            yield -cost * _diverging(evaluator, batch).sum() / len(rows)


@torch.no_grad()
def _kept(evaluator: Evaluator, prompts: PromptSet, rows_per_pass: int) -> list[Kept]:
    """Return each question of *prompts* with the student's own answer and its log-probabilities there.

    These have the shape (tokens, vocabulary), and are bfloat16 to save room.
    """
    rows = own_answers(evaluator, prompts, KEPT_TOKENS)
    return [
        Kept(row, logprobs.bfloat16())
        for batch in batches(rows, rows_per_pass)
        for row, logprobs in zip(batch, _row_by_row(evaluator, batch), strict=True)
    ]


def _in_turn(items: list[T], shuffled: random.Random) -> Iterator[T]:
    """Yield all *items* in a new order, without end; nothing if there are none."""
    while items:
        shuffled.shuffle(items)
        yield from items


def _refusing(evaluator: Evaluator, rows: Sequence[Row]) -> torch.Tensor:
    """Return the weighted mean log-probability of the tokens of each row's refusal: shape (rows,)."""
    weights = [HARMFUL.of(torch.arange(1, len(refusal) + 1)).sum() for _, refusal in rows]
    total = logprob(evaluator, rows, HARMFUL)
    return total / torch.stack(weights).to(total.device)


def _diverging(evaluator: Evaluator, kept: Sequence[Kept]) -> torch.Tensor:
    """Return the weighted mean KL(student || patched student) over the tokens of each row's answer.

    In nats, shape (rows,).
    """
    divergences = []
    for before, after in zip(kept, _row_by_row(evaluator, [one.row for one in kept]), strict=True):
        weights = HARMLESS.of(torch.arange(1, len(after) + 1, device=after.device))
        by_token = token_divergences(before.logprobs.float(), after)
        divergences.append((by_token * weights).sum() / weights.sum())
    return torch.stack(divergences)


def _row_by_row(evaluator: Evaluator, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Return the model's log-probabilities at each row's answer: float32, shape (tokens, vocabulary)."""
    logprobs, _, counted = at_answers(evaluator, rows)
    return [row[kept] for row, kept in zip(logprobs, counted, strict=True)]
