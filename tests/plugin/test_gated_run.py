"""Check how a run turns its rows into a decision: what is green, what is red, and what is not enough."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from safety_harness import report
from safety_harness.files import sha256_file
from safety_harness.plugin import collector
from safety_harness.plugin.collector import EXIT_INCONCLUSIVE
from tests.plugin.conftest import junit_properties
from tests.samples import results_with, whole_patch

NO_IDENTITY = "what was gated is not recorded (its identity): run test_minimality too"
Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]
# A suite that leaves a file where the run had its folder of reports.
TAKEN = """
import pathlib, shutil

def test_mine():
    shutil.rmtree("taken")
    pathlib.Path("taken").touch()
"""


def by_id(table: dict[str, Any]) -> dict[str, str]:
    """Return each student's outcome in a results.json."""
    return {student["id"]: student["outcome"] for student in table["students"]}


# --- Green and red ---------------------------------------------------------------------------------------------------


def test_a_run_in_which_all_students_pass_is_green(project: Project, results: Results) -> None:
    run = project()
    assert run.ret == pytest.ExitCode.OK
    assert by_id(results()) == {"alpha/one": "pass", "alpha/two": "pass"}
    run.stdout.fnmatch_lines(["*release gate*", "student *", "alpha/one *PASS", "reports: *report.md*", "gate: PASS"])


def test_a_failing_student_turns_the_run_red(project: Project, results: Results) -> None:
    run = project(students={"one": "pass", "weak": "pass"})
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert by_id(results()) == {"alpha/one": "pass", "alpha/weak": "fail"}
    run.stdout.fnmatch_lines(["*CheckFailed: DSR 9/128, lower bound *", "*gate: FAIL"])
    assert "raise AssertionError" not in run.stdout.str()


def test_an_expected_failure_is_a_known_red(project: Project, results: Results) -> None:
    run = project(students={"one": "pass", "weak": "fail"})
    assert run.ret == pytest.ExitCode.OK
    run.assert_outcomes(passed=5, xfailed=1)
    assert (results()["outcome"], by_id(results())["alpha/weak"]) == ("known red", "fail")
    run.stdout.fnmatch_lines(["alpha/weak *KNOWN RED", "gate: KNOWN RED, 1 of 2 students may not ship"])
    assert "PASS" not in run.stdout.lines[-2]


def test_an_unexpected_pass_is_red(project: Project, results: Results) -> None:
    run = project(students={"one": "fail"})
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert results()["reasons"] == ["alpha/one: pass, expected fail"]
    run.stdout.fnmatch_lines(["gate: FAIL"])


def test_an_error_is_not_taken_for_an_expected_failure(project: Project) -> None:
    broken = "def test_broken(student):\n    raise OSError('no more disk')\n"
    assert project(students={"weak": "fail"}, more=broken).ret == pytest.ExitCode.TESTS_FAILED


def test_thresholds_of_the_command_line_decide(project: Project, results: Results) -> None:
    project("--gate-dsr", "0.999", "--gate-search-max-probes", "7", students={"one": "pass"})
    settings = results()["gate"]["alpha"]
    assert (settings["gate"]["dsr"], settings["search"]["max_probes"]) == (0.999, 7)


# --- Not enough ------------------------------------------------------------------------------------------------------


def test_a_deselected_test_is_inconclusive(project: Project, results: Results) -> None:
    run = project("-k", "not over_refusal")
    assert run.ret == EXIT_INCONCLUSIVE == 10
    assert results()["outcome"] == "inconclusive"
    assert results()["reasons"][0] == "alpha/one: not measured: over_refusal"
    run.stdout.fnmatch_lines(["alpha/one *INCONCLUSIVE", "gate: INCONCLUSIVE"])


def test_answers_that_cannot_be_scored_are_no_failure(project: Project, results: Results) -> None:
    """Let the test of an unproven check fail: pytest alone would call the run failed."""
    unscored = (
        "from tests.samples import defense\n"
        "def test_unscored(student, measure):\n    measure(defense(0, 110, unscored=10)).require()\n"
    )
    assert project(students={"one": "pass"}, more=unscored).ret == EXIT_INCONCLUSIVE
    assert by_id(results()) == {"alpha/one": "inconclusive"}


