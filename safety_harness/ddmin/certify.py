"""Prove the result: leave out kept units one at a time, on the final set itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from itertools import islice
from typing import Self

from safety_harness.ddmin.evidence import united
from safety_harness.ddmin.types import Answer, Question


class Certify:
    """Leave out each unit of an accepted set in turn until no single unit can go, whatever the oracle is.

    kept: ranks, those with the oldest evidence first: they are the likeliest to have become removable.
    A success makes all evidence stale, because that evidence was about a larger set. Counting then starts again with
    the next unit. Where successes follow each other, runs of doubling length are tried until one is refused.
    For n units, at most n * (n + 1) / 2 questions are about single units and n about runs. Questions that the search
    has already asked cost nothing.
    """

    def __init__(self, kept: Sequence[int]) -> None:
        self._queue = deque(kept)  # ranks
        self.kept: Question = united(kept)
        self._proven = 0  # units refused since the last success: all of them makes the set 1-minimal
        self._in_a_row = 0  # successes

    def question(self) -> Question | None:
        return None if self._proven == len(self._queue) else self.kept ^ self._run()

    def tell(self, answer: Answer) -> None:
        run = self._run()
        # A refused unit is proven and goes to the back. A refused run proves nothing about any one of its units: they
        # stay in front and are tried one by one.
        if answer is Answer.TRUE:
            self.kept ^= run
            for _ in range(run.bit_count()):
                self._queue.popleft()
            self._in_a_row += 1
            self._proven = 0
            return
        if run.bit_count() == 1:
            self._queue.append(self._queue.popleft())
            self._proven += 1
        self._in_a_row = 0

    def _run(self) -> Question:
        """Return the next unit, or several where the last ones could go."""
        # 1, 1, 2, 4, ...: where much can go, as after an answer that refuted monotonicity, that takes a logarithmic
        # number of questions. One success may be chance, so doubling starts after two.
        length = 1 << max(self._in_a_row - 1, 0)
        return united(islice(self._queue, length))

    def fork(self) -> Self:
        twin = copy(self)
        twin._queue = self._queue.copy()
        return twin

    def chance(self) -> float:
        return 0.5 / (1 + self._proven)  # each refusal in a row makes the next one likelier

    def remaining(self) -> float:
        return len(self._queue) - self._proven


class Complete:
    """Test the units that have no witness, then audit a few that have: enough for a monotone oracle.

    open_units: ranks of both, in this order.
    An audit repeats one inference as a test. An accepted audit contradicts monotonicity, and `Course` then goes on
    with `Certify`.
    """

    def __init__(self, kept: Question, open_units: Sequence[int]) -> None:
        self.kept = kept
        self._open = deque(open_units)  # ranks

    def question(self) -> Question | None:
        return self.kept ^ (1 << self._open[0]) if self._open else None

    def tell(self, answer: Answer) -> None:
        rank = self._open.popleft()
        if answer is Answer.TRUE:
            self.kept ^= 1 << rank

    def fork(self) -> Self:
        twin = copy(self)
        twin._open = self._open.copy()
        return twin

    def chance(self) -> float:
        return 0.1  # of a monotone oracle no audit succeeds, and few units lack a witness

    def remaining(self) -> float:
        return len(self._open)
