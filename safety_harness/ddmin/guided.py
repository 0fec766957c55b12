"""The default search where a prior orders the units: by importance, unless required units are neighbours.

Sorting by a prior is what makes a good one pay, and it tears apart what lies together. So as soon as the sorted
order meets its first refusal, a few questions ask whether one half of the units, as they lie originally, is
enough. If required units are neighbours, one half is, and it is halved again; if not, neither will do, and two
questions are lost. The prior still says where to cut, so as not to tear a cluster, and which half to leave out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

from safety_harness.ddmin.adaptive import Adaptive
from safety_harness.ddmin.eitherhalf import EitherHalf, Halves
from safety_harness.ddmin.evidence import ranks, united
from safety_harness.ddmin.twoended import TwoEnded
from safety_harness.ddmin.types import Answer, Plan, Question, Ranks

_MANY = 128  # units among which one half is seldom enough, and another end can be looked at later
_TOO_FEW = 16  # units among which the question of neighbours is not worth its price


def adaptive(kept: Question, order: Ranks) -> Plan:
    """The adaptive search, in the original order if there is no prior."""
    return _as_they_lie(ranks(kept)) if order is None else Guided(kept, order)


def _as_they_lie(line: Sequence[int]) -> Plan:
    return EitherHalf(line) if len(line) < _MANY else TwoEnded(line)


class Guided:
    """Adaptive search in order of importance that changes over to the original order if that pays.

    order: the original position of each rank.
    """

    def __init__(self, kept: Question, order: tuple[int, ...]) -> None:
        self._order = order
        self._plan: Plan = Adaptive(ranks(kept), sorted_by_prior=True)
        self._doubts: tuple[Question, ...] = ()  # sets whose removal would show that neighbours belong together
        self._refusals = 0
        self._settled = False

    @property
    def kept(self) -> Question:
        return self._plan.kept

    def question(self) -> Question | None:
        return self.kept ^ self._doubts[0] if self._doubts else self._plan.question()

    def tell(self, answer: Answer) -> None:
        if self._doubts:
            smaller, self._doubts = self.kept ^ self._doubts[0], self._doubts[1:]
            if answer is Answer.TRUE:
                self._plan = EitherHalf(self._original(smaller), _lighter_first)
                self._doubts, self._settled = (), True
            return
        self._plan.tell(answer)
        if not self._settled:
            self._doubt(answer)

    def fork(self) -> Self:
        twin = copy(self)
        twin._plan = self._plan.fork()
        return twin

    def chance(self) -> float:
        return 0.3 if self._doubts else self._plan.chance()

    def remaining(self) -> float:
        return len(self._doubts) + self._plan.remaining()

    def _doubt(self, answer: Answer) -> None:
        """After the first refusal try halves; after a second without any success try the outer quarters."""
        if answer is Answer.TRUE:
            self._settled = self._refusals > 0
            return
        self._refusals += 1
        self._settled = self._refusals > 1
        line = self._original(self.kept)
        if len(line) < _TOO_FEW:
            return
        if self._refusals == 1:
            self._doubts = tuple(united(half) for half in _lighter_first(line))
        elif len(line) == len(self._order):
            size = len(line) // 4
            quarters = sorted((line[:size], line[-size:]), key=sum)  # the less important by rank first
            self._doubts = tuple(united(quarter) for quarter in quarters)

    def _original(self, kept: Question) -> list[int]:
        return sorted(ranks(kept), key=self._order.__getitem__)


def _lighter_first(line: Sequence[int]) -> Halves:
    """About half of the line each, the less important one by rank first."""
    cut = _unimportant_place(line)
    if sum(line[:cut]) > sum(line[cut:]):
        line, cut = line[::-1], len(line) - cut
    return line[:cut], line[cut:]


def _unimportant_place(line: Sequence[int]) -> int:
    """Where around the middle a cut is least likely to go through a cluster of important units."""
    reach = max(len(line) // 16, 2)
    places = range(3 * len(line) // 8, 5 * len(line) // 8 + 1)

    def importance(place: int) -> int:
        return sum(line[max(place - reach, 0) : place + reach])

    return min(places, key=lambda place: (importance(place), abs(2 * place - len(line))))
