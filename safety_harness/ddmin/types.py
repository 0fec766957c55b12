"""Define what goes in and out of a reduction: answers, questions, plans, events and the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

T = TypeVar("T")

Stop: TypeAlias = Literal["calls", "seconds", "size", "interrupted"]
Phase: TypeAlias = Literal["check", "search", "certify"]
EventKind: TypeAlias = Literal["phase", "asked", "answered", "accepted", "distrusted"]
Evidence: TypeAlias = Literal["tested", "inferred", "stale", "unresolved", "untested"]
Level: TypeAlias = Literal["none", "monotone", "explicit", "confidence"]


class Answer(Enum):
    """The oracle's three possible answers."""

    TRUE = "true"
    FALSE = "false"
    UNRESOLVED = "unresolved"


Reply: TypeAlias = Answer | float
"""What an oracle returns: an answer, or a score that a statistical test turns into an answer."""

Question: TypeAlias = int
"""A subset to ask about, as a bit mask over ranks. Bit r is the unit of rank r; rank 0 is the least important."""


class Plan(Protocol):
    """A search as a state that gives the next question and takes answers.

    Plans never call the oracle, so the same plan serves every driver. A fork answers "what would be asked next, if".
    A plan starts from an accepted set. Each of its questions is a proper subset of that set, with fewer units than
    the set accepted last.
    """

    @property
    def kept(self) -> Question:
        """Return the set accepted last."""

    def question(self) -> Question | None:
        """Return the next question, unchanged until it is answered; None at the end."""

    def tell(self, answer: Answer) -> None:
        """Take the answer to the current question."""

    def fork(self) -> Self:
        """Return an independent copy."""

    def chance(self) -> float:
        """Return the forecast probability, 0 to 1, that the current question is answered TRUE."""

    def remaining(self) -> float:
        """Estimate how many more questions there will be."""


PriorOrder: TypeAlias = tuple[int, ...] | None
"""The original position of each rank where a prior gave the ranks. None without a prior: rank and position agree."""

Strategy: TypeAlias = Callable[[Question, PriorOrder], Plan]
"""Makes a plan for the set to reduce."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a running reduction.

    kind:
        "phase": a phase begins;
        "asked": the oracle is about to be called. Answers already known cause no "asked" and no "answered";
        "answered": the oracle has answered;
        "accepted": a smaller set is now the best;
        "distrusted": an answer showed that the oracle is not monotone. From here on only explicit tests count.
    size: units in the set concerned ("phase", "distrusted": in the best set; 0 before there is one).
    calls: oracle calls begun so far, this one included.
    answer: for "answered": True, False, or None if unresolved; otherwise None. A score counts as True from the
        threshold on.
    best: units in the best set so far; 0 before there is one.
    estimate: roughly how many calls are still to come, by the forecast that steers the search.
    units: the set concerned, for "asked" and "answered".
    """

    kind: EventKind
    phase: Phase
    size: int
    calls: int
    answer: bool | None = None
    best: int = 0
    estimate: int = 0
    units: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Reduction(Generic[T]):
    """The result. `kept` is always a set that the oracle was seen to accept.

    kept, removed: the units, both in original order.
    minimal: every kept unit was tested: without it alone, the oracle is false (1-minimal). An empty `kept` is minimal
        too: the oracle accepts the empty set, so no unit is needed at all.
    certificate: what was seen, per kept unit:
        "tested": the oracle is false on `kept` without this unit;
        "inferred": it is false on a larger set without this unit. If the oracle is monotone, the unit is needed;
        "stale": as "inferred", but the oracle has shown that it is not monotone, so this proves nothing;
        "unresolved": `kept` without this unit has no answer;
        "untested": nothing was seen.
    monotone: False if some answers contradict monotonicity: a set was accepted and a larger one refused.
    calls: questions put to the oracle, repeats included. cached: questions answered from memory or from `assume`.
    repeats: how many of `calls` asked an earlier question again, of an oracle that errs.
    disagreements: how many repeats were answered differently from the first time.
    frozen: repeats agreed too well to be evidence of their own, so the oracle's first answers were taken as they are.
    replayed: how many of `calls` were answered by the journal.
    speculated: answers that a parallel driver obtained ahead and that were never needed. They are not part of `calls`.
    seconds: wall time. stopped: what ended the run early, None if it ran to its end.
    history: (calls, size) whenever a set was accepted, the full set first.
    """

    kept: tuple[T, ...]
    removed: tuple[T, ...]
    minimal: bool
    certificate: Mapping[T, Evidence]
    monotone: bool
    calls: int
    cached: int
    replayed: int
    repeats: int
    disagreements: int
    frozen: bool
    speculated: int
    seconds: float
    stopped: Stop | None
    history: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        total = len(self.kept) + len(self.removed)
        if not self.kept:
            return f"0 of {total} units: the oracle accepts the empty set"
        stop = f", stopped: {self.stopped}" if self.stopped else ""
        return f"{len(self.kept)} of {total} units, {self._proof()}{stop}"

    def _proof(self) -> str:
        """Say in words how well the result is proven minimal."""
        if self.minimal:
            return "1-minimal"
        if set(self.certificate.values()) <= {"tested", "inferred"}:
            return "1-minimal if the oracle is monotone"
        return "not proven minimal"
