"""Channels of many modules in one order, and the likeliest share of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from safety_harness.weights.units import Unit, cut


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
        """The first channels that together hold *share* (0..1) of the units' parameters, as one cut unit a module."""
        count = int((self._taken <= share * self._taken[-1] * (1 + 1e-9)).sum())
        chosen: dict[int, list[int]] = defaultdict(list)
        for module, channel in zip(self._module[:count].tolist(), self._channel[:count].tolist(), strict=True):
            chosen[module].append(channel)
        return tuple(cut(self._units[module], channels) for module, channels in sorted(chosen.items()))
