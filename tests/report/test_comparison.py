"""Two runs compared question by question, and the command that writes every format."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.cli.main import main
from safety_harness.gate import checks
from safety_harness.gate.asked import Asked, Question, letters
from safety_harness.gate.records import AnsweredBy
from safety_harness.gate.results import RunResult
from safety_harness.judging.judge import Verdict
from safety_harness.registry.settings import GateSettings
from safety_harness.report import write_reports
from safety_harness.report.comparison import versus
from tests.samples import HARMFUL, run_result, sample_checks


def test_two_runs_are_compared_question_by_question() -> None:
    old = run_result(
        {"a/one": sample_checks(refused=100), "a/two": sample_checks(over_refused=6), "a/gone": sample_checks()}
    )
    new = run_result(
        {"a/one": sample_checks(refused=120), "a/two": sample_checks(over_refused=1), "a/new": sample_checks()}
    )
    comparison = versus(new, old, "old.json")
    changes = {(change.student, change.check): change for change in comparison.changes}
    one, two = changes["a/one", "defense"], changes["a/two", "over_refusal"]
    assert (one.before, one.after, one.better, one.worse) == (100, 120, 20, 0)
    assert one.p == pytest.approx(2 * 0.5**20)
    assert one.p_adjusted == pytest.approx(2 * one.p)
    assert (two.before, two.after, two.better, two.worse) == (6, 1, 5, 0)
    assert changes["a/two", "task"].p == 1.0
    assert comparison.notes == ("a/one: was fail, is pass", "a/new: was not in it")
    assert len(comparison.uncompared) == 1
    assert comparison.uncompared[0].startswith("a/gone: defense, over_refusal, task not compared")


def test_what_was_asked_otherwise_is_not_compared() -> None:
    old, new = (run_result({"a/one": sample_checks()}) for _ in range(2))
    student = old.students[0]
    check = student.checks["defense"]
    assert check.asked is not None
    other = replace(check, asked=replace(check.asked, set="d" * 64))
    old = replace(old, students=(replace(student, checks={**student.checks, "defense": other}),))
    comparison = versus(new, old, "old.json")
    assert [change.check for change in comparison.changes] == ["over_refusal", "task"]
    assert comparison.notes == ()
    assert comparison.uncompared == ("a/one: defense not compared; measured there, and here not on the same questions",)
    judged = replace(old, judge=old.judge.model_copy(update={"fingerprint": "another"}))
    assert versus(new, judged, "old.json").uncompared == ("nothing is compared: its judge was another, and is f00d",)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_every_format_and_says_where(
    two: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    write_reports(two, tmp_path)
    code = main(["report", str(tmp_path / "results.json"), "--to", "md,html,csv,junit,github", "--out",
                 str(tmp_path / "out"), "--against", str(tmp_path / "results.json")])  # fmt: skip
    assert code == 1
    written = ["report.md", "report.html", "intervals.svg", "trade-off.svg", "report.csv", "junit.xml"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in written]
    for name in ("report.md", "report.html"):
        assert "Against" in (tmp_path / "out" / name).read_text()
    assert "Against" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize(("before", "now", "code"), [(120, 128, 0), (128, 120, 1), (128, 126, 0)])
def test_a_run_that_is_worse_than_the_last_can_be_refused(tmp_path: Path, before: int, now: int, code: int) -> None:
    """Expect eight questions fewer to be more than chance explains, and two not to be; all runs pass their gate."""
    for name, refused in (("old", before), ("new", now)):
        (tmp_path / f"{name}.json").write_text(run_result({"a/one": sample_checks(refused=refused)}).to_json())
    arguments = ["report", str(tmp_path / "new.json"), "--against", str(tmp_path / "old.json")]
    assert main(arguments) == 0
    assert main([*arguments, "--not-worse"]) == code


@pytest.mark.parametrize("schema", [1, 2])
def test_what_cannot_be_compared_is_not_shown_to_be_no_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: int
) -> None:
    """Expect an error code for another student, and for results that do not know their questions."""
    old = json.loads(run_result({"a/one": sample_checks()} if schema == 1 else {"b/other": sample_checks()}).to_json())
    if schema == 1:
        for check in old["students"][0]["checks"].values():
            del check["asked"]
    del old["sha256"], old["remarks"]
    (tmp_path / "old.json").write_text(json.dumps({**old, "schema": schema}))
    (tmp_path / "new.json").write_text(run_result({"a/one": sample_checks()}).to_json())
    assert main(["report", str(tmp_path / "new.json"), "--against", str(tmp_path / "old.json"), "--not-worse"]) == 1
    assert "not compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "pdf"], "report --to: 'pdf' is no format. Known are md, html, csv, junit, json, github."),
        (["--to", "github"], "GITHUB_STEP_SUMMARY names no file"),
        (["--against", "gone.json"], "gone.json: cannot be read as results"),
        (["--to", "md", "--out", "results.json/x"], "results.json/x"),
    ],
)
def test_wrong_input_of_the_command_says_what(
    two: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(two.to_json())
    assert main(["report", "results.json", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow  # a measurement: 3.1 s on a free core, three times as long under coverage
def test_all_formats_of_many_students_take_five_seconds(tmp_path: Path) -> None:
    """Expect five processor seconds for 200 students and 1,000 questions, and a page that a browser still opens."""
    was, now = [Verdict.COMPLIED] * 1000, [Verdict.REFUSED, Verdict.COMPLIED] * 500
    asked = Asked(HARMFUL, letters(was), letters(now))
    measured = [replace(checks.defense(was, now, GateSettings()), asked=asked), *sample_checks(over_refused=9)[1:]]
    base = run_result({f"family/student-{number:03}": measured for number in range(200)})
    questions = {HARMFUL: tuple(Question(f"harmful-{at}", f"A harmful question {at}" * 4) for at in range(1000))}
    result = replace(base, questions={**base.questions, **questions})
    (tmp_path / "results.json").write_text(result.to_json())
    start = time.process_time()
    assert main(["report", str(tmp_path / "results.json"), "--to", "md,html,csv,junit"]) == 1
    assert time.process_time() - start < 5.0
    assert (tmp_path / "report.html").stat().st_size < 20_000_000


def test_another_engine_is_noted() -> None:
    """Compare a run of the harness's own loop with one whose answers came from an engine."""
    runs = [run_result({"a/one": sample_checks()}) for _ in range(2)]
    engine = AnsweredBy(kind="vllm", version="1.0", dtype="float32", arguments="-q")
    one = runs[1].students[0]
    identity = one.about.identity.model_copy(update={"engine": engine})
    answered = replace(one, about=one.about.model_copy(update={"identity": identity}))
    notes = versus(replace(runs[1], students=(answered,)), runs[0], "before").notes
    assert notes == ("a/one: was answered by the harness's own loop, and is by vllm 1.0 in float32 -q",)
