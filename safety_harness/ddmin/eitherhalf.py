"""Ask whether one half is enough, for as long as it is; then search from both ends.

This is the default search without a prior among few units, and with a prior once neighbours belong together. It
repeats the first question of Zeller & Hildebrandt's ddmin (2002) on the half that is left. If neither half is enough,
two questions have shown that units are needed on both sides, and the adaptive search goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self, TypeAlias

from safety_harness.ddmin.evidence import united
from safety_harness.ddmin.twoended import TwoEnded
from safety_harness.ddmin.types import Answer, Question

# A line shorter than this is not worth halving. On the cells of benchmarks/ddmin, limits of 2 and of 8 change the
# calls by less than 1 % in the mean.
_TOO_FEW = 4

Halves: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The two parts of a line, from one of its ends on. The first part is the first to be left out."""


def in_the_middle(line: Sequence[int]) -> Halves:
    """Return two parts of equal length, from the first unit on."""
    half = len(line) // 2
    return line[:half], line[half:]


class EitherHalf:
    """A search that leaves out halves of a line, the first half first, and then searches from both ends.

    cut: how a line is halved.
    """

    def __init__(self, line: Sequence[int], cut: Callable[[Sequence[int]], Halves] = in_the_middle) -> None:
        self._cut = cut
        self._first_stays = False  # the second half alone was refused, so the first half alone is asked about
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
            # Without its first half the line was refused. So the first required unit is in the first half, and the
            # search begins with a bisection of that half instead of a run of unknown length.
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
        """Return the half that the current question keeps."""
        return self._first if self._first_stays else self._second

    def _halve(self, line: Sequence[int]) -> None:
        """Go on with an accepted line: cut it, or search it from both ends if it is short."""
        self._first, self._second = self._cut(line)
        self._first_stays = False
        self.kept = united(line)
        if len(line) < _TOO_FEW:
            self._plan = TwoEnded(line)
