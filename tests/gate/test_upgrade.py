"""Files of older schemas: their sentences become records once, and nothing else of them changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import DataError
from safety_harness.gate.incidents import Incident
from safety_harness.gate.merge import merge
from safety_harness.gate.reading import read_results
from safety_harness.gate.results import Check, Outcome, RunResult
from safety_harness.report import WRITERS, terminal
from tests.samples import defense, run_result, sample_checks

RECORDED = Path(__file__).parents[2] / "reports" / "smollm2.json"
BROKEN = "suites/test_x.py::test_y[a/one]"


def old_file(file: Path, run: RunResult, *sentences: str, schema: int = 2, **changes: Any) -> Path:
    """Write *run* to *file* as an older version did, with further *sentences* among its reasons."""
    table = {**json.loads(run.to_json()), "schema": schema}
    for later in ("incomplete", "sha256", "remarks"):
        del table[later]
    for student in table["students"]:
        for check in student["checks"].values():
            del check["raw_outcome"]
            if schema == 1:
                del check["asked"]
    file.write_text(json.dumps({**table, "reasons": [*table["reasons"], *sentences], **changes}), encoding="utf-8")
    return file


def test_the_recorded_report_of_schema_2_is_read() -> None:
    """Expect the committed results, and their reasons word for word."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    run = read_results(RECORDED)
    assert recorded["schema"] == 2
    assert (run.outcome, list(run.reasons), run.incomplete) == (recorded["outcome"], recorded["reasons"], ())
    assert [student.id for student in run.students] == [student["id"] for student in recorded["students"]]
    assert merge({"smollm2": run}).reasons == run.reasons


def test_the_recorded_report_looks_as_it_was_recorded() -> None:
    """Expect every line of the committed Markdown in the Markdown that is made today."""
    written = WRITERS["md"](read_results(RECORDED), None)["report.md"]
    assert written == RECORDED.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sentence", "incident"),
    [
        ("the run was interrupted", Incident("interrupted")),
        ("the reports could not be written: no disk", Incident("report_not_written", cause="no disk")),
        (f"{BROKEN} could not be measured: it\nsays: x", Incident("broken_test", (BROKEN,), ("a/one",), "it\nsays: x")),
        (f"{BROKEN} could not be measured", Incident("broken_test", (BROKEN,), ("a/one",))),
        (
            f"{BROKEN} and 3 more of this student could not be measured: no disk",
            Incident("broken_test", (BROKEN,), ("a/one",), "no disk", unnamed=3),
        ),
        (
            f"{BROKEN} and 9 more, of a/one, a/two, could not be measured: x could not be measured: y",
            Incident("broken_test", (BROKEN,), ("a/one", "a/two"), "x could not be measured: y", unnamed=9),
        ),
        ("suites/t.py could not be measured: no disk", Incident("broken_test", ("suites/t.py",), (), "no disk")),
        (
            "t.py and 1 more, of t.py, u.py, could not be measured: no disk",
            Incident("broken_test", ("t.py", "u.py"), (), "no disk"),
        ),
        ("something else went wrong", Incident("other", cause="something else went wrong")),
    ],
)
def test_an_old_sentence_becomes_the_incident(tmp_path: Path, sentence: str, incident: Incident) -> None:
    """Expect the record, and from the record the sentence of the old file."""
    run = run_result({"a/one": sample_checks(), "a/two": []})
    upgraded = read_results(old_file(tmp_path / "old.json", run, sentence))
    assert upgraded.incomplete == (incident,)
    assert upgraded.reasons == (*run.reasons, sentence)
    assert sentence in terminal(upgraded) or "\n" in sentence


def test_broken_tests_of_students_and_of_nobody_stay(tmp_path: Path) -> None:
    """Expect that an old sentence about both is excused by no student's later run, and kept word for word."""
    sentence = f"{BROKEN} and 2 more, of a/one, t.py, could not be measured: no disk"
    first = read_results(old_file(tmp_path / "old.json", run_result({"a/one": []}), sentence))
    merged = merge({"1": first, "2": run_result({"a/one": sample_checks()})})
    assert merged.outcome is Outcome.INCONCLUSIVE
    assert merged.reasons == (sentence,)


def test_an_old_broken_test_is_gone_once_its_student_is_measured(tmp_path: Path) -> None:
    """Expect the merge of an old file to be as green as that of a new one."""
    run = run_result({"a/one": sample_checks(), "a/two": sample_checks()[:3]})
    sentences = (f"{BROKEN.replace('one', 'two')} and 2 more of this student could not be measured: no disk",
                 "the run was interrupted")  # fmt: skip
    old = read_results(old_file(tmp_path / "old.json", run, *sentences))
    merged = merge({"old": old, "new": run_result({"a/two": sample_checks()})})
    assert (merged.outcome, merged.reasons) == (Outcome.PASS, ())


