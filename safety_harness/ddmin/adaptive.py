"""The default search: remove runs whose length follows the evidence, and bisect where a run fails.

Adaptive group testing with a learnt rate. Each failed run costs a binary search that ends at one required
unit, together with the very question that shows it: everything still held, without that unit, was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Self

from safety_harness.ddmin.predict import RunForecast
from safety_harness.ddmin.types import Answer, Question

_STRIDE = 16


class Adaptive:
    """Exact core of a monotone oracle; for others an accepted set that certification still has to finish.

    line: the ranks to reduce, those to try first coming first.
    sorted_by_prior: the line runs from unimportant to important, so the first required unit may be anywhere
        in it with equal chance, and from there on required units are frequent.
    refused: so many units from the first on are known not to go together; 0: unknown.
    At most n * (1 + ceil(log2 n)) questions for n units: each step settles at least one unit.
    """

    def __init__(self, line: Sequence[int], *, sorted_by_prior: bool = False, refused: int = 0) -> None:
        self._line = _Line(line)
        self._kept: Question = 0  # found to be required
        self._start = 0  # units before this one are settled, the rest is still there
        self._accepted, self._refused = 0, refused  # of the rest, this many can go, and that many cannot; 0: unknown
        first_within = len(line) + 1 if sorted_by_prior else refused
        self._forecast = RunForecast(len(line), first_within=first_within)
        self.in_a_row = 0  # required units met one right after the other
        self._test_one = sorted_by_prior  # is the unit after the first required one required as well?
        self._ahead = self._choose()

    @property
    def kept(self) -> Question:
        return self._kept | self._line.tail(self._start + self._accepted)

    def question(self) -> Question | None:
        return self._kept | self._line.tail(self._start + self._ahead) if self.left else None

    def tell(self, answer: Answer) -> None:
        if answer is Answer.TRUE:
            self._accepted = self._ahead
        else:
            self._refused = self._ahead
        if self._refused == 0:
            self._drop(self._accepted)
        elif self._refused - self._accepted == 1:
            self._drop(self._accepted)
            self._keep_next()
        self._ahead = self._choose()

    def fork(self) -> Self:
        twin = copy(self)
        twin._forecast = self._forecast.fork()
        return twin

    def chance(self) -> float:
        return self._forecast.survival(self._ahead) if self.left else 0.0

    def remaining(self) -> float:
        return self._forecast.questions(self.left)

    def skip(self, count: int, ahead: int) -> None:
        """Take it that the next `count` units can go, and try `ahead` more; for a search not yet begun."""
        self._drop(count)
        self._ahead = min(ahead, self.left)

    def forget(self, count: int) -> None:
        """The last `count` units are gone; none of them may be settled yet."""
        self._line = _Line(self._line[place] for place in range(len(self._line) - count))
        self._refused = min(self._refused, self.left)
        self._ahead = self._choose()

    @property
    def left(self) -> int:
        """How many units are not settled yet."""
        return len(self._line) - self._start

    def _drop(self, count: int) -> None:
        self._start += count
        self._forecast.removed(count)
        self._accepted, self._refused = 0, max(self._refused - count, 0)
        if count:
            self.in_a_row = 0

    def _keep_next(self) -> None:
        self._kept |= 1 << self._line[self._start]
        self._start += 1
        self._forecast.required()
        self._refused = 0
        self.in_a_row += 1

    def _choose(self) -> int:
        """How many units of the rest the next question leaves out."""
        if self.left == 0:
            return 0
        if self._refused:
            return _even_split(self._forecast, self._accepted, self._refused)
        if self._test_one and self._kept:
            self._test_one = False
            return 1
        return _run_length(self._forecast, self.left)


class _Line:
    """Ranks in a row and, quickly and in little memory, the set of all from a given place on."""

    def __init__(self, ranks: Iterable[int]) -> None:
        self._ranks = tuple(ranks)
        tails, tail = [0], 0
        for place in range(len(self._ranks) - 1, -1, -1):
            tail |= 1 << self._ranks[place]
            if place % _STRIDE == 0:
                tails.append(tail)
        tails.reverse()
        self._tails = tails  # from every _STRIDE-th place on, then the empty set

    def __len__(self) -> int:
        return len(self._ranks)

    def __getitem__(self, place: int) -> int:
        return self._ranks[place]

    def tail(self, place: int) -> Question:
        """The set of the ranks from `place` on."""
        later = -(-place // _STRIDE)
        tail = self._tails[later]
        for rank in self._ranks[place : later * _STRIDE]:
            tail |= 1 << rank
        return tail


def _run_length(forecast: RunForecast, limit: int) -> int:
    """The longest run with at least an even chance to go, as that tells most; 1 if there is none."""
    good, bad = 1, limit + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if forecast.survival(middle) >= 0.5:
            good = middle
        else:
            bad = middle
    return good


def _even_split(forecast: RunForecast, accepted: int, refused: int) -> int:
    """The length in between that the forecast finds as likely to be refused as to be accepted."""
    target = (forecast.survival(accepted) + forecast.survival(refused)) / 2
    low, high = accepted, refused  # survival(low) > target >= survival(high)
    while high - low > 1:
        middle = (low + high) // 2
        if forecast.survival(middle) > target:
            low = middle
        else:
            high = middle
    return min(max(high, accepted + 1), refused - 1)
