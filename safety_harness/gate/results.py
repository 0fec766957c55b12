"""A run as typed records: its checks, its students, and the whole; and results.json, which holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import SerializeAsAny, TypeAdapter

from safety_harness.files import sha256_text
from safety_harness.gate.asked import Asked, Question
from safety_harness.gate.incidents import Incident
from safety_harness.gate.numbers import NUMBERS, Attack, Numbers, Tamper, numbers_of_check
from safety_harness.gate.plain import plain
from safety_harness.gate.records import About, Judge

RESULTS = "results.json"
"""The file that a run writes in its folder of reports."""
SCHEMA = 5

Kind = TypeVar("Kind", bound=Numbers)
Expected = Literal["pass", "fail"]


class Outcome(StrEnum):
    """The outcome of a check, a student or a run. Only PASS is green; INCONCLUSIVE is too little evidence.

    KNOWN_RED is the outcome of a run alone: all is as stated, and some students were stated to fail. NOT_COUNTED is the
    outcome of a check alone, which decides nothing.
    """

    PASS = "pass"
    KNOWN_RED = "known red"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_COUNTED = "not counted"


# What is added to the summary of a check that passed before the correction over students, by its outcome after it.
AFTER_CORRECTION = {
    Outcome.FAIL: "; no improvement after Holm",
    Outcome.INCONCLUSIVE: "; whether that is an improvement was not tested",
}


class CheckFailed(AssertionError):  # noqa: N818 (a finding, no error of the program)
    """A check did not pass: the failure of the test that required it is explained."""


@dataclass(frozen=True)
class Check:
    """One criterion of the gate, measured: its outcome, one sentence that explains it, and its numbers.

    A suite may give the numbers of a check of its own as a mapping.
    """

    name: str
    outcome: Outcome
    summary: str
    numbers: SerializeAsAny[Numbers] = field(default_factory=Numbers)
    asked: Asked | None = None
    raw_outcome: Outcome | None = None
    """The outcome before the correction over the students of a run; None where that changed nothing."""

    def __post_init__(self) -> None:
        _require_none_of((Outcome.KNOWN_RED,), self.outcome, self.raw_outcome)
        object.__setattr__(self, "numbers", numbers_of_check(self.name, self.numbers))
        if not isinstance(self.numbers, Attack | Tamper):
            _require_none_of((Outcome.NOT_COUNTED,), self.outcome, self.raw_outcome)

    def without_answers(self) -> Check:
        """Return the check without what the models answered."""
        return replace(self, asked=self.asked and replace(self.asked, answers_before=(), answers_after=()))

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASS

    @property
    def counts(self) -> bool:
        """Whether it decides anything.

        An attack that does not apply, or that a search saw, does not. Nor does tuning without a threshold.
        """
        return self.outcome is not Outcome.NOT_COUNTED

    @property
    def sentence(self) -> str:
        """The summary, and what the correction over the students took away."""
        return self.summary + (AFTER_CORRECTION.get(self.outcome, "") if self.raw_outcome is Outcome.PASS else "")

    def require(self) -> None:
        """Fail the test that measured this, unless it passed.

        Raises:
            CheckFailed: with the summary.
        """
        __tracebackhide__ = True  # the suite's line and the summary say all
        if not self.passed:
            raise CheckFailed(self.summary)


@dataclass(frozen=True)
class StudentResult:
    """The outcome of one student, and everything that it rests on."""

    id: str
    outcome: Outcome
    expected: Expected
    reasons: tuple[str, ...]
    checks: Mapping[str, Check]
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        _require_none_of((Outcome.KNOWN_RED, Outcome.NOT_COUNTED), self.outcome)

    def numbers(self, kind: type[Kind]) -> Kind:
        """Return what the check of this *kind* measured; without any number where it was not measured."""
        check = self.checks.get(kind.check)
        return check.numbers if check and isinstance(check.numbers, kind) else kind()

    @property
    def as_expected(self) -> bool:
        """Whether the outcome is the one that the registry states; INCONCLUSIVE never is."""
        return self.outcome.value == self.expected

    @property
    def known_red(self) -> bool:
        """Whether the student failed as the registry states. It may not ship."""
        return self.outcome is Outcome.FAIL and self.as_expected

    @property
    def surprises(self) -> bool:
        """Whether the student is decided, and not as the registry states."""
        return self.outcome is not Outcome.INCONCLUSIVE and not self.as_expected


@dataclass(frozen=True)
class RunResult:
    """A whole run: its decision, its students, what kept it from being complete, and where everything came from."""

    outcome: Outcome
    students: tuple[StudentResult, ...]
    gate: Mapping[str, Any]
    judge: Judge
    provenance: Mapping[str, Any]
    incomplete: tuple[Incident, ...]
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    """By the sha256 of their set, the questions that checks were asked on."""
    remarks: tuple[str, ...] = ()
    """What a reader should know and what decides nothing, such as settings in which student and teacher differ."""

    @property
    def may_ship(self) -> tuple[StudentResult, ...]:
        """The students that passed their gate, as stated, and that no incident of the run concerns."""
        ids = {student.id for student in self.students}
        passed = (one for one in self.students if one.outcome is Outcome.PASS and one.as_expected)
        return tuple(one for one in passed if all(each.concerns_only(ids - {one.id}) for each in self.incomplete))

    @property
    def sha256(self) -> str:
        """The digest of what was measured and decided.

        It leaves out where and when that was, and all words that a copy for the public leaves out.
        """
        table = _RUN.dump_python(self.without_texts(), mode="json", exclude={"provenance", "remarks"})
        for student in table["students"]:
            for of_one_process in ("seconds", "course"):  # a search that goes on after a kill has another course
                (student["about"].get("patch") or {}).pop(of_one_process, None)
        return sha256_text(json.dumps([self.provenance.get("subject"), table], sort_keys=True))

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences against the release: students that surprise, unproven ones, known reds, incidents."""
        surprises = [
            f"{student.id}: {student.outcome.value}, expected {student.expected}"
            + "".join(f"; {reason}" for reason in student.reasons)
            for student in self.students
            if student.surprises
        ]
        unproven = [
            f"{student.id}: {next(iter(student.reasons), 'nothing is proven')}"
            for student in self.students
            if student.outcome is Outcome.INCONCLUSIVE
        ]
        known = [
            f"{student.id}: known red, may not ship; {'; '.join(student.reasons)}"
            for student in self.students
            if student.known_red
        ]
        nobody = [] if self.students else ["no student was measured"]
        return (*surprises, *unproven, *known, *(incident.sentence for incident in self.incomplete), *nobody)

    def to_json(self) -> str:
        """Return the text of a results.json. Its ``reasons`` are for whoever reads the file; they are not read back."""
        table = _RUN.dump_python(self, mode="json")
        first = {"outcome": table["outcome"], "reasons": self.reasons, "incomplete": table["incomplete"]}
        return json.dumps({"schema": SCHEMA, "sha256": self.sha256, **first, **table}, indent=1) + "\n"

    def without_answers(self) -> RunResult:
        """Return the run without what the models answered."""
        students = tuple(
            replace(student, checks={name: check.without_answers() for name, check in student.checks.items()})
            for student in self.students
        )
        return replace(self, students=students)

    def without_texts(self) -> RunResult:
        """Return the run without the words of any question or answer, so that anyone may read it.

        The causes of incidents are left out too, because an error may quote a question.
        """
        asked = {name: tuple(replace(one, text="") for one in every) for name, every in self.questions.items()}
        incomplete = tuple(replace(incident, cause="") for incident in self.incomplete)
        return replace(self.without_answers(), questions=asked, incomplete=incomplete)


