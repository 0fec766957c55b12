"""Check that answers which dispute the premise count as the setting says, in each check and in the reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from safety_harness.gate import checks
from safety_harness.gate.asked import Asked, as_counted, letters
from safety_harness.gate.decide import premise_of
from safety_harness.gate.reading import read_results
from safety_harness.gate.recheck import check_fault
from safety_harness.gate.redecide import redecide
from safety_harness.gate.results import Check, Outcome, RunResult
from safety_harness.judging.judge import Verdict
from safety_harness.registry.settings import GateSettings
from safety_harness.report.comparison import versus
from safety_harness.report.html_page import html
from safety_harness.report.remains import remains
from tests.samples import HARMFUL, QUESTIONS, run_result, sample_checks

REFUSED, COMPLIED = GateSettings(), GateSettings(premise="complied")
DISPUTED = [Verdict.PREMISE] * QUESTIONS
ANSWERED = [Verdict.COMPLIED] * QUESTIONS
SIDES = {REFUSED.premise: Verdict.REFUSED, COMPLIED.premise: Verdict.COMPLIED}


def disputing(gate: GateSettings) -> list[Check]:
    """Return the checks of a student that disputes the premise of each harmful question once it is patched."""
    asked = Asked(HARMFUL, letters(ANSWERED), letters(DISPUTED))
    return [replace(checks.defense(ANSWERED, DISPUTED, gate), asked=asked), *sample_checks()[1:]]


def run(gate: GateSettings) -> RunResult:
    """Return the run of such a student."""
    made = run_result({"a/one": disputing(gate)})
    return replace(made, gate={name: {**rules, "gate": gate.model_dump()} for name, rules in made.gate.items()})


@pytest.mark.parametrize("gate", [REFUSED, COMPLIED], ids=lambda gate: gate.premise)
def test_each_check_counts_a_disputed_premise_by_the_setting(gate: GateSettings) -> None:
    as_said = [SIDES[gate.premise]] * QUESTIONS
    for check in (checks.defense, checks.over_refusal):
        assert check(ANSWERED, DISPUTED, gate) == check(ANSWERED, as_said, gate)
        assert check(DISPUTED, ANSWERED, gate) == check(as_said, ANSWERED, gate)
    assert checks.over_refusal_alone(DISPUTED, gate) == checks.over_refusal_alone(as_said, gate)
    for kind in ("harmful", "harmless"):
        lists = [
            checks.must("must.x", ANSWERED, after, gate, kind=kind, at_least="all")  # type: ignore[arg-type]
            for after in (DISPUTED, as_said)
        ]
        assert lists[0] == lists[1]


def test_letters_keep_the_disputed_premise() -> None:
    assert letters([Verdict.REFUSED, Verdict.PREMISE, Verdict.COMPLIED]) == "RDC"
    asked = Asked(HARMFUL, "DC", "RD")
    assert (as_counted(asked, "refused").before, as_counted(asked, "refused").after) == ("RC", "RR")
    assert (as_counted(asked, "complied").before, as_counted(asked, "complied").after) == ("CC", "RC")


@pytest.mark.parametrize(("gate", "outcome"), [(REFUSED, Outcome.PASS), (COMPLIED, Outcome.FAIL)])
def test_a_run_is_checked_again_as_it_counted(gate: GateSettings, outcome: Outcome, tmp_path: Path) -> None:
    check = disputing(gate)[0]
    assert check.outcome is outcome
    assert not check_fault(check, gate)
    assert check_fault(check, COMPLIED if gate is REFUSED else REFUSED)
    (tmp_path / "results.json").write_text(run(gate).to_json())
    assert read_results(tmp_path / "results.json").students == run(gate).students


def test_a_run_is_decided_again_by_the_other_setting() -> None:
    again = redecide(run(REFUSED), {"premise": "complied"}, "results.json").students[0]
    assert again.checks["defense"].outcome is Outcome.FAIL
    # The search refused otherwise, so what it needed is not what this gate counts.
    assert again.checks["minimality"].outcome is Outcome.INCONCLUSIVE


def test_a_file_from_before_the_setting_counts_as_by_default(tmp_path: Path) -> None:
    result = run_result({"a/one": sample_checks()})
    for rules in result.gate.values():
        del rules["gate"]["premise"]
    (tmp_path / "results.json").write_text(result.to_json())
    old = read_results(tmp_path / "results.json")
    assert old.outcome is Outcome.PASS
    assert premise_of("a/one", old.gate) == "refused"


@pytest.mark.parametrize(("gate", "wrong"), [(REFUSED, 0), (COMPLIED, QUESTIONS)])
def test_reports_count_as_the_gate_and_name_the_verdict(gate: GateSettings, wrong: int) -> None:
    result = run(gate)
    defense = next(one for one in remains(result) if one.kind.check == "defense")
    assert len(defense.questions) == wrong
    assert all(set(one.students) == {"disputes the premise"} for one in defense.questions)
    assert "disputes the premise" in html(result, None)
    (change,) = [one for one in versus(result, run(REFUSED), "before").changes if one.check == "defense"]
    assert (change.before, change.after) == (QUESTIONS - wrong, QUESTIONS - wrong)
