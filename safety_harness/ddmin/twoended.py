"""Search adaptively in original order, and look from the other end once the search runs dry.

This is the default search without a prior. When required units come in a row, hardly anything more can go, and each
unit left costs a question. Then two questions are worth asking:
1. Can half of what is left go at once, because the row was only a cluster?
2. If not: could a slightly longer run at the other end have gone, instead of the units that have?
With uneven weights the second often removes many units at once, above all if something heavy was left out early.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import isqrt
from typing import Self

from safety_harness.ddmin.adaptive import Adaptive
from safety_harness.ddmin.evidence import united
from safety_harness.ddmin.types import Answer, Question

# Measured on the cells of benchmarks/ddmin: both questions save 10 % of the calls on a heavy-tailed cell of 224 units,
# and change the mean over all cells by less than 1 %.

# Required units in a row after which a search has run dry. 3 and 8 change the calls by less than 1 % in the mean.
_ROW = 5
# Units that must be left for two questions to pay. Asked from 16 units on, they cost thresholds 3 % more calls.
_WORTH = 128


class TwoEnded:
    """An adaptive search from the first unit of a line on, which may start again from the last unit, once.

    refused: this many units, from the first on, are known not to go together; 0 if nothing is known.
    """

    def __init__(self, line: Sequence[int], *, refused: int = 0) -> None:
        self.kept = united(line)
        self._line = line
        self._plan = Adaptive(self._line, refused=refused)
        self._special: Question | None = None  # asked instead of the plan's question
        self._done = False  # whether no special question is to come any more

    def question(self) -> Question | None:
        return self._plan.question() if self._special is None else self._special

    def tell(self, answer: Answer) -> None:
        if self._special is None:
            self._plan.tell(answer)
            self.kept = self._plan.kept
            # Equal, not at least: each row asks once. A success removes half of the rest; the next row may ask again.
            if self._plan.in_a_row == _ROW and self._plan.left >= _WORTH and not self._done:
                self._special = self._plan.kept ^ self._half_of_rest()
        elif self._special & ~self._plan.kept:  # it holds units that have gone, so it is the second question
            self._from_the_other_end(answer)
        else:
            self._without_half(answer)

    def fork(self) -> Self:
        twin = copy(self)
        twin._plan = self._plan.fork()
        return twin

    def chance(self) -> float:
        return self._plan.chance() if self._special is None else 0.2  # a row of required units speaks against it

    def remaining(self) -> float:
        return self._plan.remaining() + (self._special is not None)

    def _half_of_rest(self) -> Question:
        """Return the later half of the units that are not settled yet."""
        return united(self._line[len(self._line) - self._plan.left // 2 :])

    def _without_half(self, answer: Answer) -> None:
        """Take the answer to the first question: drop the half, or go on to the second question."""
        self._special = None
        if answer is Answer.TRUE:
            half = self._plan.left // 2
            self._line = self._line[: len(self._line) - half]
            self._plan.forget(half)
            self.kept = self._plan.kept
            return
        self._done = True
        # The weight of n units varies by about sqrt(n) times the weight of one. So the other end can spare gone +
        # sqrt(gone) units if it is lighter by one standard deviation. The set must be smaller to be worth a question.
        gone = len(self._line) - self.kept.bit_count()
        run = gone + isqrt(gone)
        if gone > 0 and run < len(self._line):
            self._special = united(self._line[:-run])

    def _from_the_other_end(self, answer: Answer) -> None:
        """Take the answer to the second question: start again from the last unit, or go on as before."""
        if answer is Answer.TRUE and self._special is not None:
            run = len(self._line) - self._special.bit_count()
            self._plan = Adaptive(self._line[::-1])
            self._plan.skip(run, isqrt(run))  # what was asked has gone; how much more can go is open, so a small step
            self.kept = self._special
        self._special = None