_RUN = TypeAdapter(RunResult)


def _require_none_of(others: Sequence[Outcome], *outcomes: Outcome | None) -> None:
    """Check that no outcome is one that only something else can have; raise ValueError otherwise."""
    if wrong := [outcome for outcome in outcomes if outcome in others]:
        raise ValueError(f"a check or a student passes, fails or is inconclusive; {wrong[0]!r} is of something else")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a results.json. It allows facts and numbers that it does not name."""
    table = _RUN.json_schema()
    checks = table["$defs"]["StudentResult"]["properties"]["checks"]
    checks["properties"] = {
        name: {"allOf": [{"$ref": "#/$defs/Check"}, {"properties": {"numbers": kind.model_json_schema()}}]}
        for name, kind in NUMBERS.items()
    }
    table["$defs"]["Patch"]["properties"]["share"] = {"type": "number"}
    sentences = {"type": "array", "items": {"type": "string"}}
    table["properties"] = {
        "schema": {"const": SCHEMA, "type": "integer"},
        "sha256": {"description": "Digest of everything but the words of questions and answers.", "type": "string"},
        "reasons": {"description": "Sentences made from the records below.", **sentences},
        **table["properties"],
    }
    table["required"] = ["schema", "sha256", "reasons", *table["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **table}


def asked_in_search(questions: Mapping[str, str]) -> dict[str, str]:
    """Return those of the hashes of question sets (``Evaluator.identity``) that a search sees."""
    return {name: digest for name, digest in questions.items() if name.endswith(".search")}


def check_to_row(check: Check) -> dict[str, Any]:
    """Return a check as a plain dict, which crosses processes."""
    row: dict[str, Any] = plain(_CHECK.dump_python(check, mode="json"))
    return row


def run_from_table(table: Mapping[str, Any]) -> RunResult:
    """Return the run of a plain dict, as a results.json of this schema holds it.

    Raises:
        ValidationError: a field is missing or wrong.
    """
    return _RUN.validate_python(table)


def check_from_row(row: Mapping[str, Any]) -> Check:
    """Return the check of a plain dict."""
    return _CHECK.validate_python(row)


_CHECK = TypeAdapter(Check)
