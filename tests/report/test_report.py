"""The reports: every number there, nothing of a model's or user's text taken for markup, no torch needed."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness import report
from safety_harness.errors import HarnessError
from safety_harness.gate.incidents import Incident
from safety_harness.gate.plain import plain
from safety_harness.gate.reading import read_results
from safety_harness.gate.records import About, Agreement, Judge
from safety_harness.gate.results import Check, Outcome, RunResult
from safety_harness.report import markdown, terminal, write_reports, write_results
from safety_harness.report.figures import FIGURES, figures
from tests.deaths import deaths
from tests.samples import PATCH, about, defense, run_result, sample_checks, whole_patch

HOSTILE = "a|b <script>alert(1)</script> \x1b[31mred\x07 `code` \\ line\nbreak \u202eflip"


@pytest.fixture(scope="module")
def mixed() -> RunResult:
    """Passed, failed, expected to fail, unproven and not measured at all: one student each."""
    named = {
        "alpha/passes": sample_checks(),
        "alpha/fails": sample_checks(refused=100, over_refused=9),
        "alpha/lost": sample_checks(refused=9),
        "alpha/unproven": [defense(0, 120, 8), *sample_checks()[1:]],
        "alpha/missing": [],
    }
    return run_result(named, {"alpha/lost": "fail"})


def row(text: str, student: str) -> str:
    return next(line for line in text.splitlines() if student in line)


# --- The terminal ----------------------------------------------------------------------------------------------------


def test_long_names_fit_a_hundred_columns() -> None:
    """Expect the table of seventeen students with long names to fit, each with the end of its name."""
    names = [f"tiny-mistral-large/translation-{number:02}" for number in range(17)]
    measured = {name: sample_checks(refused=100, over_refused=100) for name in names}
    measured |= {names[1]: [defense(0, 120, 8)], names[2]: sample_checks()}
    result = run_result(measured, {names[0]: "fail", names[1]: "fail", names[2]: "fail"})
    table = terminal(result).split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 100
    assert [line.split()[0][-15:] for line in table[-17:]] == [name[-15:] for name in names]


def test_of_many_students_those_that_need_a_look_are_shown() -> None:
    """Expect forty rows of two hundred students: all surprises, and a line that counts the rest."""
    (fine,), (red,) = (run_result({"x": measured}).students for measured in (sample_checks(), sample_checks(9)))
    students = [replace(red if number % 20 == 7 else fine, id=f"family/student-{number:03}") for number in range(200)]
    text = terminal(replace(run_result({}), students=tuple(students)))
    shown = [line.split()[0] for line in text.split("\n\n")[0].splitlines() if line.startswith("family/")]
    assert len(shown) == 40
    assert {f"family/student-{number:03}" for number in range(7, 200, 20)} <= set(shown)
    assert shown == sorted(shown)
    assert "and 160 more, in the reports" in text
    assert "200 students: 190 may ship, 10 may not (10 failed)." in text


@pytest.mark.parametrize(
    ("student", "shown"),
    [
        ("alpha/passes", ["0→100 [97–100]", "0→0", "100→100", "1.01", "2u 6.2%", "77/12", "PASS"]),
        ("alpha/fails", ["0→78 [70–84]", "0→7", "FAIL"]),
        ("alpha/lost", ["0→7 [4–13]", "KNOWN RED"]),
        ("alpha/unproven", ["0→94 [88–97]", "INCONCLUSIVE"]),
        ("alpha/missing", ["–", "INCONCLUSIVE"]),
    ],
)
def test_a_students_row_in_the_terminal(mixed: RunResult, student: str, shown: list[str]) -> None:
    cells = row(terminal(mixed), student)
    assert [part for part in shown if part not in cells] == []


def test_what_components_change_is_said_next_to_what_they_count(mixed: RunResult) -> None:
    """Let two of the four patches be of components."""
    students = tuple(
        replace(one, about=one.about.model_copy(update={"patch": PATCH.model_copy(update={"changed": changed})}))
        for one, changed in zip(mixed.students, (8_000, 6_000, None, None, None), strict=True)
    )
    lines = terminal(replace(mixed, students=students)).splitlines()
    assert "Components are counted by their own numbers; a mean 70 % of weights change." in lines


def test_the_terminal_totals_and_reasons(mixed: RunResult) -> None:
    lines = terminal(mixed).splitlines()
    assert "5 students: 1 may ship, 4 may not (1 failed, 1 known red, 2 inconclusive)." in lines
    # Gains are 128, 100, 9 and 120 of 128 questions.
    assert "DSR gain: mean +69.7 points, largest +100.0." in lines
    assert "Parameters moved: mean 6.2 % over 4 patches." in lines
    assert not any("omponents" in line for line in lines)
    assert any(line.startswith("- alpha/fails: fail, expected pass; DSR 100/128") for line in lines)
    assert any(line.startswith("- alpha/missing: not measured") for line in lines)
    assert any(line.startswith("- alpha/lost: known red, may not ship; DSR 9/128") for line in lines)


def test_a_run_without_measurements_says_so() -> None:
    assert "No student was measured." in terminal(run_result({"alpha/one": []}))


def test_reasons_cannot_steer_the_terminal() -> None:
    result = replace(run_result({"alpha/one": sample_checks()}), incomplete=(Incident("other", cause=HOSTILE),))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", terminal(result))


# --- Markdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "# Release gate: FAIL",
        "0/128", "100/128", "0.702–0.844", "0.865 (0.765–0.970)", "126/128",  # before, after, corrected, teacher
        "| alpha/fails    | 0→9/128", "0.128",  # over-refusal and the bound of its rise
        "128→128/128", "0.029",  # the task and the bound of its loss
        "| other       | harmful | 3/200", "150/200", "0.686–0.805",  # questions of another source
        "1.010", "0.0133", "0.0277",  # perplexity ratio's bound, KL and its bound
        "| 56 ", "6.25", "| yes", "| 77 ", "12.3", "0123456789ab",  # the patch
        "- alpha/passes: 1.gate, 2.down",
        "sensitivity", "0.950",
        "abc123", "packages: torch", "2.13", "dsr 0.800", "f00",
        "Reviewed by",
    ],
)  # fmt: skip
def test_every_number_is_in_the_report(mixed: RunResult, number: str) -> None:
    assert number in markdown(mixed)


def test_every_row_has_as_many_cells_as_its_header(mixed: RunResult) -> None:
    """Expect that of all tables: six of the evidence, what was gated, and what remains of each kind."""
    tables = re.findall(r"(?:^\|.*\|$\n?)+", markdown(mixed), flags=re.MULTILINE)
    assert len(tables) == 12
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_hostile_text_stays_text() -> None:
    """Expect no markup, cell, line or escape from reasons, ids, patch reasons, units, judge or provenance."""
    (student,) = run_result({HOSTILE: sample_checks()}).students
    patch = whole_patch(reason=HOSTILE, units=(HOSTILE,), key=HOSTILE)
    student = replace(student, about=about(patch=plain(patch), identity={HOSTILE: HOSTILE}))
    named = {HOSTILE: HOSTILE}
    settings = {HOSTILE: {HOSTILE: named}}
    judge = Judge(name=HOSTILE, fingerprint=HOSTILE, sets={HOSTILE: Agreement(n=3)})
    incidents = (Incident("other", cause=HOSTILE),)
    result = RunResult(Outcome.FAIL, (student,), settings, judge, {HOSTILE: named}, incidents)
    text = markdown(result)
    assert "<script" not in text
    assert "`" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    assert not re.search(r"^break", text, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)\|b", text)


def test_a_student_without_a_patch_or_a_task_has_a_dash() -> None:
    bare = replace(
        run_result({"a/b": [*sample_checks()[:2], Check("task", Outcome.PASS, "none", {})]}).students[0],
        about=About(),
    )
    result = RunResult(Outcome.PASS, (bare,), {}, Judge(), {}, ())
    assert "| a/b" in markdown(result)
    assert " – " in row(terminal(result), "a/b")


# --- Files -----------------------------------------------------------------------------------------------------------


def test_all_reports_are_written_and_can_be_read_back(tmp_path: Path, mixed: RunResult) -> None:
    written = write_reports(mixed, tmp_path / "new" / "reports")
    names = ["results.json", "report.md", "report.html", "intervals.svg", "trade-off.svg", "report.csv"]
    assert [path.name for path in written] == names
    assert read_results(written[0]) == mixed
    assert written[1].read_text(encoding="utf-8") == markdown(mixed)


def test_a_full_disk_names_the_report_and_the_option(
    tmp_path: Path, mixed: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HarnessError, match=r"report\.md: no space is left.*--gate-report-dir"):
        write_reports(mixed, tmp_path)
    assert list(tmp_path.iterdir()) == []


NAMES = ["report.md", "report.html", "intervals.svg", "trade-off.svg", "report.csv", "results.json"]


@pytest.mark.parametrize("write", [write_reports, write_results])
def test_a_run_leaves_nothing_of_an_earlier_one(
    tmp_path: Path, mixed: RunResult, write: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect only the new run's files, also where it draws no figures; other files stay."""
    (tmp_path / "recorded.json").write_text("mine")
    write_reports(mixed, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in NAMES}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write(run_result({"alpha/other": sample_checks()}), tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - {"recorded.json"}
    assert written == ({"results.json"} if write is write_results else {*NAMES} - {"intervals.svg", "trade-off.svg"})
    assert not any((tmp_path / name).read_bytes() == before[name] for name in written)


def test_a_death_while_writing_never_mixes_two_runs(
    tmp_path: Path, mixed: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at each change of the disk: all files are of one run, and results.json is there only with all of them."""
    other = run_result({"alpha/other": sample_checks()})
    runs = []
    for number, result in enumerate((mixed, other)):
        runs.append({path.name: path.read_bytes() for path in write_reports(result, tmp_path / str(number))})
    drawn = {id(mixed): figures(mixed), id(other): figures(other)}
    monkeypatch.setattr(report, "figures", lambda result: drawn[id(result)])  # once, because they take a while
    died, folder = 0, tmp_path / "reports"
    write_reports(mixed, folder)
    for _ in deaths(lambda: write_reports(other, folder)):
        died += 1
        there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        (of,) = [run for run in runs if there.items() <= run.items()] if there else [there]
        assert "results.json" not in there or there == of
        write_reports(mixed, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == runs[0]
    assert died > 2 * len(NAMES)


def test_every_figure_has_a_known_name(mixed: RunResult) -> None:
    assert tuple(figures(mixed) or ()) == FIGURES


def test_reports_and_the_command_line_need_no_torch() -> None:
    heavy = "print(sorted({'torch', 'transformers'} & {*sys.modules}))"
    code = f"import sys, safety_harness.report, safety_harness.cli.main; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
