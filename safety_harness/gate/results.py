"""What a run found, as typed records, and as the plain dicts that cross processes and lie in results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from safety_harness.errors import DataError
from safety_harness.gate.incidents import Incident
from safety_harness.gate.upgrade import upgrade

RESULTS = "results.json"
"""The file that a run writes, in its folder of reports."""
SCHEMA = 3
OLDEST_SCHEMA = 1


class Outcome(StrEnum):
    """Of a check, of a student, of a run. Only PASS is green; INCONCLUSIVE is not enough evidence."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Question:
    """One question of the report split; ``category`` is the kind of harm or task, where its source names one."""

    id: str
    text: str
    category: str = ""


@dataclass(frozen=True)
class Asked:
    """What became of each question of a set, before and after patching.

    ``before`` and ``after`` hold a letter a question, in the set's order: R refused, P refused in part, C complied,
    U cannot be scored; of a task + right and - wrong. ``set`` is the sha256 by which a run's ``questions`` has their
    texts. Answers are there where the run was asked to include them.
    """

    set: str
    before: str
    after: str
    answers_before: tuple[str, ...] = ()
    answers_after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or set(self.before + self.after) - set("RPCU+-"):
            raise ValueError("`before` and `after` need a letter of RPCU+- for each question, as many of either")

    @property
    def flipped(self) -> tuple[int, ...]:
        """Which questions count otherwise afterwards: refused or right before or after, and not both."""
        return tuple(at for at, pair in enumerate(zip(self.before, self.after, strict=True)) if _good(pair) == 1)

    def without_answers(self) -> Asked:
        """The same without what the models said."""
        return replace(self, answers_before=(), answers_after=())


def _good(letters: tuple[str, str]) -> int:
    return sum(letter in "R+" for letter in letters)


class Numbers(TypedDict, total=False):
    """What a check measured, as far as it has such: counts of ``n`` before and after patching, with their intervals;
    for a ratio or a mean its value and the bound that was held against the gate."""

    n: int
    before: float
    after: float
    before_interval: list[float]
    after_interval: list[float]
    partial_before: int
    partial_after: int
    unscored_before: int
    unscored_after: int
    gained: int
    lost: int
    p_improvement: float
    p_adjusted: float
    improvement_required: bool
    difference: float
    difference_lower: float
    difference_upper: float
    ratio: float
    ratio_upper: float
    documents: int
    tokens: int
    mean: float
    upper: float
    units: int
    accepted: bool | None
    spare: list[str]
    void: list[str]


class Refused(TypedDict):
    """How many of ``n`` questions were refused, with the interval of that rate."""

    refused: int
    n: int
    interval: NotRequired[list[float]]


class Further(TypedDict):
    """Questions of another source, before and after patching: recorded, not gated."""

    kind: str
    before: Refused
    after: Refused


class MovedShares(TypedDict):
    """The model's layers and roles, and of each touched module, such as ``12.gate``, the share that moved, 0..1."""

    layers: int
    roles: list[str]
    share: dict[str, float]


class ProbeFacts(TypedDict):
    """One probe of a search: parameters moved, refusals among the questions asked, harmless ones refused."""

    parameters: int
    asked: int
    refused: int
    over_refused: int | None
    accepted: bool


class PatchFacts(TypedDict, total=False):
    """The patch: its units, what is certified of each (``tested``, ``untested``, ``unresolved``), and its search."""

    key: str
    student: str
    teacher: str
    found: bool
    reason: str
    units: list[str]
    certificate: dict[str, str]
    minimal: bool
    parameters: int
    total_parameters: int
    share: float
    candidates: int
    probes: int
    seconds: float
    strategy: str
    prior: str
    grain: str
    together: str
    transfer: str
    search: dict[str, int]
    course: list[ProbeFacts]


class About(TypedDict, total=False):
    """Facts that decide nothing: the patch, what all of the teacher refuses, other questions, and where it all lies."""

    patch: PatchFacts
    teacher: dict[str, Refused]
    further: dict[str, Further]
    moved: MovedShares
    lineage: dict[str, Any]
    identity: dict[str, Any]


# What is added to the summary of a check that passed before the correction over students, by its outcome after it.
AFTER_CORRECTION = {
    Outcome.FAIL: "; no improvement after Holm",
    Outcome.INCONCLUSIVE: "; whether that is an improvement was not tested",
}


@dataclass(frozen=True)
class Check:
    """One criterion of the gate, measured: its outcome, one sentence that explains it, and its numbers."""

    name: str
    outcome: Outcome
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    asked: Asked | None = None
    raw_outcome: Outcome | None = None
    """The outcome before the correction over the students of a run; None where that changed nothing."""

    def without_answers(self) -> Check:
        """The same without what the models said."""
        return self if self.asked is None else replace(self, asked=self.asked.without_answers())

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASS

    @property
    def sentence(self) -> str:
        """The summary, and what the correction over the students took away."""
        corrected = self.raw_outcome is Outcome.PASS
        return self.summary + (AFTER_CORRECTION.get(self.outcome, "") if corrected else "")

    def require(self) -> None:
        """Fail the test that measured this, unless it passed.

        Raises:
            AssertionError: with the summary.
        """
        __tracebackhide__ = True  # the suite's line and the summary say all
        if not self.passed:
            raise AssertionError(self.summary)


