"""Remove runs whose length follows the evidence, and bisect where a run fails: the core of the default search.

This is adaptive group testing, similar to generalized binary splitting: Hwang, A Method for Detecting All Defective
Members in a Population by Group Testing, JASA 67, 1972. Hwang's method must know how many members are defective. Here
the rate of required units is learnt on the way. Each refused run costs a binary search. It ends at one required unit,
together with a witness: everything still held, without that unit, was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Self

from safety_harness.ddmin.predict import RunForecast
from safety_harness.ddmin.types import Answer, Question

# Tails of a line are kept for every 16th place. Tails for all places of 10,000 units would take 12 MB, and tails for
# none would cost a pass over the line at each question.
_STRIDE = 16


class Adaptive:
    """A search that finds the exact core of a monotone oracle. For others its result is accepted, not yet 1-minimal.

    line: the ranks to reduce, in the order in which to leave them out.
    sorted_by_prior: the line runs from unimportant to important. So the first required unit may be anywhere in it
        with equal chance, and required units are frequent from there on.
    refused: this many units, from the first on, are known not to go together; 0 if nothing is known.
    For n units it asks at most n * (1 + ceil(log2 n)) questions: each refused run settles at least one unit.
    """

    def __init__(self, line: Sequence[int], *, sorted_by_prior: bool = False, refused: int = 0) -> None:
        self._line = _Line(line)
        self._kept: Question = 0  # required units
        self._start = 0  # places before this one are settled; all later units are still held
        # The bisection's state: of the units from `_start` on, `_accepted` can go together, and `_refused` cannot.
        # Without a refused run (0) there is nothing to bisect.
        self._accepted, self._refused = 0, refused
        # In a sorted line each place is equally likely for the first required unit, the end of the line (there is
        # none) included; in a refused run each place is. A flat forecast makes the first questions a plain bisection.
        # On the cells of benchmarks/ddmin the learnt forecast would cost 10 % more calls with a prior, and 70 % more
        # with the heaviest tails.
        first_within = len(line) + 1 if sorted_by_prior else refused
        self._forecast = RunForecast(len(line), first_within=first_within)
        self.in_a_row = 0  # required units met directly after each other
        self._test_one = sorted_by_prior  # whether the question below about one unit is still to come
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
            # k units can go together and k + 1 cannot, so the last of them is required. The refused question is its
            # witness, so a monotone oracle needs no further test of this unit.
            self._drop(self._accepted)
            self._keep_next()
        self._ahead = self._choose()

    def fork(self) -> Self:
        twin = copy(self)
        twin._forecast = self._forecast.fork()  # `_line` is replaced, never changed
        return twin

    def chance(self) -> float:
        return self._forecast.survival(self._ahead) if self.left else 0.0

    def remaining(self) -> float:
        return self._forecast.questions(self.left)

    def skip(self, count: int, ahead: int) -> None:
        """Drop the next `count` units unasked, and try `ahead` more first. Only for a search not yet begun."""
        self._drop(count)
        self._ahead = min(ahead, self.left)

    def forget(self, count: int) -> None:
        """Remove the last `count` units from the line. None of them may be settled yet."""
        self._line = _Line(self._line[place] for place in range(len(self._line) - count))
        self._refused = min(self._refused, self.left)
        self._ahead = self._choose()

    @property
    def left(self) -> int:
        """How many units are not settled yet."""
        return len(self._line) - self._start

    def _drop(self, count: int) -> None:
        """Settle the next `count` units as removable."""
        self._start += count
        self._forecast.removed(count)
        self._accepted, self._refused = 0, max(self._refused - count, 0)
        if count:
            self.in_a_row = 0

    def _keep_next(self) -> None:
        """Settle the next unit as required, and end the bisection."""
        self._kept |= 1 << self._line[self._start]
        self._start += 1
        self._forecast.required()
        self._refused = 0
        self.in_a_row += 1

    def _choose(self) -> int:
        """Return how many units, from the first unsettled on, the next question leaves out."""
        if self.left == 0:
            return 0
        if self._refused:
            return _even_split(self._forecast, self._accepted, self._refused)
        if self._test_one and self._kept:
            # The prior says that required units are frequent from here on, and the forecast has seen only one. A
            # question about one unit tells both cases apart. Up to some 200 units the forecast chooses one unit, too.
            self._test_one = False
            return 1
        return _run_length(self._forecast, self.left)


class _Line:
    """A line of ranks that gives the set of all ranks from a given place on, quickly and in little memory."""

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
        """Return the set of the ranks from `place` on."""
        later = -(-place // _STRIDE)
        tail = self._tails[later]
        for rank in self._ranks[place : later * _STRIDE]:
            tail |= 1 << rank
        return tail


def _run_length(forecast: RunForecast, limit: int) -> int:
    """Return the longest run with at least an even chance to go; 1 if there is none."""
    # An answer with an even chance carries one bit, the most that a yes or no can. On the cells of benchmarks/ddmin, a
    # chance of 0.4 saves scattered units 2 % of the calls and costs thresholds 2 %. 0.6 costs 5 % and saves 1 %.
    good, bad = 1, limit + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if forecast.survival(middle) >= 0.5:
            good = middle
        else:
            bad = middle
    return good


def _even_split(forecast: RunForecast, accepted: int, refused: int) -> int:
    """Return the length between two lengths that is as likely to be refused as to be accepted."""
    # The forecast knows of clusters, so its median is not always the middle.
    target = (forecast.survival(accepted) + forecast.survival(refused)) / 2
    low, high = accepted, refused  # survival(low) > target >= survival(high)
    while high - low > 1:
        middle = (low + high) // 2
        if forecast.survival(middle) > target:
            low = middle
        else:
            high = middle
    return min(max(high, accepted + 1), refused - 1)  # strictly between, where the forecast is flat or rounded
