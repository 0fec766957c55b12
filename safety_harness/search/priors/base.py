"""What a prior is: facts of each channel, and what they say of any number of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.search.priors.ranking import Ranking
from safety_harness.weights.units import Unit

Score = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Prior:
    """What is known of each channel, and what it says of any number of them.

    ``evidence`` gives a float32 tensor of shape (facts, channels) for each module; facts add up over channels.
    ``score`` makes a number of facts, shape (facts, ...), and how many parameters they are about.
    """

    evidence: Callable[[Evaluator], Mapping[str, torch.Tensor]]
    score: Score


def channel_scores(score: Score, facts: torch.Tensor, unit: Unit) -> torch.Tensor:
    """The *score* of each channel of a whole *unit* by its *facts*, shape (facts, channels): shape (channels,)."""
    return score(facts, unit.parameters / facts.shape[1])


def likeliest(evaluator: Evaluator, scores: Mapping[str, torch.Tensor], share: float) -> tuple[Unit, ...]:
    """The channels of the highest *scores*, shape (channels,) a module, that hold *share* of all that may move."""
    return Ranking(evaluator.units, [scores[unit.module] for unit in evaluator.units]).best(share)
