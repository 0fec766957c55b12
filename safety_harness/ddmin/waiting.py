"""Answers that came before their question: obtained ahead, or by an earlier run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from safety_harness.ddmin.types import Question, Reply


@dataclass(frozen=True, slots=True)
class Early:
    """An answer; `replayed` if a journal gave it."""

    answer: Reply
    replayed: bool


class Waiting:
    """Answers by question, first come, first taken.

    repeats: whether a second answer to the same question is one more measurement, or the same once more.
    """

    def __init__(self, *, repeats: bool) -> None:
        self._repeats = repeats
        self._answers: dict[Question, deque[Early]] = {}

    def put(self, question: Question, answer: Reply, *, replayed: bool = False) -> bool:
        """Keep an answer; whether it is news."""
        there = self._answers.setdefault(question, deque())
        if there and not self._repeats:
            return False
        there.append(Early(answer, replayed))
        return True

    def replay(self, answers: Iterable[tuple[Question, Reply]]) -> None:
        """Keep what a journal holds."""
        for question, answer in answers:
            self.put(question, answer, replayed=True)

    def next(self, question: Question) -> Early | None:
        """The answer that `take` would give."""
        there = self._answers.get(question)
        return there[0] if there else None

    def take(self, question: Question) -> None:
        """Use up one answer."""
        there = self._answers[question]
        there.popleft()
        if not there:
            del self._answers[question]

    def count(self) -> int:
        """How many answers of this run have not been used."""
        return sum(not early.replayed for there in self._answers.values() for early in there)
