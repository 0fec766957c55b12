"""What a run found, as typed records, and as the plain dicts that cross processes and lie in results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from safety_harness.errors import DataError

SCHEMA = 1


class Outcome(StrEnum):
    """Of a check, of a student, of a run. Only PASS is green; INCONCLUSIVE is not enough evidence."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Check:
    """One criterion of the gate, measured: its outcome, one sentence that explains it, and its numbers."""

    name: str
    outcome: Outcome
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASS

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


@dataclass(frozen=True)
class RunResult:
    """A whole run: its decision, its students, and where everything came from."""

    outcome: Outcome
    reasons: tuple[str, ...]
    students: tuple[StudentResult, ...]
    gate: Mapping[str, Any]
    judge: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


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
            return float(value)
        case _ if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays, each of its own kind
            return plain(value.tolist())
        case _:
            return float(value)


def check_to_row(student: str, check: Check) -> dict[str, Any]:
    """A check as a plain dict."""
    row: dict[str, Any] = plain({"student": student, **asdict(check)})
    return row


def check_from_row(row: Mapping[str, Any]) -> Check:
    return Check(row["name"], Outcome(row["outcome"]), row["summary"], row["numbers"])


def read_results(path: Path) -> RunResult:
    """Read a results.json.

    Raises:
        DataError: missing, cut short, or of another schema.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as results ({error}). Run the suites again.") from error
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        found = table.get("schema") if isinstance(table, dict) else None
        raise DataError(f"{path}: schema {found!r}, but this version reads {SCHEMA}. Run the suites again.")
    try:
        return RunResult(
            Outcome(table["outcome"]),
            tuple(table["reasons"]),
            tuple(_student(entry) for entry in table["students"]),
            table["gate"],
            table["judge"],
            table["provenance"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a field is missing or wrong ({error}). Run the suites again.") from error


def _student(entry: Mapping[str, Any]) -> StudentResult:
    return StudentResult(
        entry["id"],
        Outcome(entry["outcome"]),
        entry["expected"],
        tuple(entry["reasons"]),
        {name: check_from_row(row) for name, row in entry["checks"].items()},
        entry["about"],
    )