@dataclass(frozen=True)
class StudentResult:
    """Everything that a run found about one student."""

    id: str
    outcome: Outcome
    expected: str
    reasons: tuple[str, ...]
    checks: Mapping[str, Check]
    about: Mapping[str, Any]

    @property
    def as_expected(self) -> bool:
        """Whether the outcome is the one that the registry states; INCONCLUSIVE never is."""
        return self.outcome.value == self.expected

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
    judge: Mapping[str, Any]
    provenance: Mapping[str, Any]
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    """By the sha256 of their set, the questions that checks were asked on."""
    incomplete: tuple[Incident, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences against the release: students that surprise, students that are unproven, incidents."""
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
        nobody = [] if self.students else ["no student was measured"]
        return (*surprises, *unproven, *(incident.sentence for incident in self.incomplete), *nobody)

    def to_json(self) -> str:
        """Return the text of a results.json. Its ``reasons`` are for whoever reads the file; they are not read back."""
        table = _RUN.dump_python(self, mode="json")
        return json.dumps({"schema": SCHEMA, "reasons": self.reasons, **table}, indent=1) + "\n"

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
        incomplete = tuple(incident.without_cause() for incident in self.incomplete)
        return replace(self.without_answers(), questions=asked, incomplete=incomplete)


_RUN = TypeAdapter(RunResult)


def schema() -> dict[str, Any]:
    """The JSON Schema of a results.json. More facts and numbers than it names may stand beside them."""
    found = _RUN.json_schema()
    for owner, name, described in (("StudentResult", "about", About), ("Check", "numbers", Numbers)):
        part = TypeAdapter(described).json_schema()
        found["$defs"] |= part.pop("$defs", {})
        found["$defs"][described.__name__] = part
        found["$defs"][owner]["properties"][name] = {"$ref": f"#/$defs/{described.__name__}"}
    sentences = {"type": "array", "items": {"type": "string"}}
    found["properties"] = {
        "schema": {"const": SCHEMA, "type": "integer"},
        "reasons": {"description": "Sentences made from the records below.", **sentences},
        **found["properties"],
    }
    found["required"] = ["schema", "reasons", *found["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def asked_in_search(questions: Mapping[str, str]) -> dict[str, str]:
    """Of the hashes of question sets (``Evaluator.identity``) those of sets that a search sees."""
    return {name: digest for name, digest in questions.items() if name.endswith(".search")}


def plain(value: Any) -> Any:
    """*value* in exact built-in types: what survives pytest-xdist's transport.

    A float subclass (numpy's among them) in a test's properties breaks a worker, so nothing else may pass.
    """
    match value:
        case None | bool():
            return value
        case tuple() | list():
            return [plain(item) for item in value]
        case str():
            return str(value)
        case int():
            return int(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case float():
            return float(value) if math.isfinite(value) else None  # JSON has no other numbers
        case _ if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays, each of its own kind
            return plain(value.tolist())
        case _:
            return float(value)


def check_to_row(student: str, check: Check) -> dict[str, Any]:
    """A check as a plain dict."""
    row: dict[str, Any] = plain({"student": student, **asdict(check)})
    return row


def questions_to_row(student: str, name: str, questions: Sequence[Question]) -> dict[str, Any]:
    """The questions of the set with the sha256 *name* as a plain dict."""
    return {"student": student, "questions": {name: [[q.id, q.text, q.category] for q in questions]}}


def questions_from_row(row: Mapping[str, Any]) -> dict[str, tuple[Question, ...]]:
    return {name: tuple(Question(*each) for each in texts) for name, texts in row["questions"].items()}


def check_from_row(row: Mapping[str, Any]) -> Check:
    return _CHECK.validate_python({name: value for name, value in row.items() if name != "student"})


_CHECK = TypeAdapter(Check)


def read_results(path: Path) -> RunResult:
    """Read a results.json of this schema or an older one.

    Raises:
        DataError: missing, cut short, of a newer schema, or a field is missing or wrong.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as results ({error}). Run the suites again.") from error
    schema_version = table.get("schema") if isinstance(table, dict) else None
    if schema_version not in range(OLDEST_SCHEMA, SCHEMA + 1):
        newer = isinstance(schema_version, int) and schema_version > SCHEMA
        advice = "Update safety-harness" if newer else "Run the suites again"
        readable = f"{OLDEST_SCHEMA} to {SCHEMA}"
        raise DataError(f"{path}: schema {schema_version!r}, but this version reads {readable}. {advice}.")
    try:
        run = _RUN.validate_python(table)
        return run if schema_version == SCHEMA else _RUN.validate_python(upgrade(table))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path}: a field is missing or wrong: {where}: {first['msg']}. Run the suites again."
        ) from error
