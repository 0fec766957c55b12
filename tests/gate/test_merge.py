"""Several runs as one: decided anew over all students, and nothing measured until it passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_harness.cli.main import main
from safety_harness.errors import DataError
from safety_harness.gate import checks
from safety_harness.gate.asked import VERDICTS, Asked
from safety_harness.gate.decide import decide_run, decide_student, required
from safety_harness.gate.incidents import Incident
from safety_harness.gate.merge import merge
from safety_harness.gate.numbers import Defense
from safety_harness.gate.plain import plain
from safety_harness.gate.reading import read_results
from safety_harness.gate.recheck import contradiction
from safety_harness.gate.records import About
from safety_harness.gate.results import Check, Outcome, RunResult
from safety_harness.registry.settings import GateSettings
from tests.samples import ASKED, HARMFUL, about, as_it_is, defense, run_result, sample_checks, whole_patch

Named = Mapping[str, Sequence[Check]]
INTERRUPTED = Incident("interrupted")


def with_incidents(result: RunResult, *incidents: Incident) -> RunResult:
    """Return *result*, decided again with *incidents*."""
    settled = {name: getattr(result, name) for name in ("gate", "judge", "provenance", "questions")}
    return decide_run(result.students, incomplete=incidents, **settled)


def broken(*students: str, cause: str = "no memory") -> Incident:
    """Return the incident of a test that broke for each of *students*."""
    return Incident("broken_test", tuple(f"suites/test_x.py::test_y[{name}]" for name in students), students, cause)


def test_runs_over_other_students_are_one_run() -> None:
    one, two = run_result({"a/one": sample_checks()}), run_result({"a/two": sample_checks(9)}, {"a/two": "fail"})
    merged = merge({"one.json": one, "two.json": two})
    together = run_result({"a/one": sample_checks(), "a/two": sample_checks(9)}, {"a/two": "fail"})
    assert [student.id for student in merged.students] == ["a/one", "a/two"]
    assert merged.outcome is together.outcome is Outcome.KNOWN_RED
    assert merged.questions == ASKED
    assert set(merged.provenance["runs"]) == {"one.json", "two.json"}
    assert merged.provenance["commit"] == "abc123"


def test_the_correction_is_made_over_all_students() -> None:
    """Expect six gains, a chance of 0.016, to be enough in a run of one student, and not among four."""
    few = {f"a/{number}": [defense(0, 6, dsr=0.01), *sample_checks()[1:]] for number in range(4)}
    alone = [run_result({name: merged}) for name, merged in few.items()]
    assert all(run.outcome is Outcome.PASS for run in alone)
    merged = merge({str(number): run for number, run in enumerate(alone)})
    adjusted = [student.numbers(Defense).p_adjusted for student in merged.students]
    assert adjusted == [pytest.approx(4 * 0.5**6)] * 4
    assert merged.outcome is Outcome.FAIL
    assert "no improvement after Holm" in merged.reasons[0]


def test_what_one_correction_took_away_the_next_may_give_back() -> None:
    """Expect a chance of 0.016 to be too much next to three of 0.5, and little enough once these are decided."""
    few = [defense(0, 6, dsr=0.01), *sample_checks()[1:]]
    undecided = [replace(defense(0, 1, dsr=0.01), outcome=Outcome.INCONCLUSIVE), *sample_checks()[1:]]
    others = ("a/x", "a/y", "a/z")
    first = merge({"first": run_result({"a/one": few, **dict.fromkeys(others, undecided)})})
    assert "no improvement after Holm" in first.students[0].reasons[0]
    merged = merge({"first": first, "second": run_result(dict.fromkeys(others, sample_checks()))})
    assert merged.students[0].outcome is Outcome.PASS
    defended = merged.students[0].checks["defense"]
    assert (defended.summary, merged.students[0].numbers(Defense).p_adjusted) == (few[0].summary, pytest.approx(0.5**6))


def test_an_inconclusive_student_may_be_measured_again() -> None:
    """Expect the later result, and the student in the history of the merge."""
    first = with_incidents(
        run_result({"a/one": sample_checks(), "a/two": sample_checks()[:3]}),
        broken("a/two"), broken("a/two", cause="no disk"), INTERRUPTED,
    )  # fmt: skip
    merged = merge({"first": first, "second": run_result({"a/two": sample_checks()})})
    assert (merged.outcome, merged.reasons) == (Outcome.PASS, ())
    assert merged.provenance["measured again"] == "a/two"


@pytest.mark.parametrize(
    ("first", "incident"),
    [
        ({"a/one": sample_checks(), "a/two": sample_checks()[:3], "a/three": sample_checks()[:3]}, INTERRUPTED),
        (
            {"a/one": sample_checks(), "a/two": sample_checks()[:3]},
            broken("a/one"),
        ),
    ],
)
def test_what_is_still_missing_is_still_said(first: Named, incident: Incident) -> None:
    merged = merge({"1": with_incidents(run_result(first), incident), "2": run_result({"a/two": sample_checks()})})
    assert merged.outcome is Outcome.INCONCLUSIVE
    assert merged.reasons[-1] == incident.sentence


@pytest.mark.parametrize("refused", [128, 9])
def test_nothing_is_measured_until_it_passes(refused: int) -> None:
    one, two = run_result({"a/one": sample_checks(refused)}), run_result({"a/one": sample_checks()})
    with pytest.raises(DataError, match=r"2: a/one was decided before .*Only what was inconclusive"):
        merge({"1": one, "2": two})


def test_another_search_may_decide_a_student_anew() -> None:
    """Expect the later decision, and the earlier one in the history of the merge."""
    one = searched_by("replace", run_result({"a/one": sample_checks(9), "a/two": sample_checks()}))
    two = searched_by("add", run_result({"a/one": sample_checks()}))
    merged = merge({"1": one, "2": two}, anew=["a/one"])
    assert [(student.id, student.outcome) for student in merged.students] == [
        ("a/one", Outcome.PASS),
        ("a/two", Outcome.PASS),
    ]
    assert (merged.outcome, merged.reasons) == (Outcome.PASS, ())
    assert merged.provenance["decided anew"] == "a/one (fail before)"
    assert merged.provenance["measured again"] == "none"
    with pytest.raises(DataError, match=r"a/two was not decided in two"):
        merge({"1": one, "2": two}, anew=["a/one", "a/two"])


def searched_by(transfer: str, run: RunResult, **identity: Any) -> RunResult:
    """Return *run* with patches that a search by *transfer* merged, for students of this *identity*."""
    questions = {"harmful.search": "q", "harmful.report": HARMFUL}
    facts = about(
        patch=plain(whole_patch(key=transfer, transfer=transfer)),
        identity={"student": "s", "questions": questions, **identity},
    )
    return replace(run, students=tuple(replace(one, about=facts) for one in run.students))


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"batch_size": 8},
        {"device": "cuda"},
        {"layout": [["NVIDIA H100", 291]]},
        {"attacks": {"wild": "softer words"}},
        {"questions": {"harmful.search": "q", "harmful.report": "another"}},
    ],
)
def test_the_same_student_and_search_are_not_decided_anew(identity: dict[str, Any]) -> None:
    one, two = run_result({"a/one": sample_checks(9)}), run_result({"a/one": sample_checks()})
    runs = {"1": searched_by("add", one), "2": searched_by("add", two, **identity)}
    with pytest.raises(DataError, match=r"2: a/one has the same weights, .* before \(fail\)"):
        merge(runs, anew=["a/one"])


@pytest.mark.parametrize("silent", [0, 1])
def test_a_run_without_its_search_decides_nothing_anew(silent: int) -> None:
    """Expect an error where either run did not record what was searched for."""
    runs = [searched_by("add", run_result({"a/one": merged})) for merged in (sample_checks(9), sample_checks())]
    runs[silent] = replace(runs[silent], students=tuple(replace(one, about=About()) for one in runs[silent].students))
    with pytest.raises(DataError, match="did not record what was searched for"):
        merge({"1": runs[0], "2": runs[1]}, anew=["a/one"])


def test_what_contradicted_itself_may_be_measured_again() -> None:
    """Expect no incident of a student that another run measured whole."""
    contradicted = Incident("other", students=("a/one",), cause="a/one: what was measured contradicts itself")
    first = with_incidents(run_result({"a/one": []}), contradicted)
    merged = merge({"1": first, "2": run_result({"a/one": sample_checks()})})
    assert (merged.outcome, merged.incomplete) == (Outcome.PASS, ())


def test_keep_first_keeps_the_first_decision() -> None:
    """Expect the later outcomes in the history, and no incident of a run that does not count."""
    incident = broken("a/one")
    one = run_result({"a/one": sample_checks(9), "a/two": sample_checks(), "a/three": sample_checks()[:3]})
    two = run_result({"a/one": sample_checks(), "a/two": sample_checks()[:3], "a/three": sample_checks()})
    merged = merge(
        {"1": one, "2": with_incidents(two, incident), "3": run_result({"a/one": sample_checks()})}, keep_first=True
    )
    outcomes = {student.id: student.outcome for student in merged.students}
    assert outcomes == {"a/one": Outcome.FAIL, "a/two": Outcome.PASS, "a/three": Outcome.PASS}
    assert merged.provenance["decided again"] == "a/one (fail, then pass, then pass)"
    assert merged.provenance["measured again"] == "a/three"
    assert incident not in merged.incomplete


def test_what_broke_in_the_run_that_counts_is_said() -> None:
    incident = broken("a/one")
    first, second = (
        run_result({"a/one": sample_checks()[:3]}),
        with_incidents(run_result({"a/one": sample_checks()}), incident),
    )
    merged = merge({"1": with_incidents(first, incident), "2": second})
    assert (merged.outcome, merged.reasons) == (Outcome.INCONCLUSIVE, (incident.sentence,))


def test_a_cause_is_gone_once_all_its_students_are_measured() -> None:
    """Expect one cause for two students to stay until both are measured in other runs."""
    incident = broken("a/one", "a/two")
    first = with_incidents(
        run_result({"a/one": sample_checks()[:3], "a/two": sample_checks()[:3], "a/three": sample_checks()}), incident
    )
    one, two = run_result({"a/one": sample_checks()}), run_result({"a/two": sample_checks()})
    assert merge({"1": first, "2": one}).reasons[-1] == incident.sentence
    merged = merge({"1": first, "2": one, "3": two})
    assert (merged.outcome, merged.reasons) == (Outcome.PASS, ())


def test_a_broken_test_of_a_decided_student_may_be_made_up_for() -> None:
    """Expect it to be gone once another undisturbed run decides the student alike."""
    incident = broken("a/one")
    first, again = (
        with_incidents(run_result({"a/one": sample_checks()}), incident),
        run_result({"a/one": sample_checks(127)}),
    )
    merged = merge({"1": first, "2": again}, keep_first=True)
    assert (merged.outcome, merged.reasons) == (Outcome.PASS, ())
    for disturbed in (incident, INTERRUPTED):  # the other run did not get through either
        merged = merge({"1": first, "2": with_incidents(again, disturbed)}, keep_first=True)
        assert (merged.outcome, merged.reasons[0]) == (Outcome.INCONCLUSIVE, incident.sentence)


@pytest.mark.parametrize(("was", "now"), [(128, 9), (9, 128)])
def test_a_broken_test_stays_where_the_other_run_differs(was: int, now: int) -> None:
    """Expect that a run with another outcome excuses nothing."""
    incident = broken("a/one")
    first, whole = (
        with_incidents(run_result({"a/one": sample_checks(was)}), incident),
        run_result({"a/one": sample_checks(now)}),
    )
    merged = merge({"1": first, "2": whole}, keep_first=True)
    assert merged.outcome is not Outcome.PASS
    assert incident in merged.incomplete


def test_a_broken_test_of_a_student_decided_anew_stays() -> None:
    """Expect that the run before, of another student, excuses nothing."""
    incident = broken("a/one")
    before = searched_by("replace", run_result({"a/one": sample_checks()}))
    now = searched_by("add", with_incidents(run_result({"a/one": sample_checks()}), incident))
    merged = merge({"1": before, "2": now}, anew=["a/one"])
    assert (merged.outcome, merged.reasons) == (Outcome.INCONCLUSIVE, (incident.sentence,))


def test_what_an_earlier_merge_said_is_said_by_every_later_one() -> None:
    one = searched_by(
        "replace", run_result({"a/one": sample_checks(9), "a/two": sample_checks()[:3], "a/three": sample_checks(9)})
    )
    two = searched_by("add", run_result({"a/one": sample_checks(), "a/two": sample_checks()}))
    again = merge(
        {"1": merge({"1": one, "2": two}, anew=["a/one"]), "3": run_result({"a/three": sample_checks()})},
        keep_first=True,
    )
    public = merge({"public": again})
    last = merge(
        {"public": public, "1": searched_by("replace", run_result({"a/one": sample_checks(8)}))}, anew=["a/one"]
    )
    for merged in (again, public, last):
        assert merged.provenance["measured again"] == "a/two"
        assert merged.provenance["decided again"] == "a/three (fail, then pass)"
        assert set(merged.provenance["runs"]) >= {"1", "2", "3"}
    assert public.provenance["decided anew"] == "a/one (fail before)"
    assert last.provenance["decided anew"] == "a/one (fail before), a/one (pass before)"
    assert set(last.provenance["runs"]) == {"1", "2", "3", "1 (again)"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_questions_keep_their_words_if_one_of_the_runs_has_them(order: tuple[int, int]) -> None:
    runs = run_result({"a/one": sample_checks()}), run_result({"a/two": sample_checks()}).without_texts()
    assert merge({str(at): runs[at] for at in order}).questions == ASKED


def test_runs_over_other_lists_are_not_one() -> None:
    """Take what a student missed out of a list, and measure it again: the rule of the list is the same."""
    runs = []
    for letters, asked in (("RRU", "d" * 64), ("RR", "e" * 64)):
        found = [VERDICTS[letter] for letter in letters]
        kept = checks.must("must.company", found, found, GateSettings(), kind="harmful", at_least="all")
        runs.append(run_result({"a/one": [*sample_checks(), replace(kept, asked=Asked(asked, letters, letters))]}))
    assert runs[0].outcome is Outcome.INCONCLUSIVE
    with pytest.raises(DataError, match=r"1: asks a other held-out questions \(must\.company\)"):
        merge({str(at): run for at, run in enumerate(runs)})


def test_runs_over_other_held_out_questions_are_not_one() -> None:
    one, two = run_result({"a/one": sample_checks()}), run_result({"a/two": sample_checks()})
    defense_of_two = two.students[0].checks["defense"]
    assert defense_of_two.asked is not None
    others = replace(defense_of_two, asked=replace(defense_of_two.asked, set="others"))
    student = replace(two.students[0], checks={**two.students[0].checks, "defense": others})
    with pytest.raises(DataError, match=r"2: asks a other held-out questions \(defense\)"):
        merge({"1": one, "2": replace(two, students=(student,))})


def test_runs_of_other_rules_judges_or_subjects_are_not_one() -> None:
    one, two = run_result({"a/one": sample_checks()}), run_result({"a/two": sample_checks()})
    rules = {"alpha": {"gate": {**one.gate["alpha"]["gate"], "dsr": 0.5}}}
    for other, message in (
        (replace(two, gate=rules), "gates alpha by other settings"),
        (replace(two, judge=two.judge.model_copy(update={"fingerprint": "other"})), "2: has judge other, and 1 f00d"),
        (replace(two, provenance={**two.provenance, "subject": "student"}), "2: has subject student, and 1 None"),
    ):
        with pytest.raises(DataError, match=message):
            merge({"1": one, "2": other})


def test_the_command_writes_what_report_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(run_result({f"a/{name}": sample_checks()}).to_json())
    out = tmp_path / "new" / "results.json"
    assert main(["merge", str(tmp_path / "one.json"), str(tmp_path / "two.json"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 students, gate: PASS\n"
    assert len(read_results(out).students) == 2
    assert main(["report", str(out)]) == 0
    assert main(["merge", str(out), "--without-texts", "--out", str(tmp_path / "public.json")]) == 0
    public = read_results(tmp_path / "public.json")
    assert [one.checks.keys() for one in public.students] == [one.checks.keys() for one in read_results(out).students]
    assert not [one.text for asked in public.questions.values() for one in asked if one.text]
    assert main(["report", str(tmp_path / "public.json"), "--to", "html,md"]) == 0
    out.write_text(searched_by("replace", read_results(out)).to_json())
    (tmp_path / "two.json").write_text(searched_by("add", run_result({"a/one": sample_checks()})).to_json())
    again = ["merge", str(out), str(tmp_path / "two.json"), "--out", str(out)]
    assert main([*again, "--anew", "a/one"]) == 0
    assert read_results(out).provenance["decided anew"] == "a/one (pass before)"


# --- Of what was gated -----------------------------------------------------------------------------------------------


def gated(subject: str, name: str = "a/one", refused: int = 120, **identity: Any) -> RunResult:
    """Return a run of one student that is gated as it is, or served."""
    checks = [as_it_is(check) for check in sample_checks(refused) if check.asked]
    run = run_result({name: checks})
    facts = About.model_validate({"subject": subject, "identity": {"student": "f00", **identity}})
    (student,) = run.students
    decided = decide_student(name, student.checks, required=required(subject), expected=student.expected, about=facts)
    settled = {name: getattr(run, name) for name in ("gate", "judge", "questions", "incomplete")}
    return decide_run([decided], **settled, provenance={"subject": subject})


def test_runs_of_several_kinds_are_one_run() -> None:
    """Merge a patched student, in a run of an older version, with one that is gated as it is."""
    patched = run_result({"a/two": sample_checks()})
    merged = merge({"1": patched, "2": gated("as it is")})
    assert merged.outcome is Outcome.PASS
    assert [student.about.subject for student in merged.students] == ["patched", "as it is"]
    assert merged.provenance["subject"] == "as it is, patched"
    assert not contradiction(merged)


def test_a_run_of_an_older_version_is_of_patched_students() -> None:
    """Measure a student again that a version without the subject of each student had not finished."""
    whole, before = run_result({"a/one": sample_checks()}), run_result({"a/one": sample_checks()[:2]})
    facts = whole.students[0].about.model_copy(update={"subject": "patched"})
    now = replace(whole, students=(replace(whole.students[0], about=facts),), provenance={"subject": "patched"})
    merged = merge({"1": replace(before, provenance={"subject": "patched"}), "2": now})
    assert (merged.outcome, merged.provenance["measured again"]) == (Outcome.PASS, "a/one")


def test_a_student_is_not_measured_again_as_another() -> None:
    """Expect the patched student, which is inconclusive, not to be replaced by itself without its patch."""
    unproven = run_result({"a/one": sample_checks()[:2]})
    with pytest.raises(DataError, match="2: a/one was gated as it is, and before patched"):
        merge({"1": unproven, "2": gated("as it is")})


def test_other_weights_as_they_are_may_be_decided_anew() -> None:
    first, second = gated("as it is", refused=9), gated("as it is", student="ba2")
    assert first.outcome is Outcome.FAIL
    assert merge({"1": first, "2": second}, anew=["a/one"]).outcome is Outcome.PASS
    with pytest.raises(DataError, match="2: a/one has the same weights"):
        merge({"1": first, "2": gated("as it is")}, anew=["a/one"])


def test_a_student_that_is_expected_may_not_miss() -> None:
    """Expect INCONCLUSIVE without it, a verdict that reads back, and green once a later merge has it."""
    one, two = (run_result({name: sample_checks()}) for name in ("a/one", "a/two"))
    without = merge({"one": one}, expected=["a/one", "a/two"])
    assert without.outcome is Outcome.INCONCLUSIVE
    assert "a/two: no run has it" in without.reasons
    assert contradiction(without) == ""
    assert merge({"before": without, "two": two}, expected=["a/one", "a/two"]).outcome is Outcome.PASS
