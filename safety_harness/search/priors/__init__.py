"""Priors: how much a unit is likely to matter, so that the search tries to do without the unlikely units first.

A prior orders the search and never decides: the oracle does. It sees the search split only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.search.priors.base import Prior, channel_scores
from safety_harness.search.priors.contrast import refusal_contrast, worth
from safety_harness.search.priors.descent import learnt_order
from safety_harness.search.priors.norm import difference_norm
from safety_harness.weights.units import Group, Unit

__all__ = ["PRIORS", "Importance", "Prior"]


class Importance:
    """Score units, or channels of one, by a *prior*: by default the one that the settings of *evaluator* name.

    Raises:
        ConfigError: all of the teacher refuses none of the prior's questions.
        SourceError: a gradient is not finite.
    """

    def __init__(self, evaluator: Evaluator, prior: Prior | None = None) -> None:
        self._prior = prior or PRIORS[evaluator.student.search.prior]
        self._channel_facts = self._prior.channel_facts(evaluator)

    def of(self, group: Group) -> float:
        """Return the score of whole or cut units together. Larger is likelier."""
        facts = torch.stack([self._facts(unit) for unit in group]).sum(0)
        return float(self._prior.score(facts, sum(unit.parameters for unit in group)))

    def of_channels(self, unit: Unit) -> torch.Tensor:
        """Return the score of each channel of a whole unit: float32, shape (channels,)."""
        return channel_scores(self._prior.score, self._channel_facts[unit.module], unit)

    def _facts(self, unit: Unit) -> torch.Tensor:
        """Return the facts of a whole or cut unit, added up over its channels: shape (facts,)."""
        facts = self._channel_facts[unit.module]
        return (facts[:, list(unit.channels)] if unit.channels else facts).sum(1)


PRIORS: Mapping[str, Prior] = {
    "norm": Prior(difference_norm, lambda facts, parameters: (facts[0] / parameters).sqrt()),
    "contrast": Prior(refusal_contrast, worth),
    "descent": Prior(learnt_order, lambda facts, parameters: facts[0] / parameters),
}
