"""Search in order of importance where there is a prior, unless required units turn out to be neighbours.

A good prior pays because units are sorted by it, and sorting tears neighbours apart. So when the sorted order meets its
first refusal, two questions ask whether one half of the units, in their original order, is enough. If required units
are neighbours, one half is enough, and it is halved again. If not, neither half is, and two questions are lost. The
prior still says where to cut, so that no cluster is torn, and which half to leave out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

from safety_harness.ddmin.adaptive import Adaptive
from safety_harness.ddmin.eitherhalf import EitherHalf, Halves
from safety_harness.ddmin.evidence import ranks, united
from safety_harness.ddmin.twoended import TwoEnded
from safety_harness.ddmin.types import Answer, Plan, PriorOrder, Question

# Percentages below are calls on the cells of benchmarks/ddmin, up to 224 units.

# From this many units on, a search without a prior does not begin with halves: one half is seldom enough, and there is
# room for a look from the other end instead (`TwoEnded`). Never asking about halves costs thresholds 7 % more and saves
# scattered units 3 %; a limit of 256 saves thresholds 2 % and costs scattered units 2 %.
_MANY = 128
# Among fewer units the questions about neighbours cost more than they save. A limit of 8 costs 0.5 % more; one of 32
# costs blocks among 32 units 12 % more.
_TOO_FEW = 16


def adaptive(kept: Question, order: PriorOrder) -> Plan:
    """Return the default search for a set: guided by the prior, or in original order if there is none."""
    if order is not None:
        return Guided(kept, order)
    line = ranks(kept)
    return EitherHalf(line) if len(line) < _MANY else TwoEnded(line)


class Guided:
    """An adaptive search in order of importance that changes over to the original order if neighbours belong together.

    order: the original position of each rank.
    """

    def __init__(self, kept: Question, order: tuple[int, ...]) -> None:
        self._order = order
        self._plan: Plan = Adaptive(ranks(kept), sorted_by_prior=True)
        self._doubts: tuple[Question, ...] = ()  # sets to leave out: a success shows that neighbours belong together
        self._refusals = 0  # in the sorted order
        self._settled = False  # whether the order is chosen for good

    @property
    def kept(self) -> Question:
        return self._plan.kept

    def question(self) -> Question | None:
        return self.kept ^ self._doubts[0] if self._doubts else self._plan.question()

    def tell(self, answer: Answer) -> None:
        if self._doubts:
            # The plan gets no answer: it stays at its own question, and goes on there if the doubts come to nothing.
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
        """Choose what to ask about neighbours after the plan's first two refusals. A success settles the order.

        Without these questions blocks of neighbours cost 69 % more calls, and 2.5 times as many among 672 units. All
        other units cost 2 to 5 % less.
        """
        if answer is Answer.TRUE:
            # Before the first refusal a success says nothing: the least important units go in any case. After it, the
            # sorted order still removes units, so it is worth keeping.
            self._settled = self._refusals > 0
            return
        self._refusals += 1
        self._settled = self._refusals > 1
        line = self._original(self.kept)
        if len(line) < _TOO_FEW:
            return
        if self._refusals == 1:
            # Is one half enough? The lighter half is the likelier to go.
            self._doubts = tuple(united(half) for half in _lighter_first(line))
        elif len(line) == len(self._order):
            # Twice refused, and nothing has gone yet: a block may lie across the middle, where both halves tear it.
            # Then an outer quarter can go. This saves blocks 1 % and costs scattered units 1 %.
            size = len(line) // 4
            quarters = sorted((line[:size], line[-size:]), key=sum)  # the less important by rank first
            self._doubts = tuple(united(quarter) for quarter in quarters)

    def _original(self, kept: Question) -> list[int]:
        """Return the ranks in a set, in the units' original order."""
        return sorted(ranks(kept), key=self._order.__getitem__)


def _lighter_first(line: Sequence[int]) -> Halves:
    """Cut a line near its middle. The part that is less important by rank comes first."""
    cut = _unimportant_place(line)
    if sum(line[:cut]) > sum(line[cut:]):
        line, cut = line[::-1], len(line) - cut
    return line[:cut], line[cut:]


def _unimportant_place(line: Sequence[int]) -> int:
    """Return where, around the middle, a cut is least likely to tear a cluster of important units.

    A cut at the middle itself costs blocks 7 % more calls.
    """
    # A window of an eighth of the line smooths the ranks: a single one is too noisy to show where a cluster lies. The
    # middle quarter keeps both parts large.
    reach = max(len(line) // 16, 2)
    places = range(3 * len(line) // 8, 5 * len(line) // 8 + 1)

    def importance(place: int) -> int:
        """Sum the ranks around a place."""
        return sum(line[max(place - reach, 0) : place + reach])

    return min(places, key=lambda place: (importance(place), abs(2 * place - len(line))))
