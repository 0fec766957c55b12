"""What goes in and out of a reduction: answers, questions, events and the result."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")

Stop: TypeAlias = Literal["calls", "seconds", "interrupted"]
Phase: TypeAlias = Literal["check", "search", "certify"]
EventKind: TypeAlias = Literal["phase", "asked", "answered", "accepted"]
Evidence: TypeAlias = Literal["tested", "unresolved", "untested"]


class Answer(Enum):
    """The oracle's three possible answers."""

    TRUE = "true"
    FALSE = "false"
    UNRESOLVED = "unresolved"


Question: TypeAlias = frozenset[int]
"""A subset to ask about, as positions in the original sequence."""

Plan: TypeAlias = Generator[Question, Answer, Sequence[int]]
"""Yields questions, is sent their answers, returns the positions it keeps, oldest evidence first.

Plans never call the oracle, so the same plan serves any driver. A plan starts from an accepted set, and each
of its questions is a proper subset of the set accepted last.
"""

Strategy: TypeAlias = Callable[[Sequence[int]], Plan]
"""Makes a plan from the positions to reduce, least important first."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a running reduction.

    kind: "phase" (a phase begins), "asked" (the oracle is about to be called), "answered" (it has answered),
    "accepted" (a smaller set is now the best). Answers already known cause no "asked" and no "answered".
    size: units in the set concerned ("phase": in the best set; 0 before there is one).
    calls: oracle calls begun so far, this one included.
    answer: for "answered": True, False, or None if unresolved; otherwise None.
    """

    kind: EventKind
    phase: Phase
    size: int
    calls: int
    answer: bool | None = None


@dataclass(frozen=True)
class Reduction(Generic[T]):
    """The result; `kept` is always a set that the oracle was seen to accept.

    kept, removed: the units, both in original order.
    minimal: every kept unit was tested: without it alone, the oracle is false (1-minimal). An empty `kept`
        is minimal too: the oracle accepts the empty set, so no unit is needed at all.
    certificate: per kept unit, what was seen on `kept` without it: "tested" (the oracle said false),
        "unresolved" (it had no answer) or "untested" (never asked, as something stopped the run).
    calls: distinct questions put to the oracle; cached: questions answered from memory or from `assume`.
    seconds: wall time. stopped: what ended the run early, None if it ran to its end.
    history: (calls, size) whenever a set was accepted, the full set first.
    """

    kept: tuple[T, ...]
    removed: tuple[T, ...]
    minimal: bool
    certificate: Mapping[T, Evidence]
    calls: int
    cached: int
    seconds: float
    stopped: Stop | None
    history: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        total = len(self.kept) + len(self.removed)
        if not self.kept:
            return f"0 of {total} units: the oracle accepts the empty set"
        proof = "1-minimal" if self.minimal else "not proven minimal"
        stop = f", stopped: {self.stopped}" if self.stopped else ""
        return f"{len(self.kept)} of {total} units, {proof}{stop}"
