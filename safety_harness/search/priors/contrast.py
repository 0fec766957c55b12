"""The prior ``contrast``: what a channel gains in refusals of harmful questions, less what it costs elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.registry.prompts import PromptSet, batches
from safety_harness.search.priors.base import channel_scores, likeliest
from safety_harness.search.priors.gradients import (
    BATCH,
    HARMFUL,
    HARMLESS,
    Weights,
    gains,
    logprob,
    own_answers,
    usual_refusal,
)
from safety_harness.weights.units import Unit

# How many tokens of the student's own answer a refusal is set against.
OPENING = 5
# How many questions a gradient is taken over.
QUESTIONS = 64
HARMLESS_QUESTIONS = 128

# The share of everything that may move, by the gradients at either end, where they are taken once more.
LIKELIEST = 0.06
# What a refusal of harmless questions costs, in refusals of harmful ones, and how much of that a channel earns which
# lowers them: with all of it the likeliest channels undo each other's refusals, with none fewer are refused at the same
# size (docs/tried.md).
COST = 1.0
CREDIT = 0.5


def refusal_contrast(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
    """First-order gain of refusals on harmful questions, and what the same would add on harmless ones.

    The margin of a question is the log-probability of a refusal less that of the opening of the student's own answer,
    tokens weighted (gains.py). Its gradient times (teacher - student), summed over a unit, estimates what moving the
    unit gains, over harmful and over harmless questions. It is taken at the student and at the fully moved student, and
    once more where the channels that are likeliest by these two have moved, a little more than a patch moves; all
    three are added. The score is gain less ``COST`` times the cost, a parameter; a unit that lowers refusals of
    harmless questions earns ``CREDIT`` of that for it.
    """
    refusal = usual_refusal(evaluator)
    ends = gain_and_cost(evaluator, refusal, ((), evaluator.units))
    there = gain_and_cost(evaluator, refusal, (likeliest(evaluator, scores_of(evaluator, ends), LIKELIEST),))
    return {module: facts + there[module] for module, facts in ends.items()}


def worth(facts: torch.Tensor, parameters: float, price: float = COST, credit: float = CREDIT) -> torch.Tensor:
    """Gain less cost, the *facts* of shape (2, ...), a parameter."""
    gain, cost = facts[0], facts[1]
    score: torch.Tensor = (gain - price * torch.where(cost > 0, cost, credit * cost)) / parameters
    return score


def scores_of(evaluator: Evaluator, facts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What each channel is worth by its gain and cost, shape (2, channels): shape (channels,) for each module."""
    return {unit.module: channel_scores(worth, facts[unit.module], unit) for unit in evaluator.units}


def gain_and_cost(
    evaluator: Evaluator, refusal: Sequence[int], ends: Sequence[Sequence[Unit]]
) -> Mapping[str, torch.Tensor]:
    """What each channel gains on harmful and on harmless questions, shape (2, channels), added up over *ends*."""
    questions = evaluator.questions.prior
    harmful = margin_gains(evaluator, questions.harmful.first(QUESTIONS), refusal, HARMFUL, ends)
    harmless = margin_gains(evaluator, questions.harmless.first(HARMLESS_QUESTIONS), refusal, HARMLESS, ends)
    return {module: torch.stack([gain, harmless[module]]) for module, gain in harmful.items()}


def margin_gains(
    evaluator: Evaluator, prompts: PromptSet, refusal: Sequence[int], weights: Weights, ends: Sequence[Sequence[Unit]]
) -> dict[str, torch.Tensor]:
    """First-order gain of each channel in the mean margin, shape (channels,), added up over *ends*: units moved."""
    own = own_answers(evaluator, prompts, OPENING)

    def halves() -> Iterator[torch.Tensor]:
        for batch in batches(own, BATCH):
            yield logprob(evaluator, [(question, refusal) for question, _ in batch], weights).sum() / len(own)
            yield -logprob(evaluator, batch, weights).sum() / len(own)

    total = {unit.module: torch.zeros(()) for unit in evaluator.units}
    for moved in ends:
        found = gains(evaluator, moved, halves())
        total = {module: before + found[module] for module, before in total.items()}
    return total
