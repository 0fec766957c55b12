"""The default search without a prior among few units, or once neighbours belong together: is one half enough?

The first question of Zeller & Hildebrandt's ddmin (2002), asked again of the half that is left for as long as the
answer is yes. If neither half is enough, two questions have told that units are needed on both sides, and the
adaptive search goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self, TypeAlias

from safety_harness.ddmin.evidence import united
from safety_harness.ddmin.twoended import TwoEnded
from safety_harness.ddmin.types import Answer, Question

_TOO_FEW = 4  # units that are not worth halving

Halves: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The two parts of a line, from one of its ends on; the first is to be left out first."""


def in_the_middle(line: Sequence[int]) -> Halves:
    """Parts of equal length, from the first unit on."""
    half = len(line) // 2
    return line[:half], line[half:]


class EitherHalf:
    """Halves of a line, the first one left out first, and then the search from both ends.

    cut: how a line is halved.
    """

    def __init__(self, line: Sequence[int], cut: Callable[[Sequence[int]], Halves] = in_the_middle) -> None:
        self._cut = cut
        self._first_stays = False  # neither half is enough, unless the first one is
        self._plan: TwoEnded | None = None
        self._halve(line)

    def question(self) -> Question | None:
        return united(self._left()) if self._plan is None else self._plan.question()

    def tell(self, answer: Answer) -> None:
        if self._plan is not None:
            self._plan.tell(answer)
            self.kept = self._plan.kept
        elif answer is Answer.TRUE:
            self._halve(self._left())
        elif self._first_stays:
            self._plan = TwoEnded([*self._first, *self._second], refused=len(self._first))
        else:
            self._first_stays = True

    def fork(self) -> Self:
        twin = copy(self)
        twin._plan = None if self._plan is None else self._plan.fork()
        return twin

    def chance(self) -> float:
        return 0.5 if self._plan is None else self._plan.chance()

    def remaining(self) -> float:
        return self.kept.bit_count() if self._plan is None else self._plan.remaining()

    def _left(self) -> Sequence[int]:
        return self._first if self._first_stays else self._second

    def _halve(self, line: Sequence[int]) -> None:
        self._first, self._second = self._cut(line)
        self._first_stays = False
        self.kept = united(line)
        if len(line) < _TOO_FEW:
            self._plan = TwoEnded(line)
