"""The default search without a prior: adaptive, and once it runs dry, a look from the other end.

When required units come in a row, what can go is as good as used up, and each unit left costs a question. Two
questions are then worth asking. Can half of what is left go at once, because the row was but a cluster? If not,
would a slightly longer run at the other end have gone instead of what has? With uneven weights that often
spares many units and so many questions, above all if something heavy was thrown out early.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import isqrt
from typing import Self

from safety_harness.ddmin.adaptive import Adaptive
from safety_harness.ddmin.evidence import united
from safety_harness.ddmin.types import Answer, Question

_ROW = 5  # required units in a row that say: it has run dry
_WORTH = 128  # units that must be left for two questions to pay


class TwoEnded:
    """Adaptive search from the first unit of a line on, which may start again from the last one, once.

    refused: so many units from the first on are known not to go together; 0: unknown.
    """

    def __init__(self, line: Sequence[int], *, refused: int = 0) -> None:
        self.kept = united(line)
        self._line = line
        self._plan = Adaptive(self._line, refused=refused)
        self._special: Question | None = None  # asked instead of the plan's question
        self._done = False  # with special questions

    def question(self) -> Question | None:
        return self._plan.question() if self._special is None else self._special

    def tell(self, answer: Answer) -> None:
        if self._special is None:
            self._plan.tell(answer)
            self.kept = self._plan.kept
            if self._plan.in_a_row == _ROW and self._plan.left >= _WORTH and not self._done:
                self._special = self._plan.kept ^ self._half_of_rest()
        elif self._special & ~self._plan.kept:
            self._from_the_other_end(answer)
        else:
            self._without_half(answer)

    def fork(self) -> Self:
        twin = copy(self)
        twin._plan = self._plan.fork()
        return twin

    def chance(self) -> float:
        return self._plan.chance() if self._special is None else 0.2

    def remaining(self) -> float:
        return self._plan.remaining() + (self._special is not None)

    def _half_of_rest(self) -> Question:
        return united(self._line[len(self._line) - self._plan.left // 2 :])

    def _without_half(self, answer: Answer) -> None:
        self._special = None
        if answer is Answer.TRUE:
            half = self._plan.left // 2
            self._line = self._line[: len(self._line) - half]
            self._plan.forget(half)
            self.kept = self._plan.kept
            return
        self._done = True
        gone = len(self._line) - self.kept.bit_count()
        run = gone + isqrt(gone)
        if gone > 0 and run < len(self._line):
            self._special = united(self._line[:-run])

    def _from_the_other_end(self, answer: Answer) -> None:
        if answer is Answer.TRUE and self._special is not None:
            run = len(self._line) - self._special.bit_count()
            self._plan = Adaptive(self._line[::-1])
            self._plan.skip(run, isqrt(run))
            self.kept = self._special
        self._special = None
