"""Choose what a search starts from: the likeliest units, few or many, at the grain that the settings name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.search.priors import Importance
from safety_harness.search.priors.base import Ranking
from safety_harness.weights.units import Group, Unit


class Candidates(ABC):
    """The units of *evaluator* in the order of their *importance*: by default that of the settings' prior."""

    SHARES: ClassVar[Sequence[float]]

    def __init__(self, evaluator: Evaluator, importance: Importance | None = None) -> None:
        self._evaluator = evaluator
        self._importance = importance or Importance(evaluator)

    @property
    def shares(self) -> Sequence[float]:
        """The shares of all movable parameters to try, smallest first, up to the settings' ``max_share``."""
        largest = self._evaluator.student.search.max_share
        return (*(share for share in self.SHARES if share < largest), largest)

    def weight(self, group: Group) -> float:
        """Return how likely the units of *group* are to be needed, for delta debugging."""
        return self._importance.of(group)

    @abstractmethod
    def best(self, share: float) -> tuple[Unit, ...]:
        """Return the most important *share* of everything, 0..1. A larger share contains every smaller one."""


class Modules(Candidates):
    """Whole modules. A share is a share of their number."""

    # Few steps: there are some dozens of modules, and refusal needs a quarter of them.
    SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    def best(self, share: float) -> tuple[Unit, ...]:
        """Return the most important modules, in the model's order."""
        ranked = sorted(self._evaluator.units, key=lambda unit: -self.weight((unit,)))
        chosen = frozenset(ranked[: round(share * len(ranked))])
        return tuple(unit for unit in self._evaluator.units if unit in chosen)


class Channels(Candidates):
    """Channels, grouped to one unit a module. A share is a share of their parameters.

    Refusal lies in a few channels of many modules. A few percent of the parameters, chosen by channel, do what takes a
    quarter of them by module (docs/units.md).
    """

    # Doubled each time: `start` halves the interval afterwards.
    SHARES: ClassVar[Sequence[float]] = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)

    def __init__(self, evaluator: Evaluator, importance: Importance | None = None) -> None:
        super().__init__(evaluator, importance)
        scores = [self._importance.of_channels(unit) for unit in evaluator.units]
        self._ranking = Ranking(evaluator.units, scores)

    def best(self, share: float) -> tuple[Unit, ...]:
        """Return the most important channels, as one unit a module."""
        return self._ranking.best(share)


class Components(Channels):
    """Components of what the teacher adds, grouped to one unit a module. A share is a share of their numbers."""

    # Refusal takes a tenth to a half of them (docs/units.md).
    SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


GRAINS: dict[str, type[Candidates]] = {"module": Modules, "channel": Channels, "component": Components}
