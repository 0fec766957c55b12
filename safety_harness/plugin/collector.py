"""Collect the rows of every process, decide the run, write the reports, and set the exit code."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safety_harness import __version__
from safety_harness.errors import HarnessError, Remark, masked
from safety_harness.files import sha256_file
from safety_harness.gate.incidents import Incident, broken_tests, student_of
from safety_harness.plugin.environment import commit, installed, judge_of, settings_of
from safety_harness.plugin.lost import idle_suites, left_out, reason_of
from safety_harness.plugin.measure import EXPLAINED, PROPERTY

if TYPE_CHECKING:
    from safety_harness.gate.results import RunResult
    from safety_harness.registry.load import Student

# pytest itself uses 0 to 6.
EXIT_INCONCLUSIVE = 10
PACKAGES = ("torch", "transformers", "safetensors", "scipy", "pytest", "pytest-xdist")
# Facts about a student of which there can be but one.
MEASURED = ("identity", "patch", "lineage", "moved", "tampered")
# With one of these options pytest runs no test, and ends as if all were well.
RUNS_NOTHING = ("collectonly", "showfixtures", "show_fixtures_per_test", "setuponly", "setupplan", "cacheshow")


@dataclass(eq=False)  # pytest keeps plugins in sets
class Collector:
    """The plugin of the process that decides: the controller, or the only process.

    The required checks of a student are known before anything runs. A check that does not come in (a crashed worker,
    a deselected test, an interrupt) makes the gate INCONCLUSIVE.
    """

    students: Sequence[Student]
    subject: str
    report_dir: Path
    root: Path
    patches: Path | None = None
    """The results.json whose patches are gated; None where they are searched."""
    started: float = field(default_factory=time.time)
    checks: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: dict[str, Any] = field(default_factory=dict)
    result: RunResult | None = None
    broken: dict[str, str] = field(default_factory=dict)
    """Why each test failed that did so outside of the gate's checks, or was left out."""
    ran: set[Path] = field(default_factory=set)
    """The files of the tests that ran, from the root."""
    notes: list[str] = field(default_factory=list)
    remarks: dict[str, None] = field(default_factory=dict)
    """What the harness remarked, each once and in order."""
    interrupted: bool = False
    folder: Path | None = None
    """Where this run writes, in ``report_dir``."""
    alone: bool = False
    """Whether all tests of the run are the gate's, and none are a project's own."""

    def __post_init__(self) -> None:
        # Read before anything is measured: the files may have changed or vanished at the end.
        self._began_with = {
            **({"patches": f"of {self.patches.name}, sha256 {sha256_file(self.patches)}"} if self.patches else {}),
            "commit": commit(self.root),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "environment": installed(),
        }

    @pytest.hookimpl(tryfirst=True)  # before pytest-xdist starts workers
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Begin a folder of reports, as those of a run that proves nothing yet.

        Raises:
            UsageError: nothing can be written there. Hours of measurements would be for nothing.
        """
        if any(session.config.getoption(name, None) for name in RUNS_NOTHING):
            return
        from safety_harness.gate import runs
        from safety_harness.report import write_results

        try:
            self.folder = runs.begin(self.report_dir)
            write_results(self._decided({}, {}, [Incident(kind="interrupted")]), self.folder)
            runs.show(self.folder)
        except (HarnessError, OSError) as error:
            raise pytest.UsageError(f"The reports could not be written: {error}") from error

    @pytest.hookimpl(tryfirst=True)  # the rows are gone before pytest writes properties into a JUnit file
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        from safety_harness.gate.asked import Question

        rows = [row for name, row in report.user_properties if name == PROPERTY and isinstance(row, dict)]
        checks = [(row["student"], row["check"]) for row in rows if "check" in row]
        # What pytest-rerunfailures runs again is lost evidence too: it may have been stopped while weights were moved.
        set_aside = any(check["outcome"] == "not counted" for _, check in checks)
        skipped = left_out(report) and self._is_ours(report.nodeid) and not set_aside
        lost = report.failed or str(report.outcome) == "rerun" or skipped
        if lost and EXPLAINED not in rows:
            self.broken[report.nodeid] = reason_of(report)  # once, even if several workers crash on it
        self.ran.add(Path(report.location[0]))
        for student, check in checks:
            checks_of = self.checks.setdefault(student, {})
            earlier = checks_of.get(check["name"]) or check
            # Of two measurements the worse counts: a test cannot be repeated until it passes.
            checks_of[check["name"]] = max(earlier, check, key=_badness)
            if earlier != check:
                self.remarks[f"{student}: {check['name']} was measured more than once. The worse counts."] = None
        for row in (row for row in rows if "student" in row):
            about, known = row.get("about", {}), self.about.setdefault(row["student"], {})
            if twice := [name for name in MEASURED if name in about and known.get(name, about[name]) != about[name]]:
                # By these a check is held against what was gated: a suite of a user's own may not write over them.
                self.broken[report.nodeid] = f"records another {twice[0]} of its student than a test before it"
            known.update({name: fact for name, fact in about.items() if name not in twice})
            for name, asked in row.get("questions", {}).items():
                self.questions[name] = tuple(Question(*each) for each in asked)
        report.user_properties[:] = [each for each in report.user_properties if each[0] != PROPERTY]

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Keep what the harness remarks, here or in a worker; pytest shows it among all other warnings."""
        if issubclass(warning_message.category, Remark):
            self.remarks[str(warning_message.message)] = None

    def pytest_keyboard_interrupt(self) -> None:
        """Note that the run was cut short; ``pytest.exit`` may choose any exit code, 0 too."""
        self.interrupted = True

    def _is_ours(self, nodeid: str) -> bool:
        """Return whether a test is missed if it is left out: one of a student, or any of a run that is all a gate."""
        ids = [student.id for student in self.students]
        return self.alone or student_of(nodeid, ids) in ids

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or (report.skipped and self._is_ours(report.nodeid)):
            self.broken[report.nodeid] = reason_of(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self.checks and exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            return
        if self.folder is None:
            return
        from safety_harness.report import write_reports, write_results
        from safety_harness.report.github import write_summary

        if exitstatus == pytest.ExitCode.OK:
            self.broken.update(idle_suites(session.config, self.ran))
        self.result = self._decide(exitstatus)
        if error := self._write(write_reports, self.folder):
            # A release without its report is not shown to be green. Hours of measurements may be behind it: what can be
            # written anywhere is, and from results.json everything else can be made.
            self.result = self._decide(exitstatus, Incident("report_not_written", cause=error))
            for write, folder in ((write_reports, None), (write_results, self.folder), (write_results, None)):
                if not (error := self._write(write, folder)):
                    break
                self.notes.append(f"Nor could they be written otherwise: {error}")
        try:
            write_summary(self.result)
        except HarnessError as error:  # the reports are there all the same
            self.notes.append(str(error))
        session.exitstatus = self._exit_code(exitstatus, self.result.outcome.value)

    @pytest.hookimpl(specname="pytest_sessionfinish", wrapper=True, tryfirst=True)
    def pytest_sessionfinish_last(self, session: pytest.Session) -> Generator[None]:
        """Set the exit code after every other plugin: some turn each failure into success."""
        yield
        if self.folder is not None:  # what was not decided, as where no test was collected, is not proven either
            outcome = self.result.outcome.value if self.result else "inconclusive"
            session.exitstatus = self._exit_code(session.exitstatus, outcome)

    def _exit_code(self, exitstatus: int, outcome: str) -> int:
        """Return pytest's exit code, or the gate's where it says more: unproven is not failed."""
        # pytest says that tests failed even where they failed only because their checks are unproven.
        unproven = exitstatus == pytest.ExitCode.TESTS_FAILED and not self.broken
        if outcome == "inconclusive" and (exitstatus == pytest.ExitCode.OK or unproven):
            return EXIT_INCONCLUSIVE
        if outcome == "fail" and exitstatus == pytest.ExitCode.OK:
            return pytest.ExitCode.TESTS_FAILED
        return exitstatus

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.result is None:
            return
        from safety_harness.report import last_line, terminal
        from safety_harness.report.github import workflow_commands

        terminalreporter.section("release gate")
        for line in (*terminal(self.result).splitlines(), *self.notes, *workflow_commands(self.result)):
            terminalreporter.write_line(line)
        colour = {"pass": "green", "inconclusive": "yellow"}.get(self.result.outcome.value, "red")
        terminalreporter.write_line(last_line(self.result), **{colour: True, "bold": True})

    def _decide(self, exitstatus: int, *incidents: Incident) -> RunResult:
        """Decide the run. A student whose facts contradict each other counts as not measured."""
        from safety_harness.gate.recheck import student_faults

        incomplete = [*broken_tests(self.broken, [student.id for student in self.students]), *incidents]
        if self.interrupted or exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
            incomplete.append(Incident(kind="interrupted"))
        result = self._decided(self.checks, self.about, incomplete)
        if not (faults := student_faults(result)):
            return result
        checks, about = (
            {student: facts for student, facts in rows.items() if student not in faults}
            for rows in (self.checks, self.about)
        )
        contradicted = [
            Incident(
                kind="other", students=(student,), cause=f"{student}: what was measured contradicts itself: {fault}"
            )
            for student, fault in faults.items()
        ]
        return self._decided(checks, about, [*incomplete, *contradicted])

    def _decided(
        self,
        checks: Mapping[str, Mapping[str, Mapping[str, Any]]],
        about: Mapping[str, Mapping[str, Any]],
        incomplete: Sequence[Incident],
    ) -> RunResult:
        """Return the decided run of the rows *checks* and *about*, by student."""
        from safety_harness.gate import decide
        from safety_harness.gate.records import About
        from safety_harness.gate.results import check_from_row

        corrected = decide.correct_for_students(
            {
                student.id: {name: check_from_row(row) for name, row in checks.get(student.id, {}).items()}
                for student in self.students
            }
        )
        settings = settings_of(self.students)
        decided = [
            decide.decide_student(
                student.id,
                corrected[student.id],
                required=decide.required(subject, settings[student.family.name]),
                expected=student.spec.expected,
                about=About.model_validate(
                    {**about.get(student.id, {}), "subject": subject, "sources": student.sources}
                ),
            )
            for student in self.students
            for subject in [decide.subject_to_gate(student, self.subject)]  # whatever a suite may say
        ]
        return decide.decide_run(
            decided,
            incomplete=incomplete,
            gate=settings,
            judge=judge_of(self.students, [student.about for student in decided]),
            provenance={**self._provenance(), "subject": decide.subjects(decided)},
            questions=dict(sorted(self.questions.items())),  # by their sets: processes report in any order
            remarks=tuple(self.remarks),
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "safety-harness": __version__,
            **self._began_with,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "decoding": "greedy, and drawn under attack" if any(map(_draws, self.students)) else "greedy",
        }

    def _write(self, write: Callable[[RunResult, Path], tuple[Path, ...]], folder: Path | None) -> str:
        """Write the result into *folder*, or into a new temporary one. Return what went wrong; empty if nothing did."""
        assert self.result is not None
        from safety_harness.gate import runs

        try:
            place = folder or Path(tempfile.mkdtemp(prefix="safety-harness-"))
            written = write(self.result, place)
            if place == self.folder:
                runs.finish(place)
        except Exception as error:  # whatever it is: the measurements must not be lost
            return str(error) if isinstance(error, HarnessError) else masked(f"{type(error).__name__}: {error}")
        shown = f", shown as {place.with_name(runs.LATEST)}" if place == self.folder else ""
        self.notes.append("reports: " + ", ".join(path.name for path in written) + f" in {place}{shown}")
        return ""


def _draws(student: Student) -> bool:
    return bool(student.gate.attacks) and student.gate.temperature > 0


def _badness(check: Mapping[str, Any]) -> int:
    return ("not counted", "pass", "inconclusive", "fail").index(check["outcome"])
