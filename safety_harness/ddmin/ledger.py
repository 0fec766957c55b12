"""The only place that calls the oracle: memory, budget and the best set so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from safety_harness.ddmin.errors import BadAnswer, Unresolved
from safety_harness.ddmin.types import Answer, Event, EventKind, Evidence, Phase, Question, Reduction, Stop, T


class BudgetSpent(Exception):  # noqa: N818 - a signal, not an error
    """The next question would exceed the budget; internal, never leaves the package."""

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason)
        self.reason: Stop = reason


class Ledger(Generic[T]):
    """Asks the oracle each question once, within the budget, and remembers every answer.

    Everything that the result claims is read from here, so it cannot claim what was not seen.
    """

    def __init__(
        self,
        units: Sequence[T],
        oracle: Callable[[tuple[T, ...]], bool],
        *,
        known: Mapping[Question, Answer],
        max_calls: int | None,
        max_seconds: float | None,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self._units = units
        self._oracle = oracle
        self._answers: dict[Question, Answer] = dict(known)
        self._max_calls = max_calls
        self._max_seconds = max_seconds
        self._on_event = on_event
        self._started = time.monotonic()
        self._phase: Phase = "check"
        self._history: list[tuple[int, int]] = []
        self._calls = 0
        self._cached = 0
        self.best: Question | None = None

    def begin(self, phase: Phase) -> None:
        """Announce the next phase."""
        self._phase = phase
        self._emit("phase", len(self.best or ()))

    def ask(self, question: Question) -> Answer:
        """The oracle's answer on these positions, from memory if it was given before.

        Raises BudgetSpent before a call that the budget does not cover, BadAnswer on a non-bool,
        and whatever the oracle raises except Unresolved.
        """
        answer = self._answers.get(question)
        if answer is not None:
            self._cached += 1
        else:
            self._check_budget()
            self._calls += 1
            self._emit("asked", len(question))
            answer = self._call(question)
            self._answers[question] = answer
        self._accept(question, answer)
        return answer

    def reduction(self, stopped: Stop | None) -> Reduction[T]:
        """The result as it stands; needs an accepted set."""
        if self.best is None:
            raise ValueError("no set has been accepted yet")
        certificate = {self._units[i]: self._evidence(self.best, i) for i in sorted(self.best)}
        return Reduction(
            kept=tuple(self._units[i] for i in sorted(self.best)),
            removed=tuple(unit for i, unit in enumerate(self._units) if i not in self.best),
            minimal=all(evidence == "tested" for evidence in certificate.values()),
            certificate=certificate,
            calls=self._calls,
            cached=self._cached,
            seconds=time.monotonic() - self._started,
            stopped=stopped,
            history=tuple(self._history),
        )

    def _check_budget(self) -> None:
        if self._max_calls is not None and self._calls >= self._max_calls:
            raise BudgetSpent("calls")
        if self._max_seconds is None or self.best is None:
            return  # the full set is asked whatever the clock says: without it there is nothing to return
        if time.monotonic() - self._started >= self._max_seconds:
            raise BudgetSpent("seconds")

    def _call(self, question: Question) -> Answer:
        try:
            said = self._oracle(tuple(self._units[i] for i in sorted(question)))
        except Unresolved:
            self._emit("answered", len(question))
            return Answer.UNRESOLVED
        if not isinstance(said, bool):
            raise BadAnswer(
                f"the oracle must return True or False, but returned {said!r} ({type(said).__name__}) "
                f"on a set of {len(question)} units; wrap its result in bool(), or raise Unresolved"
            )
        self._emit("answered", len(question), said)
        return Answer.TRUE if said else Answer.FALSE

    def _accept(self, question: Question, answer: Answer) -> None:
        if answer is Answer.TRUE and (self.best is None or len(question) < len(self.best)):
            self.best = question
            self._history.append((self._calls, len(question)))
            self._emit("accepted", len(question))

    def _evidence(self, kept: Question, position: int) -> Evidence:
        answer = self._answers.get(kept - {position})
        if answer is Answer.FALSE:
            return "tested"
        return "unresolved" if answer is Answer.UNRESOLVED else "untested"

    def _emit(self, kind: EventKind, size: int, answer: bool | None = None) -> None:
        if self._on_event is not None:
            self._on_event(Event(kind, self._phase, size, self._calls, answer))
