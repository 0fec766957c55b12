"""Rows from every process -> one decision, the reports, and the exit code of the run."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness import __version__
from safety_harness.errors import HarnessError
from safety_harness.files import sha256_file
from safety_harness.gate.incidents import Incident, broken_tests
from safety_harness.plugin.fixtures import PROPERTY

if TYPE_CHECKING:
    from safety_harness.gate.results import RunResult
    from safety_harness.registry.load import Student

# Beyond those that pytest has (0 to 6).
EXIT_INCONCLUSIVE = 10
PACKAGES = ("torch", "transformers", "safetensors", "scipy", "pytest", "pytest-xdist")
# With one of these pytest runs no test, and ends as if all were well.
RUNS_NOTHING = ("collectonly", "showfixtures", "show_fixtures_per_test", "setuponly", "setupplan", "cacheshow")


@dataclass(eq=False)  # pytest keeps plugins in sets
class Collector:
    """Lives on the process that decides: the controller, or the only one.

    A student's required checks are known before anything runs, so whatever did not come in (a crashed worker,
    a deselected test, an interrupt) makes the gate INCONCLUSIVE.
    """

    students: Sequence[Student]
    subject: str
    report_dir: Path
    root: Path
    patches: Path | None = None
    """The results.json whose patches are gated; None where they are searched."""
    started: float = field(default_factory=time.time)
    rows: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: dict[str, Any] = field(default_factory=dict)
    result: RunResult | None = None
    broken: dict[str, str] = field(default_factory=dict)
    """Test -> why it failed outside of the gate's checks."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Read while nothing is measured yet: files may change and vanish until all is.
        self._began_with = {
            **({"patches": f"of {self.patches.name}, sha256 {sha256_file(self.patches)}"} if self.patches else {}),
            "commit": _commit(self.root),
            "packages": {name: metadata.version(name) for name in PACKAGES},
        }

    @pytest.hookimpl(tryfirst=True)  # before the JUnit file is told of the properties
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        from safety_harness.gate.results import questions_from_row

        rows = [row for name, row in report.user_properties if name == PROPERTY and isinstance(row, dict)]
        if report.failed and all(row.get("outcome", "pass") == "pass" for row in rows):
            self.broken[report.nodeid] = _reason(report)  # once, though every worker that crashes on it reports it
        for row in rows:
            if "about" in row:
                self.about.setdefault(row["student"], {}).update(row["about"])
            elif "questions" in row:
                self.questions.update(questions_from_row(row))
            else:
                rows_of = self.rows.setdefault(row["student"], {})
                # What is measured twice is as bad as the worse of the two: nothing is asked until it passes.
                rows_of[row["name"]] = max(rows_of.get(row["name"], row), row, key=_badness)
        report.user_properties[:] = _readable(report.user_properties)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken[report.nodeid] = _reason(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self.rows and exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            return
        if any(session.config.getoption(name, None) for name in RUNS_NOTHING):
            return
        from safety_harness.report.github import write_summary

        self.result = self._decide(exitstatus)
        try:
            self._write(self.result, self.report_dir)
        except Exception as error:  # whatever it is: hours of measurements may be behind it
            # A release without its report is not shown to be green.
            self.result = self._decide(exitstatus, Incident(kind="report_not_written", cause=_said(error)))
            self._rescue(self.result)
        try:
            write_summary(self.result)
        except HarnessError as error:  # the reports are there all the same
            self.notes.append(str(error))
        session.exitstatus = self._exit_code(exitstatus, self.result.outcome.value)

    def _exit_code(self, exitstatus: int, outcome: str) -> int:
        """Pytest's own, but where the gate knows better: what is unproven is told from what failed."""
        # Of a test that fails as its check is unproven, and of nothing else, pytest says that tests failed.
        unproven = exitstatus == pytest.ExitCode.TESTS_FAILED and not self.broken
        if outcome == "inconclusive" and (exitstatus == pytest.ExitCode.OK or unproven):
            return EXIT_INCONCLUSIVE
        if outcome == "fail" and exitstatus == pytest.ExitCode.OK:
            return pytest.ExitCode.TESTS_FAILED
        return exitstatus

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.result is None:
            return
        from safety_harness.report import terminal
        from safety_harness.report.github import workflow_commands

        terminalreporter.section("release gate")
        for line in (*terminal(self.result).splitlines(), *self.notes):
            terminalreporter.write_line(line)
        for line in workflow_commands(self.result):
            terminalreporter.write_line(line)
        colour = {"pass": "green", "fail": "red"}.get(self.result.outcome.value, "yellow")
        terminalreporter.write_line(f"gate: {self.result.outcome.value.upper()}", **{colour: True, "bold": True})

    def _decide(self, exitstatus: int, *incidents: Incident) -> RunResult:
        from safety_harness.gate import decide
        from safety_harness.gate.results import check_from_row

        checks = decide.correct_for_students(
            {
                student.id: {name: check_from_row(row) for name, row in self.rows.get(student.id, {}).items()}
                for student in self.students
            }
        )
        decided = [
            decide.decide_student(
                student.id,
                checks[student.id],
                required=decide.required(self.subject),
                expected=student.spec.expected,
                about=self.about.get(student.id),
            )
            for student in self.students
        ]
        incomplete = [*broken_tests(self.broken, [student.id for student in self.students]), *incidents]
        if exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
            incomplete.append(Incident(kind="interrupted"))
        return decide.decide_run(
            decided,
            incomplete=incomplete,
            gate=self._settings(),
            judge=_judge_error(),
            provenance=self._provenance(),
            questions=self.questions,
        )

    def _settings(self) -> dict[str, Any]:
        """Of each family; what a student searches otherwise is told with its patch."""
        return {
            student.family.name: {
                "gate": student.family.gate.model_dump(mode="json"),
                "search": (student.usual or student.family.search).model_dump(mode="json"),
            }
            for student in self.students
        }

    def _provenance(self) -> dict[str, Any]:
        return {
            "safety-harness": __version__,
            **self._began_with,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "subject": self.subject,
            "decoding": "greedy",
        }

    def _write(self, result: RunResult, folder: Path) -> None:
        from safety_harness.report import write_reports

        written = write_reports(result, folder)
        self.notes.append(f"reports: {folder}: " + ", ".join(path.name for path in written))

    def _write_results(self, result: RunResult, folder: Path) -> None:
        from safety_harness.report import write_results

        self.notes.append(f"results: {write_results(result, folder)}")

    def _rescue(self, result: RunResult) -> None:
        """Nothing that was measured is lost, as long as any disk takes it: if not all reports, then results.json, of
        which everything else can be made."""

        def here() -> Path:
            return self.report_dir

        def elsewhere() -> Path:
            return Path(tempfile.mkdtemp(prefix="safety-harness-"))

        for write, place in ((self._write, elsewhere), (self._write_results, here), (self._write_results, elsewhere)):
            try:
                write(result, place())
            except Exception as error:
                self.notes.append(f"Nor could they be written otherwise: {_said(error)}")
            else:
                return


def _badness(row: Mapping[str, Any]) -> int:
    return ("pass", "inconclusive", "fail").index(row["outcome"])


def _readable(properties: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    """What a CI server shows of a test's properties: a check's outcome and its sentence, in place of the rows."""
    found: list[tuple[str, object]] = []
    for name, row in properties:
        if name != PROPERTY or not isinstance(row, dict):
            found.append((name, row))
        elif "outcome" in row:
            found += [("student", row["student"]), (row["name"], row["outcome"]), ("measured", row["summary"])]
    return found


def _said(error: Exception) -> str:
    """A message that is meant for the user as it is, any other with its kind."""
    return str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", report.longrepr)).strip().removeprefix("Failed: ")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[0] if isinstance(report, pytest.TestReport) else lines[-1]  # of a traceback the last says what


def _judge_error() -> dict[str, Any]:
    """How the judge does on the labelled answers that ship with it, measured now."""
    from safety_harness.gate.results import plain
    from safety_harness.judging.calibration import recorded_agreement, shipped_agreement
    from safety_harness.judging.judge import RuleJudge

    judge = RuleJudge()
    facts = ("n", "sensitivity", "specificity", "accuracy", "kappa", "counts")
    shipped: dict[str, Any] = {
        name: plain({fact: getattr(found, fact) for fact in facts}) for name, found in shipped_agreement(judge).items()
    }
    return {
        "name": judge.name, "fingerprint": judge.fingerprint, "sets": {**shipped, **recorded_agreement(judge)},
    }  # fmt: skip


def _commit(root: Path) -> str | None:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
