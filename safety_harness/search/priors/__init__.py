"""Priors: how much a unit is likely to matter, so that the search tries to do without the unlikely ones first.

A prior orders the search and never decides: the oracle does. It sees the search split only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from safety_harness.errors import ConfigError
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.search.priors.base import Prior, channel_scores
from safety_harness.search.priors.contrast import refusal_contrast, worth
from safety_harness.search.priors.descent import learnt_order
from safety_harness.search.priors.norm import difference_norm
from safety_harness.weights.units import Group, Unit

__all__ = ["PRIORS", "Importance", "Prior"]


class Importance:
    """Score units, or channels of one, by the prior that the settings of *evaluator* name: how likely each matters.

    Raises:
        ConfigError: the prior's name is not known, or all of the teacher refuses none of its questions.
        SourceError: a gradient is not finite.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        name = evaluator.student.search.prior
        if name not in PRIORS:
            raise ConfigError(f"Unknown prior {name!r}. Known: {', '.join(PRIORS)}.")
        self._prior = PRIORS[name]
        self._evidence = self._prior.evidence(evaluator)

    def of(self, group: Group) -> float:
        """Of whole units or of cut ones together; larger is likelier."""
        facts = torch.stack([self._facts(unit) for unit in group]).sum(0)
        return float(self._prior.score(facts, sum(unit.parameters for unit in group)))

    def of_channels(self, unit: Unit) -> torch.Tensor:
        """Of each channel of a whole unit: float32, shape (channels,)."""
        return channel_scores(self._prior.score, self._evidence[unit.module], unit)

    def _facts(self, unit: Unit) -> torch.Tensor:
        evidence = self._evidence[unit.module]
        return (evidence[:, list(unit.channels)] if unit.channels else evidence).sum(1)


PRIORS: Mapping[str, Prior] = {
    "norm": Prior(difference_norm, lambda facts, parameters: (facts[0] / parameters).sqrt()),
    "contrast": Prior(refusal_contrast, worth),
    "descent": Prior(learnt_order, lambda facts, parameters: facts[0] / parameters),
}
