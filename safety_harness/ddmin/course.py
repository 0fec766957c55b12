"""Hold a whole reduction as a state: the full and the empty set, the search, the proof."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Self

from safety_harness.ddmin.certify import Certify, Complete
from safety_harness.ddmin.evidence import Record, ranks
from safety_harness.ddmin.types import Answer, Level, Phase, Plan, Question


class Course:
    """The phases of a reduction, one after the other. It calls no oracle.

    make: makes the search from the set to reduce. level: how well each kept unit must be shown to be needed.
    A fork looks ahead: it takes guessed answers and never notes them in the record of true answers.
    """

    # What `NoisyCourse` counts: of an oracle that does not err nothing is asked twice.
    repeats = disagreements = 0
    frozen = False

    def __init__(self, full: Question, make: Callable[[Question], Plan], level: Level, *, check_empty: bool) -> None:
        self.record = Record()
        self.phase: Phase = "check"
        self.best: Question | None = None
        self.refused: Answer | None = None  # the answer on the full set, unless it was accepted
        self._make = make
        self._level = level
        self._ends = [full, 0] if check_empty and full else [full]
        self._plan: Plan | None = None
        self._ahead = False  # whether this is a fork

    def question(self) -> Question | None:
        """Return the next question; None when all is done."""
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
        if self._ends:  # an accepted empty set leaves nothing to search
            self._ends = self._ends[1:] if question or answer is not Answer.TRUE else []
        elif self._plan is not None:
            self._plan.tell(answer)
        self._settle()

    def fork(self) -> Self:
        """Return a copy to look ahead with."""
        twin = copy(self)
        twin._plan = self._plan.fork() if self._plan is not None else None
        twin._ahead = True
        return twin

    def snapshot(self) -> Self:
        """Return a copy to come back to: a fork with a record of its own, to go on with."""
        twin = self.fork()
        twin.record, twin._ahead = self.record.copy(), self._ahead
        return twin

    def chance(self) -> float:
        """Return the forecast probability that the current question is answered TRUE."""
        if self._ends:
            return 0.99 if self._ends[0] else 0.01  # callers expect the full set to do it, and the empty set not
        return self._plan.chance() if self._plan is not None else 0.0

    def remaining(self) -> int:
        """Estimate how many questions are still to come."""
        return round(len(self._ends) + (self._plan.remaining() if self._plan is not None else 0.0))

    def _settle(self) -> None:
        """Go on to the next stage for as long as there is nothing to ask in this one."""
        while not self._ends and self.best and (self._plan is None or self._plan.question() is None):
            following = self._following(self.best)
            if following is None:
                return
            self._plan = following

    def _following(self, best: Question) -> Plan | None:
        """Return the plan of the next stage; None when all is done."""
        if self.phase == "check":
            self.phase = "search"
            return self._make(best)
        if self._level == "none" or isinstance(self._plan, Certify):
            return None
        self.phase = "certify"
        # An audit that succeeded has refuted monotonicity. Then inferences prove nothing, and each unit is tested.
        trusting = self._level == "monotone" and self.record.monotone
        if not trusting:
            return Certify(ranks(best))
        return None if isinstance(self._plan, Complete) else self._complete(best)

    def _complete(self, best: Question) -> Complete:
        """Return the tests that a monotone oracle still owes, and a few audits."""
        evidence = self.record.of(best)
        untested = [rank for rank, seen in evidence.items() if seen == "untested"]
        inferred = [rank for rank, seen in evidence.items() if seen == "inferred"]
        return Complete(best, untested + _spread(inferred))


def _spread(inferred: list[int]) -> list[int]:
    """Choose the inferences to audit: spread evenly over all, the oldest included."""
    # None below 16 inferences, one from 16 on, two from 512 on. Each audit costs a call that a monotone oracle never
    # rewards, so their share shrinks as the result grows. Few audits find few violations: docs/ddmin.md says so.
    count = len(inferred).bit_length() // 5
    return [inferred[len(inferred) * k // count] for k in range(count)]
