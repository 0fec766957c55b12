"""A whole reduction as a state: both ends, the search, the proof."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Self

from safety_harness.ddmin.certify import Certify, Complete
from safety_harness.ddmin.evidence import Record, ranks
from safety_harness.ddmin.types import Answer, Level, Phase, Plan, Question


class Course:
    """What to ask next, and what an answer makes of it; asks nobody itself.

    A fork is for looking ahead: it goes its own way and leaves the record of answers as it is.
    """

    repeats = disagreements = 0  # nothing is asked twice
    frozen = False

    def __init__(self, full: Question, make: Callable[[Question], Plan], level: Level, *, check_empty: bool) -> None:
        self.record = Record()
        self.phase: Phase = "check"
        self.best: Question | None = None
        self.refused: Answer | None = None  # what was said of the full set, unless it was accepted
        self._make = make
        self._level = level
        self._ends = [full, 0] if check_empty and full else [full]
        self._plan: Plan | None = None
        self._ahead = False

    def question(self) -> Question | None:
        """The next question; None when all is done."""
        if self.refused is not None:
            return None
        if self._ends:
            return self._ends[0]
        return self._plan.question() if self._plan is not None else None

    def tell(self, answer: Answer) -> None:
        """Take the answer to the current question."""
        question = self.question()
        if question is None:
            raise ValueError("nothing has been asked")
        if not self._ahead:
            self.record.note(question, answer)
        if self.best is None and answer is not Answer.TRUE:
            self.refused = answer
        if answer is Answer.TRUE and (self.best is None or question.bit_count() < self.best.bit_count()):
            self.best = question
        if self._ends:
            self._ends = self._ends[1:] if question or answer is not Answer.TRUE else []
        elif self._plan is not None:
            self._plan.tell(answer)
        self._settle()

    def fork(self) -> Self:
        """A copy to look ahead with."""
        twin = copy(self)
        twin._plan = self._plan.fork() if self._plan is not None else None
        twin._ahead = True
        return twin

    def snapshot(self) -> Self:
        """A copy to come back to: like a fork, but with a record of its own to go on with."""
        twin = self.fork()
        twin.record, twin._ahead = self.record.copy(), self._ahead
        return twin

    def chance(self) -> float:
        """The forecast probability that the current question is answered TRUE."""
        if self._ends:
            return 0.99 if self._ends[0] else 0.01
        return self._plan.chance() if self._plan is not None else 0.0

    def remaining(self) -> int:
        """Roughly how many questions are still to come."""
        return round(len(self._ends) + (self._plan.remaining() if self._plan is not None else 0.0))

    def _settle(self) -> None:
        """Go on to the next stage for as long as there is nothing to ask in this one."""
        while not self._ends and self.best and (self._plan is None or self._plan.question() is None):
            following = self._following(self.best)
            if following is None:
                return
            self._plan = following

    def _following(self, best: Question) -> Plan | None:
        if self.phase == "check":
            self.phase = "search"
            return self._make(best)
        if self._level == "none" or isinstance(self._plan, Certify):
            return None
        self.phase = "certify"
        trusting = self._level == "monotone" and self.record.monotone
        if not trusting:
            return Certify(ranks(best))
        return None if isinstance(self._plan, Complete) else self._complete(best)

    def _complete(self, best: Question) -> Complete:
        evidence = self.record.of(best)
        untested = [rank for rank, seen in evidence.items() if seen == "untested"]
        inferred = [rank for rank, seen in evidence.items() if seen == "inferred"]
        return Complete(best, untested + _spread(inferred))


def _spread(inferred: list[int]) -> list[int]:
    """The inferences to audit: a few, more if there are many, from the oldest on."""
    count = len(inferred).bit_length() // 5
    return [inferred[len(inferred) * k // count] for k in range(count)]
