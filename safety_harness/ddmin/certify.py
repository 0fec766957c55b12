"""The proof at the end: kept units are left out one at a time, on the final set itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Self

from safety_harness.ddmin.types import Answer, Question


class Certify:
    """Leave out each unit of an accepted set in turn until nothing more can go, whatever the oracle is.

    Units with the oldest evidence come first: they are the likeliest to have become removable. A success
    makes all evidence stale, as it was about a larger set, so counting starts again with the next unit.
    At most len(kept) * (len(kept) + 1) / 2 questions; those that the search has already asked cost nothing.
    """

    def __init__(self, kept: Sequence[int]) -> None:
        self._queue = deque(kept)  # ranks
        self.kept: Question = sum(1 << rank for rank in kept)
        self._proven = 0

    def question(self) -> Question | None:
        return None if self._proven == len(self._queue) else self.kept ^ (1 << self._queue[0])

    def tell(self, answer: Answer) -> None:
        rank = self._queue.popleft()
        if answer is Answer.TRUE:
            self.kept ^= 1 << rank
            self._proven = 0
        else:
            self._queue.append(rank)
            self._proven += 1

    def fork(self) -> Self:
        twin = copy(self)
        twin._queue = self._queue.copy()
        return twin

    def chance(self) -> float:
        return 0.5 / (1 + self._proven)

    def remaining(self) -> float:
        return len(self._queue) - self._proven


class Complete:
    """Test the units that have no witness, then audit a few that have: enough for a monotone oracle.

    An audit repeats one inference as a test; the units with the oldest evidence are audited. An accepted
    audit contradicts monotonicity, and whoever drives this plan then turns to `Certify`.
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
        return 0.1

    def remaining(self) -> float:
        return len(self._open)
