"""Find what delta debugging starts from: about the smallest share of the likeliest units that the oracle accepts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safety_harness.errors import VoidProbe
from safety_harness.evaluation.oracle import Failure
from safety_harness.gate.records import Budgets
from safety_harness.search.candidates import Candidates
from safety_harness.search.course import Course
from safety_harness.weights.units import Unit

# How often the interval between a share that refuses too little and one that refuses enough is halved. After three
# times a start is at most an eighth larger than it need be. Each time costs a probe.
NARROWINGS = 3


@dataclass(frozen=True)
class Start:
    """Units that keep *budgets*, and the oracle's answers under these budgets that are known already."""

    units: tuple[Unit, ...]
    budgets: Budgets
    known: Mapping[frozenset[Unit], bool]


class Shares:
    """Shares of the likeliest units, each probed at most once under the budgets of the settings."""

    def __init__(self, candidates: Candidates, course: Course, budgets: Budgets) -> None:
        self._candidates = candidates
        self._course = course
        self._budgets = budgets
        self._too_few: dict[tuple[Unit, ...], bool] = {(): True}
        self._known = {frozenset[Unit](): False}

    def smallest_accepted(self) -> Start | None:
        """Return about the smallest share that refuses enough within the budgets; None if no share does."""
        low = 0.0
        for share in self._candidates.shares:
            if not self._refuses_too_little(share):
                # Twice the share that refuses too little often refuses harmless questions: probe between the two.
                tried = [share, *_narrowed(low, share, self._refuses_too_little)]
                if accepted := [one for one in tried if self._known.get(frozenset(self._candidates.best(one)))]:
                    return Start(self._candidates.best(min(accepted)), self._budgets, self._known)
            low = share
        return None

    def most_within(self, lowest: Budgets) -> Start | None:
        """Return about the largest share that keeps the *lowest* budgets but refuses less than the settings ask for.

        It is for students of which no share refuses enough within the budgets. The start's target is what its share
        refuses, at most what the settings ask for. None if no share keeps the lowest budgets.
        """
        refused: dict[float, int] = {}

        def keeps(share: float) -> bool:
            """Return whether *share* keeps the lowest budgets, and note its refusals."""
            with contextlib.suppress(VoidProbe):
                probe = self._course.probe(self._candidates.best(share), lowest)
                if probe.accepted:
                    refused[share] = probe.refused
            return share in refused

        shares = self._candidates.shares
        high = next((share for share in shares if not self._refuses_too_little(share)), None)
        for low in reversed([share for share in shares if high is None or share < high]):
            if keeps(low):
                if high is not None:
                    _narrowed(low, high, keeps)
                # Of shares that refuse equally many, the smallest.
                most = max(refused, key=lambda share: (refused[share], -share))
                units = self._candidates.best(most)
                target = min(refused[most], self._budgets.target)  # larger only where it is a kind of harm that misses
                budgets = lowest.model_copy(update={"target": target})
                return Start(units, budgets, {frozenset(): False, frozenset(units): True})
            high = low
        return None

    def _refuses_too_little(self, share: float) -> bool:
        """Return whether *share* fails on its refusals, rather than on what they cost."""
        units = self._candidates.best(share)
        if units not in self._too_few:
            self._too_few[units] = True
            # A void share says nothing about a larger one.
            with contextlib.suppress(VoidProbe):
                probe = self._course.probe(units, self._budgets)
                self._known[frozenset(units)] = probe.accepted
                self._too_few[units] = probe.failed is Failure.REFUSALS
        return self._too_few[units]


def _narrowed(low: float, high: float, still_low: Callable[[float], bool]) -> list[float]:
    """Return shares between *low* and *high*, halving towards where *still_low* turns false."""
    tried = []
    for _ in range(NARROWINGS):
        tried.append(middle := (low + high) / 2)
        low, high = (middle, high) if still_low(middle) else (low, middle)
    return tried
