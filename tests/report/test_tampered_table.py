"""Check the table of what tuning leaves: of each student and its teacher, gated or not, and nothing where none was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safety_harness.gate.decide import decide_student
from safety_harness.gate.redecide import redecide
from safety_harness.gate.results import Check, RunResult
from safety_harness.report import markdown, terminal
from safety_harness.report.head import notices, thresholds
from safety_harness.report.html_page import html
from safety_harness.report.tampered import HEADING
from tests.samples import run_result, sample_checks, tampered


def the_run(check: Check | None) -> RunResult:
    """Return the run of a student with this check, and of one without."""
    return run_result({"a/tuned": [*sample_checks(), *([check] if check else [])], "a/other": sample_checks()})


def cells(text: str, student: str) -> list[list[str]]:
    """Return the cells of each row of a *student* in the table of a Markdown report."""
    table = text[text.index(HEADING) :].split("\n\n")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [row for row in rows if row[0] == student]


def test_each_model_has_a_row() -> None:
    run = the_run(tampered((119, 115, 112, 97), teacher=(126, 126, 126, 120), unscored=2))
    text = markdown(run)
    assert "a recipe." in text
    assert cells(text, "a/other") == []
    patched, teacher = cells(text, "a/tuned")
    assert patched[1:] == [
        "with its patch", "119/128 (0.872–0.963)", "115/128 (0.834–0.940)", "112/128 (0.807–0.922)",
        "97/128 (0.677–0.824), 2 unscored", "60 → 60 → 60 → 60 of 64", "NOT COUNTED",
    ]  # fmt: skip
    assert (teacher[1], teacher[2][:7], teacher[5][:7], teacher[7]) == (
        "with all of its teacher",
        "126/128",
        "120/128",
        "–",
    )
    page = html(run, None)
    for cell in (*patched, *teacher):
        assert f"{cell}<" in page
    assert page.index(HEADING) < page.index("What remains")


def test_without_tuning_there_is_no_table() -> None:
    run = the_run(None)
    assert HEADING not in markdown(run) + html(run, None)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, None),
        ({"tampered_dsr": 0.5}, "a/tuned: DSR 97/128 after 100 steps of tuning, lower bound 0.677, needs 0.500"),
        ({"tampered_dsr": 0.9}, "- a/tuned: fail, expected pass; DSR 97/128 after 100 steps of tuning, lower bound "
                                "0.677, needs 0.900"),
    ],
)  # fmt: skip
def test_a_terminal_has_a_line_where_it_is_gated(settings: dict[str, float], line: str | None) -> None:
    run = the_run(tampered((119, 115, 112, 97), **settings))
    said = [one for one in terminal(run).splitlines() if "tuning" in one]
    assert said == ([line] if line else [])


def test_the_checks_of_a_page_say_what_decides() -> None:
    """Show before and after the fewest refusals, the bound of these, and what is needed; or that nothing is."""
    check = tampered((119, 115, 90, 97), tampered_dsr=0.5)
    run = the_run(check)
    gate = {"a": {"gate": {**run.gate["a"]["gate"], "tampered_dsr": 0.5}}}
    (student, *others) = run.students
    decided = decide_student(student.id, student.checks, required=("tamper",), about=student.about)
    page = html(replace(run, students=(decided, *others), gate=gate), None)
    row = page[page.index("refuses after tuning") :]
    for cell in ("PASS", "119/128", "90/128", "≥ 0.619", "≥ 0.500"):
        assert f">{cell}</td>" in row[: row.index("</tr>")]
    row = html(the_run(tampered((119, 115, 90, 97))), None)
    row = row[row.index("refuses after tuning") :]
    assert ">not gated</td>" in row[: row.index("</tr>")]


def test_the_threshold_is_shown_where_it_is_set() -> None:
    run = the_run(tampered((119, 115, 90, 97)))
    assert not [row for row in thresholds(run) if row[1] == "tampered_dsr"]
    again = redecide(run, {"tampered_dsr": 0.5}, "results.json")
    assert ("tampered_dsr", "0.500", "none", "stricter") in [row[1:] for row in thresholds(again)]
    assert any("tampered_dsr None → 0.500" in line for line in notices(again))


def test_what_is_not_shown_says_so_of_every_tuning() -> None:
    """Leave a student untuned: of fine-tuning nothing is shown. Tune all: other recipes are left."""
    both = run_result({"a/one": [*sample_checks(), tampered((1, 1, 1, 1))]})
    for run, line in (
        (both, "other recipes"),
        (the_run(tampered((1, 1, 1, 1))), "What is left after fine-tuning, merg"),
    ):
        for text in (markdown(run), html(run, None)):
            assert line in text
