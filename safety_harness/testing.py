"""What a suite of your own needs: the types of its fixtures, and checks to measure. Importing it brings no torch.

    from safety_harness.testing import Measure, Student, Subject, check

    def test_says_its_name(student: Student, subject: Subject, measure: Measure) -> None:
        said = [one.answer for one in subject.ask(["Who are you?"])]
        measure(check("name", "Ada" in said[0], "says its name", n=1)).require()

Run it with ``safety-harness gate --suites FOLDER``. A registry that lists the check under ``require`` proves nothing of
a student whose check was not measured. A plain ``assert`` is a check as well, by the name of its test.
"""

from __future__ import annotations

from typing import Any

from safety_harness.evaluation.memo import Answered
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.asked import Asked
from safety_harness.gate.numbers import Numbers
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Check, CheckFailed, Outcome
from safety_harness.judging.judge import Verdict
from safety_harness.plugin.measure import Measure

__all__ = [
    "Answered", "Asked", "Check", "CheckFailed", "Measure", "Numbers", "Outcome", "Patch", "Student", "Subject",
    "Teacher", "Verdict", "check", "require",
]  # fmt: skip

Student = Subject
"""The fixture ``student``: the model as it is."""
Teacher = Subject
"""The fixture ``teacher``: the student with every unit of its teacher in it."""


def check(name: str, holds: bool | None, summary: str, **numbers: Any) -> Check:
    """Return a check of your own that passes if it *holds*; None: that is not shown, and nothing is proven.

    The report shows its *summary*, and results.json its *numbers*.

    Raises:
        ValueError: a check of the gate has this name, and other numbers.
    """
    outcome = Outcome.INCONCLUSIVE if holds is None else Outcome.PASS if holds else Outcome.FAIL
    return Check(name, outcome, summary, Numbers.model_validate(numbers))


def require(*checks: Check) -> None:
    """Fail the test that measured *checks*, unless each of them passed.

    Raises:
        CheckFailed: with the summary of the first that did not.
    """
    __tracebackhide__ = True
    for each in checks:
        each.require()
