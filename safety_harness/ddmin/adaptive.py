"""The default search: remove runs whose length follows the evidence, and bisect where a run fails.

Adaptive group testing with a learnt rate. Each failed run costs a binary search that ends at one required
unit, together with the very question that shows it: everything still held, without that unit, was refused.
"""

from __future__ import annotations

from typing import Self

from safety_harness.ddmin.evidence import ranks
from safety_harness.ddmin.predict import RunForecast
from safety_harness.ddmin.types import Answer, Question, Ranks


class Adaptive:
    """Exact core of a monotone oracle; for others an accepted set that certification still has to finish.

    At most n * (1 + ceil(log2 n)) questions for n units: each step settles at least one unit.
    """

    def __init__(self, kept: Question, _: Ranks = None) -> None:
        self._line = ranks(kept)
        self._kept: Question = 0  # found to be required
        self._rest = kept  # the line from _start on
        self._start = 0
        self._accepted, self._refused = 0, 0  # of the rest, this many can go, and that many cannot; 0: unknown
        self._forecast = RunForecast(len(self._line))
        self._ahead = self._choose()

    @property
    def kept(self) -> Question:
        return self._kept | self._without(self._accepted)

    def question(self) -> Question | None:
        return self._kept | self._without(self._ahead) if self._rest else None

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
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._forecast = self._forecast.fork()
        return twin

    def chance(self) -> float:
        return self._forecast.survival(self._ahead) if self._rest else 0.0

    def remaining(self) -> float:
        return self._forecast.questions(len(self._line) - self._start)

    def _without(self, count: int) -> Question:
        """The rest without its first `count` units."""
        end = self._start + count
        if end >= len(self._line):
            return 0
        return self._rest >> self._line[end] << self._line[end]

    def _drop(self, count: int) -> None:
        self._rest = self._without(count)
        self._start += count
        self._forecast.removed(count)
        self._accepted, self._refused = 0, max(self._refused - count, 0)

    def _keep_next(self) -> None:
        self._kept |= 1 << self._line[self._start]
        self._rest = self._without(1)
        self._start += 1
        self._forecast.required()
        self._refused = 0

    def _choose(self) -> int:
        """How many units of the rest the next question leaves out."""
        left = len(self._line) - self._start
        if left == 0:
            return 0
        if self._refused:
            return _even_split(self._forecast, self._accepted, self._refused)
        return _run_length(self._forecast, left)


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
