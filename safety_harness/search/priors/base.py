"""Describe priors and rankings: facts of each channel, their score, and channels in the order of their scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.weights.units import Unit, cut

Score = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Prior:
    """What is known of each channel, and what it says of any number of channels.

    ``channel_facts`` returns a float32 tensor of shape (facts, channels) for each module. Facts add up over channels.
    ``score`` turns facts, shape (facts, ...), and the number of their parameters into a score, shape (...).
    """

    channel_facts: Callable[[Evaluator], Mapping[str, torch.Tensor]]
    score: Score


class Ranking:
    """The channels of whole *units*, the highest of their *scores* first.

    Args:
        scores: one tensor a unit, shape (its channels,).
    """

    def __init__(self, units: Sequence[Unit], scores: Sequence[torch.Tensor]) -> None:
        self._units = units
        lengths = torch.tensor([len(score) for score in scores])
        sizes = torch.tensor([unit.parameters / len(score) for unit, score in zip(units, scores, strict=True)])
        order = torch.cat(list(scores)).argsort(descending=True, stable=True)
        self._module = torch.repeat_interleave(torch.arange(len(units)), lengths)[order]
        self._channel = torch.cat([torch.arange(int(length)) for length in lengths])[order]
        self._taken = sizes.repeat_interleave(lengths)[order].double().cumsum(0)

    def best(self, share: float) -> tuple[Unit, ...]:
        """Return the first channels that together hold *share* (0..1) of all parameters, as one cut unit a module."""
        # A sum of many sizes may miss the share that it makes up by a rounding error.
        count = int((self._taken <= share * self._taken[-1] * (1 + 1e-9)).sum())
        chosen: dict[int, list[int]] = defaultdict(list)
        for module, channel in zip(self._module[:count].tolist(), self._channel[:count].tolist(), strict=True):
            chosen[module].append(channel)
        return tuple(cut(self._units[module], channels) for module, channels in sorted(chosen.items()))


def channel_scores(score: Score, facts: torch.Tensor, unit: Unit) -> torch.Tensor:
    """Return the *score* of each channel of a whole *unit*, shape (channels,), by its *facts*, (facts, channels)."""
    return score(facts, unit.parameters / facts.shape[1])


def likeliest(evaluator: Evaluator, scores: Mapping[str, torch.Tensor], share: float) -> tuple[Unit, ...]:
    """Return the channels with the highest *scores*, (channels,) a module, that hold *share* of all that may move."""
    return Ranking(evaluator.units, [scores[unit.module] for unit in evaluator.units]).best(share)
