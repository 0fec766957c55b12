"""Keep answers that came before their question: obtained ahead, or by an earlier run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from safety_harness.ddmin.types import Question, Reply


@dataclass(frozen=True, slots=True)
class Early:
    """An answer that came early. `replayed`: a journal gave it."""

    answer: Reply
    replayed: bool


class Waiting:
    """Answers by question. Those to one question are taken in the order in which they came.

    repeats: whether a second answer to a question is a new measurement; if not, it is dropped.
    """

    def __init__(self, *, repeats: bool) -> None:
        self._repeats = repeats
        self._answers: dict[Question, deque[Early]] = {}

    def put(self, question: Question, answer: Reply, *, replayed: bool = False) -> bool:
        """Keep an answer. Return False if it was dropped."""
        there = self._answers.setdefault(question, deque())
        if there and not self._repeats:
            return False
        there.append(Early(answer, replayed))
        return True

    def replay(self, answers: Iterable[tuple[Question, Reply]]) -> None:
        """Keep the answers that a journal holds."""
        for question, answer in answers:
            self.put(question, answer, replayed=True)

    def next(self, question: Question) -> Early | None:
        """Return the answer that `take` would use up; None if there is none."""
        there = self._answers.get(question)
        return there[0] if there else None

    def take(self, question: Question) -> None:
        """Use up one answer."""
        there = self._answers[question]
        there.popleft()
        if not there:
            del self._answers[question]

    def count(self) -> int:
        """Count the answers of this run that have not been used."""
        return sum(not early.replayed for there in self._answers.values() for early in there)
