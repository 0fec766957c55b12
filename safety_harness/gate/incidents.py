"""What kept a run from measuring everything: tests that broke, an interrupt, a report that could not be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["broken_test", "interrupted", "report_not_written", "other"]


@dataclass(frozen=True)  # not pydantic's, which would slow down every start of pytest
class Incident:
    """One reason for which a run is incomplete.

    ``students`` are those that it is about; none: the whole run is concerned. ``unnamed`` counts further tests that a
    results.json of an older schema did not name.
    """

    kind: Kind
    tests: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    cause: str = ""
    unnamed: int = 0

    @property
    def sentence(self) -> str:
        """The incident as reports show it; without its cause where that was left out."""
        match self.kind:
            case "interrupted":
                return "the run was interrupted"
            case "other":
                return self.cause or "the run is incomplete, and its cause was left out"
            case "report_not_written":
                fact = "the reports could not be written"
            case "broken_test":
                fact = f"{self.tests[0] if self.tests else 'a test'}{self._further_tests()} could not be measured"
        return f"{fact}: {self.cause}" if self.cause else fact

    def _further_tests(self) -> str:
        if not (further := len(self.tests) - 1 + self.unnamed):
            return ""
        if len(self.students) == 1:
            return f" and {further} more of this student"
        return f" and {further} more, of {', '.join(self.students or self.tests)},"

    def concerns_only(self, students: Collection[str]) -> bool:
        """Return whether the incident is about some of *students*, and about nobody else."""
        return bool(self.students) and set(self.students) <= set(students)


def student_of(nodeid: str, students: Sequence[str]) -> str:
    """Return the student that a test's brackets name, or the test itself where they name none.

    A suite may have parameters of its own: ``test_x[alpha/one-hot]`` belongs to alpha/one.
    """
    _, _, parameters = nodeid.partition("[")
    named = [name for name in students if f"-{name}-" in f"-{parameters.removesuffix(']')}-"]
    return max(named, key=len, default=nodeid)


def broken_tests(causes: Mapping[str, str], students: Sequence[str]) -> list[Incident]:
    """Return one incident for each cause: a teacher that cannot be loaded breaks the tests of all of its students.

    *causes* maps a test to why it broke. Tests that belong to no student have an incident of their own.
    """
    tests_by_cause: dict[tuple[str, bool], list[str]] = {}
    for test, cause in causes.items():
        tests_by_cause.setdefault((cause, student_of(test, students) in students), []).append(test)
    return [
        Incident(
            kind="broken_test",
            tests=tuple(tests),
            students=tuple(dict.fromkeys(student_of(test, students) for test in tests)) if owned else (),
            cause=cause,
        )
        for (cause, owned), tests in tests_by_cause.items()
    ]
