"""Relate the answers to each other: find witnesses for kept units, and contradictions to monotonicity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from safety_harness.ddmin.types import Answer, Evidence, Question


class Record:
    """All answers, and what follows from them for a set.

    An oracle is monotone if adding units never turns true into false. Then every subset of a refused set is refused
    as well. One accepted set inside a refused set shows that the oracle is not monotone.
    """

    def __init__(self) -> None:
        self.answers: dict[Question, Answer] = {}
        self.monotone = True
        self._refused: list[Question] = []
        self._smallest: list[Question] = []  # accepted sets without an accepted proper subset

    def copy(self) -> Self:
        """Return an independent copy."""
        twin = object.__new__(type(self))
        twin.answers, twin.monotone = self.answers.copy(), self.monotone
        twin._refused, twin._smallest = self._refused.copy(), self._smallest  # `_smallest` is replaced, never changed
        return twin

    def note(self, question: Question, answer: Answer) -> None:
        """Remember an answer. `monotone` turns false for good when an answer contradicts an earlier one."""
        if self.answers.get(question) is answer:
            return
        self.answers[question] = answer
        if answer is Answer.FALSE:
            self._refused.append(question)
            if any(accepted & question == accepted for accepted in self._smallest):
                self.monotone = False
        elif answer is Answer.TRUE:
            if any(refused & question == question for refused in self._refused):
                self.monotone = False
            self._smallest = [a for a in self._smallest if a & question != question] + [question]

    def witnessed(self, kept: Question) -> Question:
        """Return each unit of `kept` for which some refused set holds all of `kept` but this unit."""
        witnessed = 0
        for refused in self._refused:
            missing = kept & ~refused
            if missing & (missing - 1) == 0:  # one bit; none, if the set itself was once refused
                witnessed |= missing
        return witnessed

    def of(self, kept: Question) -> dict[int, Evidence]:
        """Return, per rank in `kept`, what was seen for that unit."""
        witnessed = self.witnessed(kept)
        return {rank: self._of_one(kept, 1 << rank, witnessed) for rank in ranks(kept)}

    def _of_one(self, kept: Question, unit: Question, witnessed: Question) -> Evidence:
        """Return the strongest evidence for one unit: a direct answer comes before any inference."""
        direct = self.answers.get(kept ^ unit)
        if direct is Answer.FALSE:
            return "tested"
        if direct is Answer.UNRESOLVED:
            return "unresolved"
        if not witnessed & unit:
            return "untested"
        return "inferred" if self.monotone else "stale"


def united(line: Iterable[int]) -> Question:
    """Return the set of these ranks."""
    return sum(1 << rank for rank in line)


def ranks(question: Question) -> list[int]:
    """List the ranks in a set, ascending."""
    bits = bin(question)[:1:-1]  # lowest bit first, without "0b"; `find` skips units left out at the speed of C
    places, rank = [], bits.find("1")
    while rank >= 0:
        places.append(rank)
        rank = bits.find("1", rank + 1)
    return places