def test_students_that_did_not_run_are_inconclusive(project: Project, results: Results) -> None:
    assert project("-k", "alpha/one").ret == EXIT_INCONCLUSIVE
    assert by_id(results()) == {"alpha/one": "pass", "alpha/two": "inconclusive"}


def test_a_student_chosen_alone_is_the_whole_run(project: Project, results: Results) -> None:
    assert project("--gate-student", "one").ret == pytest.ExitCode.OK
    assert by_id(results()) == {"alpha/one": "pass"}


def test_a_student_gated_as_it_is_needs_no_minimality(project: Project, results: Results) -> None:
    run = project("--gate-subject", "student", "-k", "not the_rest", students={"strong": "pass"})
    assert run.ret == EXIT_INCONCLUSIVE
    assert results()["students"][0]["reasons"] == ["not measured: task", NO_IDENTITY]
    assert results()["provenance"]["subject"] == results()["students"][0]["about"]["subject"] == "as it is"


@pytest.mark.parametrize(("recorded", "outcome"), [(True, "pass"), (False, "inconclusive")])
def test_a_student_as_it_is_has_to_be_known(project: Project, results: Results, recorded: bool, outcome: str) -> None:
    """Gate a student of a family without a teacher, whose identity is recorded or not."""
    more = "def test_mine(student, measure):\n    measure.about(identity={'student': 'f00'}, subject='patched')\n"
    run = project(more=more if recorded else "", students={"strong": "pass"}, teacher=False)
    assert run.ret == (pytest.ExitCode.OK if recorded else EXIT_INCONCLUSIVE)
    (student,) = results()["students"]
    assert (student["about"]["subject"], student["outcome"]) == ("as it is", outcome)
    assert student["reasons"] == ([] if recorded else [NO_IDENTITY])
    assert "as it is; no teacher" in (Path("reports/latest") / "report.md").read_text() or not recorded
    run.stdout.fnmatch_lines(["alpha/strong * as it is *"])


def test_a_broken_test_leaves_no_green_report(project: Project, results: Results) -> None:
    broken = "def test_mine(student):\n    raise ValueError('no such thing')\n"
    assert project(students={"one": "pass"}, more=broken).ret == pytest.ExitCode.TESTS_FAILED
    assert results()["outcome"] == "inconclusive"
    assert results()["reasons"] == [
        "suites/test_before_suite.py::test_mine[alpha/one] could not be measured: ValueError: no such thing"
    ]


def test_a_check_that_is_measured_twice_counts_as_the_worse(project: Project, results: Results) -> None:
    """Measure a check three times, the worse in the middle: no suite may repeat a check until it passes."""
    twice = (
        "import pytest\nfrom tests.samples import sample_checks\n"
        "@pytest.mark.parametrize('refused', [128, 9, 128])\n"
        "def test_again(student, measure, refused):\n    measure(sample_checks(refused)[0])\n"
    )
    assert project(students={"one": "pass"}, more=twice).ret == pytest.ExitCode.TESTS_FAILED
    assert by_id(results()) == {"alpha/one": "fail"}


def test_an_interrupt_keeps_the_students_that_were_finished(project: Project, results: Results) -> None:
    interrupt = "def test_first(student):\n    if student.evaluator.student.name == 'two': raise KeyboardInterrupt\n"
    run = project(students={"one": "pass", "two": "pass"}, more=interrupt)
    assert run.ret == pytest.ExitCode.INTERRUPTED
    assert by_id(results()) == {"alpha/one": "pass", "alpha/two": "inconclusive"}
    assert results()["reasons"][-1] == "the run was interrupted"
    run.stdout.fnmatch_lines(["*release gate*", "gate: INCONCLUSIVE"])


