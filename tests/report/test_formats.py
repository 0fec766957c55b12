"""CSV, JUnit and GitHub: their numbers, and that no text in them forges anything."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from safety_harness.cli.main import main
from safety_harness.gate.decide import decide_run
from safety_harness.gate.incidents import Incident
from safety_harness.gate.records import Judge
from safety_harness.gate.results import Outcome, RunResult
from safety_harness.registry.settings import GateSettings
from safety_harness.report import WRITERS, last_line, terminal
from safety_harness.report.comparison import versus
from safety_harness.report.github import workflow_commands, write_summary
from safety_harness.report.markdown import brief
from safety_harness.report.spreadsheet import sheet
from tests.report.hostile import HOSTILE
from tests.samples import run_result, sample_checks


def test_a_row_a_student_for_a_spreadsheet(two: RunResult) -> None:
    rows = list(csv.DictReader(io.StringIO(sheet(two))))
    assert [row["student"] for row in rows] == ["alpha/passes", "alpha/fails"]
    assert (rows[1]["defense after"], rows[1]["outcome"], rows[1]["share of parameters"]) == ("100", "fail", "0.0625")
    assert float(rows[1]["defense after, lower"]) == pytest.approx(0.702, abs=5e-4)


def test_no_cell_is_a_formula(hostile: RunResult) -> None:
    cells = [cell for row in csv.reader(io.StringIO(sheet(hostile))) for cell in row]
    assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-[^\d]", cell)]
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\u202e]", sheet(hostile))


def test_junit_counts_what_it_lists() -> None:
    named = {
        "a/passes": sample_checks(),
        "a/fails": sample_checks(9),
        "a/lost": sample_checks(9),
        "a/won": sample_checks(),
        "a/none": [],
    }
    root = Xml.fromstring(WRITERS["junit"](run_result(named, {"a/lost": "fail", "a/won": "fail"}), None)["junit.xml"])
    counts = {suite.get("name"): [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] for suite in root}
    assert counts == {
        "a/passes": ["6", "0", "0", "0"],
        "a/fails": ["6", "1", "0", "0"],
        "a/lost": ["6", "0", "0", "1"],
        "a/won": ["7", "1", "0", "0"],
        "a/none": ["6", "0", "6", "0"],
        "run": ["1", "1", "0", "0"],
    }
    facts = {each.get("name"): each.get("value") for each in root[1].iter("property")}
    assert facts["refused after"] == "9"


@pytest.mark.parametrize(("lost", "interrupted"), [(False, False), (True, False), (False, True), (True, True)])
def test_junit_is_as_green_as_the_gate(lost: bool, interrupted: bool) -> None:
    """Expect no need of minimality for students as they are, skipped known reds, and a red interrupt."""
    named = {"a/one": sample_checks(), **({"a/lost": sample_checks(9)} if lost else {})}
    result = run_result(named, {"a/lost": "fail"})
    as_they_are = [
        replace(student, checks={name: check for name, check in student.checks.items() if name != "minimality"})
        for student in result.students
    ]
    incomplete = [Incident("interrupted")] if interrupted else []
    result = decide_run(as_they_are, incomplete=incomplete, gate={}, judge=Judge(), provenance={"subject": "student"})
    root = Xml.fromstring(WRITERS["junit"](result, None)["junit.xml"])
    counts = {kind: sum(int(suite.get(kind, 0)) for suite in root) for kind in ("failures", "errors", "skipped")}
    red = counts["failures"] + counts["errors"]
    green = not lost and not interrupted
    assert (result.outcome is Outcome.PASS, red > 0) == (green, interrupted)
    assert (root[-1].get("skipped") == "1") == (result.outcome is Outcome.KNOWN_RED) == (lost and not interrupted)
    assert (counts["skipped"] > 0) == lost


@pytest.mark.parametrize("kind", WRITERS)
def test_hostile_text_steers_nothing(hostile: RunResult, kind: str) -> None:
    for name, text in WRITERS[kind](hostile, versus(hostile, hostile, HOSTILE[0])).items():
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]", text), name
        if name.endswith((".xml", ".svg")):
            Xml.fromstring(text)
        if name.endswith(".md"):
            assert "<script" not in text
            assert "<img" not in text
            assert not re.search(r"(?<!\\)\[click\]\(", text)


KNOWN_RED = run_result({"a/one": sample_checks(), "a/weak": sample_checks(0)}, {"a/weak": "fail"})


@pytest.mark.parametrize("kind", ["md", "html", "csv", "junit", "brief", "terminal"])
def test_no_report_of_a_known_red_calls_it_a_pass(kind: str) -> None:
    """Expect each format to say KNOWN RED, and how many students may not ship or which one."""
    if kind in ("brief", "terminal"):
        text = brief(KNOWN_RED) if kind == "brief" else f"{terminal(KNOWN_RED)}\n{last_line(KNOWN_RED)}"
    else:
        text = next(iter(WRITERS[kind](KNOWN_RED, None).values()))
    assert "KNOWN RED" in text
    assert ("a/weak,fail,fail,KNOWN RED,no" if kind == "csv" else "1 may not (1 known red)") in text
    assert not re.search(r"(gate: |<h1>|<title>Release gate: )PASS", text)
    assert not re.search(r'<header class="pass|FAIL, expected', text)


def test_a_known_red_exits_with_0_and_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Expect `report` and `merge` to exit as the run did, and never to say that the gate passed."""
    (tmp_path / "results.json").write_text(KNOWN_RED.to_json())
    assert main(["report", str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out.startswith("# Release gate: KNOWN RED")
    assert main(["merge", str(tmp_path / "results.json"), "--out", str(tmp_path / "merged.json")]) == 0
    assert "gate: KNOWN RED, 1 of 2 students may not ship" in capsys.readouterr().out


def test_a_known_red_is_a_warning_on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (line,) = workflow_commands(KNOWN_RED)
    assert line.startswith("::warning title=release gate::a/weak: known red, may not ship")


def test_a_threshold_looser_than_the_default_is_annotated(two: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower a threshold of one family, and give another no table of thresholds."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    usual = workflow_commands(replace(two, gate={"alpha": {"gate": GateSettings().model_dump()}, "beta": {"gate": 3}}))
    lowered = workflow_commands(replace(two, gate={"alpha": {"gate": GateSettings(dsr=0.5).model_dump()}}))
    assert [line for line in lowered if line not in usual] == [
        "::warning title=release gate::Looser than the default. alpha: dsr 0.500, not 0.800."
    ]


def test_a_summary_is_appended_where_github_asks_for_one(
    two: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert not write_summary(two)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "summary").write_text("before\n")
    assert write_summary(two)
    text = (tmp_path / "summary").read_text()
    assert text == "before\n" + brief(two)
    assert "| alpha/fails" in text


def test_reasons_become_annotations_and_none_forges_another(
    hostile: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert workflow_commands(hostile) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotations = workflow_commands(hostile)
    assert len(annotations) == 10
    assert all(line.startswith("::") and "\n" not in line and "\r" not in line for line in annotations)
    assert all(line.isprintable() for line in annotations)
    assert "a b ::error::forged%250A" in annotations[7]
