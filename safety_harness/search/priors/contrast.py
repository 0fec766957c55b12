"""Compute the prior ``contrast``: what a channel gains in refusals of harmful questions, less its cost elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.progress import counted
from safety_harness.registry.prompts import PromptSet, batches
from safety_harness.search.priors.base import channel_scores, likeliest
from safety_harness.search.priors.gradients import (
    HARMFUL,
    HARMLESS,
    ROWS_PER_PASS,
    Weights,
    gains,
    logprob,
    opposed,
    usual_refusal,
)
from safety_harness.weights.units import Unit

# How many tokens of the student's own answer a refusal is set against.
OPENING_TOKENS = 5
# How many questions a gradient is taken over.
HARMFUL_QUESTIONS = 64
HARMLESS_QUESTIONS = 128

# The gradients are taken again where this share of everything has moved, a little more than a patch moves. Which
# channels these are, the gradients at either end say.
LIKELIEST_SHARE = 0.06
LIKELIEST_COMPONENTS = 0.5
# What a refusal of harmless questions costs, in refusals of harmful ones, and how much of that a channel earns which
# lowers them. With all of it the likeliest channels undo each other's refusals; with none fewer harmful questions are
# refused at the same size (docs/tried.md).
COST = 1.0
CREDIT = 0.5


def refusal_contrast(evaluator: Evaluator, rows_per_pass: int = ROWS_PER_PASS) -> Mapping[str, torch.Tensor]:
    """Return first-order gains of refusals on harmful questions, and the cost: the same gains on harmless questions.

    The margin of a question is the log-probability of a refusal less that of the opening of the student's own answer,
    tokens weighted (gradients.py). Its gradient times (teacher - student), summed over a unit, estimates what moving
    the unit gains. It is taken at the student and at the fully moved student. It is taken again where the channels have
    moved that are likeliest by these two. All three are added.

    The score is gain less ``COST`` times the cost, a parameter. A unit that lowers refusals of harmless questions earns
    ``CREDIT`` of that.

    Returns:
        A float32 tensor of shape (2, channels) for each module: gain and cost.
    """
    refusal = usual_refusal(evaluator)
    ends = gain_and_cost(evaluator, refusal, ((), evaluator.units), rows_per_pass)
    moved = likeliest(evaluator, scores_of(evaluator, ends), likeliest_share(evaluator))
    between = gain_and_cost(evaluator, refusal, (moved,), rows_per_pass)
    return {module: facts + between[module] for module, facts in ends.items()}


def likeliest_share(evaluator: Evaluator) -> float:
    """Return the share of all that may move where the gradients are taken again, 0..1."""
    return LIKELIEST_COMPONENTS if evaluator.student.search.components else LIKELIEST_SHARE


def worth(facts: torch.Tensor, parameters: float, price: float = COST, credit: float = CREDIT) -> torch.Tensor:
    """Return gain less cost a parameter: *facts* of shape (2, ...) give shape (...)."""
    gain, cost = facts[0], facts[1]
    score: torch.Tensor = (gain - price * torch.where(cost > 0, cost, credit * cost)) / parameters
    return score


def scores_of(evaluator: Evaluator, facts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what each channel is worth by its gain and cost, (2, channels): shape (channels,) for each module."""
    return {unit.module: channel_scores(worth, facts[unit.module], unit) for unit in evaluator.units}


def gain_and_cost(
    evaluator: Evaluator,
    refusal: Sequence[int],
    ends: Sequence[Sequence[Unit]],
    rows_per_pass: int = ROWS_PER_PASS,
) -> Mapping[str, torch.Tensor]:
    """Return what each channel gains on harmful and on harmless questions, shape (2, channels).

    Args:
        ends: sets of moved units; the gains at each are added up.
    """
    questions = evaluator.questions.prior
    harmful, harmless = questions.harmful.first(HARMFUL_QUESTIONS), questions.harmless.first(HARMLESS_QUESTIONS)
    gain = margin_gains(evaluator, harmful, refusal, HARMFUL, ends, rows_per_pass)
    cost = margin_gains(evaluator, harmless, refusal, HARMLESS, ends, rows_per_pass)
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def margin_gains(
    evaluator: Evaluator,
    prompts: PromptSet,
    refusal: Sequence[int],
    weights: Weights,
    ends: Sequence[Sequence[Unit]],
    rows_per_pass: int = ROWS_PER_PASS,
) -> dict[str, torch.Tensor]:
    """Return the first-order gain of each channel in the mean margin, shape (channels,).

    Args:
        ends: sets of moved units; the gains at each are added up.
    """
    rows = opposed(evaluator, prompts, OPENING_TOKENS, refusal)

    def halves() -> Iterator[torch.Tensor]:
        """Yield the two parts of the mean margin, batch by batch: refusals, less the student's own openings."""
        for batch in batches(rows, rows_per_pass):
            yield logprob(evaluator, [refused for _, refused in batch], weights).sum() / len(rows)
            yield -logprob(evaluator, [own for own, _ in batch], weights).sum() / len(rows)

    total = {unit.module: torch.zeros(()) for unit in evaluator.units}
    for moved in ends:
        gained = gains(evaluator, moved, counted("ranking", halves(), 2 * ceil(len(rows) / rows_per_pass)))
        total = {module: before + gained[module] for module, before in total.items()}
    return total
