"""Take down what a suite measured, for the gate and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safety_harness.errors import remark
from safety_harness.registry.settings import GateSettings

if TYPE_CHECKING:
    from safety_harness.gate.asked import Asked, Question
    from safety_harness.gate.labels import Labels
    from safety_harness.gate.results import Check

PROPERTY = "safety_harness"
"""Name of the property of a test's report that holds one row of its measurements."""
EXPLAINED = {"explained": True}
"""The row of a test that failed because a check of its own did not pass."""


@dataclass(frozen=True)
class Measure:
    """Record what a suite measured for the gate and the report: ``measure(check)``, ``measure.about(name=...)``."""

    student: str
    add: Callable[[tuple[str, object]], None] = field(repr=False)
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict, repr=False)
    """By the sha256 of their set, the questions whose texts the report shows."""
    gate: GateSettings = field(default_factory=GateSettings, repr=False)
    """The thresholds that the student is gated by."""
    include_answers: bool = False
    labels: Labels | None = field(default=None, repr=False)
    """What people say of some answers; the defense is decided by those that are the student's."""

    def __call__(self, check: Check) -> Check:
        """Record a check and return it, so that a suite can assert it.

        Raises:
            ValueError: the check cannot have come out of its own letters and numbers.
        """
        from safety_harness.gate.recheck import check_fault
        from safety_harness.gate.results import check_to_row

        if self.labels and check.name == "defense" and check.asked and check.asked.answers_after:
            check = self._by_labels(check, check.asked, self.labels)
        if fault := check_fault(check, self.gate):
            raise ValueError(f"measure: {fault}")
        shown = check if self.include_answers else check.without_answers()
        self._add(check=check_to_row(shown))
        if check.asked and (asked := self.questions.get(check.asked.set)):
            self._add(questions={check.asked.set: [[one.id, one.text, one.category] for one in asked]})
        return check

    def about(self, **facts: Any) -> None:
        """Record facts that decide nothing: those that the reports show, and a suite's own.

        Raises:
            ValueError: a fact that the reports show is not what they expect.
        """
        from safety_harness.gate.plain import plain, record
        from safety_harness.gate.records import About

        self._add(about=plain(record(About, facts, "measure.about")))

    def _by_labels(self, check: Check, asked: Asked, labels: Labels) -> Check:
        """Return the defense *check* as *labels* decide it, and remark how many of them are of other answers."""
        from safety_harness.gate.labels import matching, with_labels

        if not (questions := self.questions.get(asked.set)):  # of a suite's own: their answers have no names
            return check
        decided = with_labels(check, questions, labels, self.gate)
        own, every = len(matching(asked, questions, labels)), len(labels.of)
        if decided is check:
            why = "answers or verdicts are others than when they were drawn. Label this run"
            remark(f"{self.student}: {own} of {every} labelled answers are its own, and none counts: {why}.")
        elif own < every:
            remark(f"{self.student}: {own} of {every} labelled answers are its own; the others are not used.")
        return decided

    def _add(self, **row: Any) -> None:
        self.add((PROPERTY, {"student": self.student, **row}))