def test_a_report_that_cannot_be_written_is_saved_elsewhere(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = pytester.path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    run = project("--gate-report-dir", "taken", more=TAKEN)
    assert run.ret == EXIT_INCONCLUSIVE
    run.stdout.fnmatch_lines(
        [
            "- the reports could not be written: *taken*--gate-report-dir*",
            f"reports: * in {elsewhere}/*",
            "gate: INCONCLUSIVE",
        ]
    )
    (saved,) = elsewhere.glob("*/results.json")
    assert by_id(json.loads(saved.read_text())) == {"alpha/one": "pass", "alpha/two": "pass"}
    assert "INTERNALERROR" not in run.stdout.str()


def test_where_no_disk_takes_the_results_the_run_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(collector, "tempfile", SimpleNamespace(mkdtemp=full))
    run = project("--gate-report-dir", "taken", more=TAKEN)
    assert run.ret == EXIT_INCONCLUSIVE
    run.stdout.fnmatch_lines(["Nor could they be written otherwise: *", "gate: INCONCLUSIVE"])
    assert "INTERNALERROR" not in run.stdout.str()


def test_results_survive_a_report_that_breaks(
    project: Project, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break a report: results.json is written all the same, and every other report can be made from it."""

    def broken(*_: object) -> dict[str, str]:
        raise ZeroDivisionError("a report that breaks")

    monkeypatch.setitem(cast("dict[str, object]", report.WRITERS), "html", broken)
    found = project(students={"one": "pass"})
    assert found.ret == EXIT_INCONCLUSIVE
    assert by_id(results()) == {"alpha/one": "pass"}
    assert results()["reasons"][0].startswith("the reports could not be written: ZeroDivisionError")
    assert results()["incomplete"][0]["kind"] == "report_not_written"
    assert "INTERNALERROR" not in found.stdout.str()


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ("measure.about(patch={'units': []})", "measure.about: patch.key: Field required"),
        (
            "measure(Check('perplexity', Outcome.PASS, '', {'ratio_upper': 9.0}))",
            "measure: perplexity: pass, and its numbers say otherwise",
        ),
        ("measure(Check('defense', Outcome.PASS, '', {'n': 'many'}))", "the numbers of 'defense': n: Input should be"),
    ],
)
def test_a_fact_that_no_report_can_show_breaks_its_test(
    project: Project, results: Results, measured: str, message: str
) -> None:
    """Expect the error in the suite's own line, and everything else measured."""
    more = (
        f"from safety_harness.gate.results import Check, Outcome\ndef test_strange(student, measure):\n    {measured}\n"
    )
    assert project(students={"one": "pass"}, more=more).ret == pytest.ExitCode.TESTS_FAILED
    assert by_id(results()) == {"alpha/one": "pass"}
    (incident,) = results()["incomplete"]
    assert (incident["kind"], incident["students"]) == ("broken_test", ["alpha/one"])
    assert message in incident["cause"]


def test_a_run_without_matplotlib_is_as_green(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take matplotlib away: every report is written, without figures."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert project(students={"one": "pass"}).ret == pytest.ExitCode.OK
    names = {path.name for path in (pytester.path / "reports" / "latest").iterdir()}
    assert names == {"results.json", "report.md", "report.html", "report.csv"}


def test_a_suites_own_numbers_and_facts_are_kept(project: Project, results: Results) -> None:
    """Expect a check and a fact of another name in results.json as they were given."""
    more = (
        "from safety_harness.gate.results import Check, Outcome\n"
        "def test_own(student, measure):\n"
        "    measure.about(weather={'rain': [1, 2]})\n"
        "    measure(Check('speed', Outcome.PASS, 'fast', {'tokens_per_second': 7.5}))\n"
    )
    assert project(students={"one": "pass"}, more=more).ret == pytest.ExitCode.OK
    (student,) = results()["students"]
    assert student["about"]["weather"] == {"rain": [1, 2]}
    assert student["checks"]["speed"]["numbers"] == {"tokens_per_second": 7.5}


@pytest.mark.parametrize("arguments", [("-W", "error"), ("-o", "filterwarnings=error"), ("-n", "1", "-W", "error")])
def test_a_warning_ends_no_measurement(project: Project, results: Results, arguments: tuple[str, ...]) -> None:
    """Turn warnings into errors, as many projects do: remarks of the harness reach the report, and end nothing."""
    more = (
        "import warnings\nfrom safety_harness.errors import remark\n"
        "def test_mine(student):\n    warnings.warn('from a library')\n    remark('they differ in rope_theta')\n"
    )
    run = project(*arguments, students={"one": "pass"}, more=more)
    assert run.ret == pytest.ExitCode.OK
    assert results()["remarks"] == ["they differ in rope_theta"]
    assert "they differ in rope_theta" in (Path("reports/latest") / "report.md").read_text()
    assert "they differ in rope_theta" in (Path("reports/latest") / "report.html").read_text()


def test_a_projects_own_tests_keep_their_filters(project: Project) -> None:
    """Expect the error that a project asks for in a test that measures no student."""
    more = "import warnings\ndef test_mine():\n    warnings.warn('mine')\n"
    assert project("-W", "error", students={"one": "pass"}, more=more).ret == pytest.ExitCode.TESTS_FAILED


# --- No gate at all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument", ["--collect-only", "--fixtures", "--fixtures-per-test", "--setup-plan", "--setup-only"]
)
def test_a_run_that_runs_nothing_leaves_no_report(project: Project, pytester: pytest.Pytester, argument: str) -> None:
    assert project(argument).ret == pytest.ExitCode.OK
    assert not (pytester.path / "reports").exists()


# --- The report ------------------------------------------------------------------------------------------------------


def test_a_report_says_where_its_numbers_come_from(project: Project, results: Results) -> None:
    project(students={"one": "pass"})
    table = results()
    assert table["provenance"]["decoding"] == "greedy"
    assert set(table["provenance"]["packages"]) >= {"torch", "transformers", "pytest-xdist"}
    anchors = table["judge"]["sets"]["own anchors"]
    assert anchors["n"] > 0
    assert 0.5 < anchors["sensitivity"] <= 1.0
    sources = {"student": "hf:sample/one", "teacher": "hf:sample/alpha-teacher"}
    assert table["students"][0]["about"] == {
        "subject": "patched", "sources": sources,
        "test_defense": "main", "test_over_refusal": "main", "test_the_rest": "main",
    }  # fmt: skip


def test_a_run_over_recorded_patches_says_of_which(
    project: Project, results: Results, pytester: pytest.Pytester
) -> None:
    patch = whole_patch(student="alpha/one").model_dump(mode="json")
    file = results_with(pytester.path / "earlier.json", {"alpha/one": {"patch": patch}})
    ran = project("--gate-patches", "earlier.json", "--gate-student", "one")
    assert ran.ret == pytest.ExitCode.OK
    assert results()["provenance"]["patches"] == f"of earlier.json, sha256 {sha256_file(file)}"
    ran = project("--gate-patches", "earlier.json")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "earlier.json records no patch of alpha/two" in ran.stderr.str()


def test_patches_may_vanish_while_a_run_measures(project: Project, results: Results, pytester: pytest.Pytester) -> None:
    patch = whole_patch(student="alpha/one").model_dump(mode="json")
    file = results_with(pytester.path / "earlier.json", {"alpha/one": {"patch": patch}})
    digest = sha256_file(file)
    gone = "import pathlib\ndef test_gone():\n    pathlib.Path('earlier.json').unlink()\n"
    project("--gate-patches", "earlier.json", "--gate-student", "one", more=gone)
    assert not file.exists()
    assert results()["provenance"]["patches"] == f"of earlier.json, sha256 {digest}"


def test_a_report_has_the_settings_of_its_family(project: Project, results: Results) -> None:
    """Let the last student have settings of its own: those of the family are reported."""
    project(last="search = { max_probes = 7 }\n")
    assert results()["gate"]["alpha"]["search"]["max_probes"] == 400


def test_one_cause_is_reported_once(project: Project, results: Results) -> None:
    broken = "".join(f"def test_{name}(student):\n    open('/no/such/file')\n" for name in ("this", "that", "other"))
    assert project(students={"one": "pass"}, more=broken).ret == pytest.ExitCode.TESTS_FAILED
    assert results()["reasons"] == [
        "suites/test_before_suite.py::test_this[alpha/one] and 2 more of this student could not be measured: "
        "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"
    ]


# --- What CI servers read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_a_junit_file_of_pytest_holds_no_rows(project: Project, pytester: pytest.Pytester, family: str) -> None:
    """Read the JUnit file of a run in one process; test_workers.py reads those of runs with workers."""
    project("--junitxml", "junit.xml", "-o", f"junit_family={family}", students={"one": "pass"})
    assert junit_properties(pytester.path / "junit.xml", "test_defense[alpha/one]") == {}
    assert "asked" not in (pytester.path / "junit.xml").read_text()


def test_github_gets_a_summary_and_an_annotation(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    run = project(students={"one": "pass", "weak": "pass"})
    run.stdout.fnmatch_lines(["::error title=release gate::alpha/weak: fail, expected pass; DSR 9/128*"])
    assert (pytester.path / "summary").read_text().startswith("# Release gate: FAIL\n")
