"""The prior ``descent``: an order of the channels that is learnt step by step, the likeliest so far moved at each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.models.likelihood import token_divergences
from safety_harness.registry.prompts import PromptSet, batches
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.contrast import HARMLESS_QUESTIONS, QUESTIONS, refusal_contrast, scores_of
from safety_harness.search.priors.gradients import (
    BATCH,
    HARMFUL,
    HARMLESS,
    Row,
    at_answers,
    gains,
    logprob,
    own_answers,
    usual_refusal,
)

T = TypeVar("T")
Scores = Mapping[str, torch.Tensor]
"""Of each channel of a module, a parameter: shape (channels,)."""
Kept = tuple[Row, torch.Tensor]
"""A harmless question with the student's own answer, and what the student says there (``_as_said``)."""

STEPS = 32
# The share of everything that may move which is moved at each step: about what a patch moves.
SHARE = 0.03
# Questions of a step.
HARMFUL_ROWS = 8
HARMLESS_ROWS = 32
TASK_ROWS = 8
# How many first tokens of the student's own answer are to stay as likely as they are.
KEPT_TOKENS = 8
# What a nat of divergence from the student on harmless questions, and on its task, costs in nats of a refusal.
DIVERGENCE_COST = 3.0
TASK_COST = 3.0
# How far the first step goes: the channel at the edge of SHARE by what it gains there climbs by so much of the score
# that is needed to be in SHARE. The last steps go nowhere any more, so that the order settles.
RATE = 0.1


def learnt_order(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
    """Scores of channels, learnt by steps along their gains where those of the highest scores have moved.

    Each step moves the channels that are likeliest so far, in full, as a patch would, and takes the gradient of what is
    asked of a patch: that a few harmful questions are refused, and that a few harmless ones, and a few of the student's
    own task (those of the search, all of which the oracle asks as well), are answered as the student does. What each
    channel would gain, moved or not, is added to its score (straight through the choice, as in
    edge-popup, arXiv 1911.13299, section 3). Begun at ``contrast``, whose order is of all questions at once: begun at
    nothing, the same steps refuse more harmless questions (docs/tried.md).

    Returns:
        Scores times parameters, which add up over channels: float32, shape (1, channels), for each module.
    """
    return stepped(evaluator, scores_of(evaluator, refusal_contrast(evaluator)))


def stepped(evaluator: Evaluator, begun: Scores) -> Mapping[str, torch.Tensor]:
    """As :func:`learnt_order`, from the scores *begun*, shape (channels,) for each module."""
    threshold = _at_the_edge(begun)
    scores = {module: score / threshold for module, score in begun.items()}
    sizes = {unit.module: unit.parameters / unit.width for unit in evaluator.units}
    questions = _Questions(evaluator)
    edge = 1.0
    for step in range(STEPS):
        moved = likeliest(evaluator, scores, SHARE)
        gained = {
            module: gain / sizes[module] for module, gain in gains(evaluator, moved, questions.objective()).items()
        }
        if step == 0:
            edge = _at_the_edge({module: gain.abs() for module, gain in gained.items()})
        rate = RATE * (1 - step / STEPS) / edge
        scores = {module: score + rate * gained[module] for module, score in scores.items()}
    return {module: (score * sizes[module])[None] for module, score in scores.items()}


def _at_the_edge(scores: Scores) -> float:
    """The lowest of the highest SHARE of all *scores*.

    Where fewer are positive, as with a teacher that differs in a few modules alone, the middle one of those; 1 where
    none is.
    """
    every = torch.cat(list(scores.values()))
    highest = every.topk(max(1, int(SHARE * len(every)))).values
    if highest[-1] > 0:
        return float(highest[-1])
    positive = highest[highest > 0]
    return float(positive.median()) if len(positive) else 1.0


class _Questions:
    """The prior's questions, of which every step asks some: all of them in turn, shuffled anew for each turn."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        questions, shuffled = evaluator.questions.prior, random.Random(0)
        refusal = usual_refusal(evaluator)
        harmful: list[Row] = [(evaluator.generator.encode(p.text), refusal) for p in questions.harmful.first(QUESTIONS)]
        self._harmful = _in_turn(harmful, shuffled)
        self._harmless = _in_turn(_kept(evaluator, questions.harmless.first(HARMLESS_QUESTIONS)), shuffled)
        task = evaluator.questions.task
        self._task = _in_turn(_kept(evaluator, task.search) if task else [], shuffled)

    def objective(self) -> Iterator[torch.Tensor]:
        """What the next step is to raise, in parts of one batch each."""
        harmful = list(islice(self._harmful, HARMFUL_ROWS))
        for refused in batches(harmful, BATCH):
            yield _refusing(self._evaluator, refused).sum() / len(harmful)
        for questions, rows, cost in (
            (self._harmless, HARMLESS_ROWS, DIVERGENCE_COST),
            (self._task, TASK_ROWS, TASK_COST),
        ):
            asked = list(islice(questions, rows))
            for kept in batches(asked, BATCH):
                yield -cost * _diverging(self._evaluator, kept).sum() / len(asked)


def _kept(evaluator: Evaluator, prompts: PromptSet) -> list[Kept]:
    own = own_answers(evaluator, prompts, KEPT_TOKENS)
    return list(zip(own, _as_said(evaluator, own), strict=True))


def _in_turn(items: list[T], shuffled: random.Random) -> Iterator[T]:
    while items:
        shuffled.shuffle(items)
        yield from items


@torch.no_grad()
def _as_said(evaluator: Evaluator, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The student's log-probabilities at its own answers: shape (tokens, vocabulary), bfloat16 to be kept in."""
    return [found.bfloat16() for batch in batches(rows, BATCH) for found in _row_by_row(evaluator, batch)]


def _refusing(evaluator: Evaluator, rows: Sequence[Row]) -> torch.Tensor:
    """The weighted mean log-probability of the tokens of each row's refusal: shape (rows,)."""
    (_, refusal), *_ = rows  # all have the same
    return logprob(evaluator, rows, HARMFUL) / HARMFUL.of(torch.arange(1, len(refusal) + 1)).sum()


def _diverging(evaluator: Evaluator, kept: Sequence[Kept]) -> torch.Tensor:
    """The weighted mean KL(student || patched student) over the tokens of each row's answer: nats, shape (rows,)."""
    found = []
    for (_, said), now in zip(kept, _row_by_row(evaluator, [row for row, _ in kept]), strict=True):
        weights = HARMLESS.of(torch.arange(1, len(now) + 1, device=now.device))
        found.append((token_divergences(said.float(), now) * weights).sum() / weights.sum())
    return torch.stack(found)


def _row_by_row(evaluator: Evaluator, rows: Sequence[Row]) -> list[torch.Tensor]:
    logprobs, _, counted = at_answers(evaluator, rows)
    return [found[kept] for found, kept in zip(logprobs, counted, strict=True)]