def test_an_old_pass_over_a_stated_failure_is_a_known_red(tmp_path: Path) -> None:
    """Expect no run of an older schema to be called a pass where a student failed as stated; its digest holds."""
    run = run_result({"a/one": sample_checks(), "a/weak": sample_checks(0)}, {"a/weak": "fail"})
    called_pass = replace(run, outcome=Outcome.PASS)
    table = json.loads(called_pass.to_json())
    file = tmp_path / "4.json"
    file.write_text(json.dumps({**table, "schema": 4}))
    for old in (file, old_file(tmp_path / "2.json", called_pass)):
        upgraded = read_results(old)
        assert upgraded.outcome is Outcome.KNOWN_RED
        assert merge({"old": upgraded}).outcome is Outcome.KNOWN_RED
    file.write_text(json.dumps({**json.loads(run.to_json()), "schema": 4}))
    with pytest.raises(DataError, match="says schema 4, and holds what only later ones do"):
        read_results(file)


def test_an_old_correction_can_be_undone(tmp_path: Path) -> None:
    """Expect the outcome before the correction next to the outcome after it, and the sentence as it was."""
    # Seven more refusals of 128: an improvement of one student, and none of eight.
    run = run_result({f"a/{number}": [defense(105, 112), *sample_checks()[1:]] for number in range(8)})
    table = json.loads(run.to_json())
    for student in table["students"]:
        summary = student["checks"]["defense"]["summary"]
        student["checks"]["defense"]["summary"] = f"{summary}; no improvement after Holm"
    file = old_file(tmp_path / "old.json", run, students=table["students"])
    upgraded = read_results(file).students[0].checks["defense"]
    assert (upgraded.outcome, upgraded.raw_outcome, upgraded.summary) == (Outcome.FAIL, Outcome.PASS, summary)
    assert upgraded.sentence == f"{summary}; no improvement after Holm"
    one = replace(read_results(file), students=read_results(file).students[:1])
    assert merge({"one of them": one}).outcome is Outcome.PASS


def test_old_causes_can_be_left_out(tmp_path: Path) -> None:
    """Expect that nothing of a cause is left, whatever the old sentence looked like."""
    sentences = (f"{BROKEN} could not be measured: too long: 'How do\nI'", "'How do I' is unlike")
    public = read_results(old_file(tmp_path / "old.json", run_result({"a/one": []}), *sentences)).without_texts()
    assert "How do" not in public.to_json()
    assert public.reasons[1] == f"{BROKEN} could not be measured"


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    """Expect the numbers of a file that does not know its questions, without the ids of those that flipped."""
    old = run_result({"a/one": sample_checks(refused=90)})
    table = json.loads(old.to_json())["students"]
    table[0]["checks"]["defense"] |= {"numbers": {"n": 128, "flips": ["q1"]}, "asked": None}
    defense = read_results(old_file(tmp_path / "old.json", old, students=table, schema=1)).students[0].checks["defense"]
    assert (defense.summary[:10], defense.asked) == ("DSR 90/128", None)
    assert defense.numbers.model_dump() == {"n": 128}


def test_a_suites_own_numbers_of_an_old_file_are_kept(tmp_path: Path) -> None:
    """Expect no number to be taken for a part of schema 1, and a check without numbers to be read."""
    run = run_result({"a/one": [Check("own", Outcome.PASS, "", {"flips": 3}), Check("bare", Outcome.PASS, "")]})
    table = json.loads(run.to_json())
    del table["students"][0]["checks"]["bare"]["numbers"]
    upgraded = read_results(old_file(tmp_path / "old.json", run, students=table["students"]))
    assert upgraded.students == run.students


@pytest.mark.parametrize("reasons", [{"reasons": [7]}, {}], ids=["numbers", "missing"])
def test_reasons_that_are_no_sentences_are_refused(tmp_path: Path, reasons: dict[str, Any]) -> None:
    """Expect an error with what to do, not a guess that the run was complete."""
    file = old_file(tmp_path / "old.json", run_result({"a/one": sample_checks()}))
    table = json.loads(file.read_text())
    del table["reasons"]
    file.write_text(json.dumps(table | reasons))
    with pytest.raises(DataError, match=r"old\.json: a field is missing or wrong: .* Run the suites again"):
        read_results(file)
