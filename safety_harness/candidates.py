"""What a search starts from: the likeliest units of a bench, few or many, at the grain that its settings name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

import torch

from safety_harness.bench import Bench
from safety_harness.prior import Importance
from safety_harness.units import Group, Unit, cut


class Candidates(ABC):
    """The units of *bench* in the order of their importance."""

    shares: ClassVar[Sequence[float]]
    """How much of everything to try, fewest first; a search looks more closely where refusals become enough."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._importance = Importance(bench)

    def weight(self, group: Group) -> float:
        """How likely units are to be needed, for delta debugging."""
        return self._importance.of(group)

    @abstractmethod
    def best(self, share: float) -> tuple[Unit, ...]:
        """The most important *share* of everything, 0..1; what a smaller share holds, a larger one holds as well."""


class Modules(Candidates):
    """Whole modules: a share of their number."""

    shares = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def best(self, share: float) -> tuple[Unit, ...]:
        ranked = sorted(self._bench.units, key=lambda unit: -self.weight((unit,)))
        chosen = frozenset(ranked[: round(share * len(ranked))])
        return tuple(unit for unit in self._bench.units if unit in chosen)


class Channels(Candidates):
    """Channels, grouped to one unit a module: a share of their parameters.

    Refusal lies in a few channels of many modules, so that a few percent of the parameters, chosen by channel, do
    what takes a quarter of them by module (docs/units.md).
    """

    shares = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        units = bench.units
        scores = [self._importance.of_channels(unit) for unit in units]
        lengths = torch.tensor([len(score) for score in scores])
        sizes = torch.tensor([unit.parameters / len(score) for unit, score in zip(units, scores, strict=True)])
        order = torch.cat(scores).argsort(descending=True, stable=True)
        self._module = torch.repeat_interleave(torch.arange(len(units)), lengths)[order]
        self._channel = torch.cat([torch.arange(int(length)) for length in lengths])[order]
        self._taken = sizes.repeat_interleave(lengths)[order].double().cumsum(0)

    def best(self, share: float) -> tuple[Unit, ...]:
        count = int((self._taken <= share * self._taken[-1] * (1 + 1e-9)).sum())
        chosen: dict[int, list[int]] = defaultdict(list)
        for module, channel in zip(self._module[:count].tolist(), self._channel[:count].tolist(), strict=True):
            chosen[module].append(channel)
        return tuple(
            cut(self._bench.units[module], channels, self._bench.checkpoint.shapes)
            for module, channels in sorted(chosen.items())
        )


GRAINS: dict[str, type[Candidates]] = {"module": Modules, "channel": Channels}
