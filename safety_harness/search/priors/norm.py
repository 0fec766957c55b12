"""Compute the prior ``norm``: how far teacher and student lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.search.priors.gradients import by_channel
from safety_harness.weights.units import Part, Unit


def difference_norm(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
    """Return the squares of teacher minus student. The score is their root mean square.

    Cheap, and good if the student descends from the teacher. On a student that was tuned apart from the teacher it
    measures the student's own tuning.

    Returns:
        A float32 tensor of shape (1, channels) for each module.
    """

    def squares(unit: Unit, part: Part) -> torch.Tensor:
        """Return those of one part of a whole unit: shape (channels,)."""
        if unit.rank:
            left, _ = evaluator.transplanter.factors(part, unit.rank)
            return left.square().sum(0)
        return by_channel(unit, part, evaluator.transplanter.difference(part).square()).cpu()

    return {
        unit.module: torch.stack([squares(unit, part) for part in unit.parts]).sum(0)[None] for unit in evaluator.units
    }
