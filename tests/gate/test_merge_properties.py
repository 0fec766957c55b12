"""Whatever runs are merged, and however often: one decision over all students, never greener than the evidence."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import DataError
from safety_harness.gate.decide import PATCH_REQUIRED, correct_for_students, decide_run, decide_student
from safety_harness.gate.incidents import Incident
from safety_harness.gate.merge import merge
from safety_harness.gate.numbers import Defense
from safety_harness.gate.records import Judge
from safety_harness.gate.results import Check, Outcome, RunResult, StudentResult, run_from_table
from safety_harness.gate.statistics import SIGNIFICANCE
from safety_harness.registry.settings import GateSettings
from tests.samples import sample_checks

Checks = Mapping[str, Check]
BADNESS = [Outcome.PASS, Outcome.KNOWN_RED, Outcome.INCONCLUSIVE, Outcome.FAIL].index
STUDENTS = ("a/one", "a/two", "a/three", "b/one", "b/two")
OUTCOMES = st.sampled_from([Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE])
# Around the significance level, and around it after a correction over five students.
P_VALUES = st.sampled_from([0.0, 0.001, 0.0099, 0.01, 0.012, 0.02, 0.049, 0.05, 0.5, 1.0]) | st.floats(0, 1)
DEFENSES = st.builds(
    lambda outcome, numbers: Check("defense", outcome, "a defense", numbers),
    OUTCOMES,
    st.fixed_dictionaries({}, optional={"improvement_required": st.booleans(), "p_improvement": P_VALUES}),
)
# Mostly green, so that whole runs may be.
GREEN = st.sampled_from([Outcome.PASS] * 9 + [Outcome.FAIL, Outcome.INCONCLUSIVE])
PROVEN = st.builds(
    lambda p: Check("defense", Outcome.PASS, "a defense", {"improvement_required": True, "p_improvement": p}), P_VALUES
)


RULES = {family: {"gate": GateSettings().model_dump(mode="json")} for family in "ab"}
ALL_GREEN = {check.name: check for check in sample_checks()}


@st.composite
def students_checks(draw: st.DrawFn) -> Checks:
    """Draw the checks of one student, of which some may be missing."""
    if draw(st.booleans()):  # else whole green runs would hardly come up
        return ALL_GREEN
    names = PATCH_REQUIRED if draw(st.booleans()) else draw(st.sets(st.sampled_from(PATCH_REQUIRED)))
    return {
        name: draw(PROVEN | DEFENSES) if name == "defense" else Check(name, draw(GREEN), f"a {name}") for name in names
    }


MEASURED = st.dictionaries(st.sampled_from(STUDENTS), students_checks(), max_size=5)


def incidents(ids: Sequence[str]) -> st.SearchStrategy[tuple[Incident, ...]]:
    """Return a strategy for what may disturb a run over the students *ids*."""
    some = st.lists(st.sampled_from(ids), unique=True).map(tuple) if ids else st.just(())
    broken = some.map(lambda names: Incident("broken_test", tuple(f"t[{name}]" for name in names) or ("t",), names))
    others = st.sampled_from([Incident("interrupted"), Incident("report_not_written", cause="no disk")])
    return st.lists(broken | others, max_size=2).map(tuple)


def decided(measured: Mapping[str, Checks], incomplete: Sequence[Incident] = ()) -> RunResult:
    """Return the run that measured the checks of some students, decided as the plugin does."""
    corrected = correct_for_students(measured)
    students = [decide_student(name, corrected[name], required=PATCH_REQUIRED) for name in measured]
    return decide_run(students, incomplete=incomplete, gate=RULES, judge=Judge(), provenance={})


@st.composite
def disjoint_runs(draw: st.DrawFn) -> dict[str, RunResult]:
    """Draw one to three runs over other students each."""
    measured = draw(MEASURED)
    parts: list[dict[str, Checks]] = [{} for _ in range(draw(st.integers(1, 3)))]
    for name, checks in measured.items():
        draw(st.sampled_from(parts))[name] = checks
    return {str(at): decided(part, draw(incidents([*part]))) for at, part in enumerate(parts)}


def decision(run: RunResult) -> tuple[Any, ...]:
    """Return what a run says of its students and of itself, whatever their order."""
    students = sorted((student.id, student.outcome, student.reasons) for student in run.students)
    return run.outcome, students, sorted(run.reasons)


# --- Holm's correction over students ---------------------------------------------------------------------------------


def outcomes(measured: Mapping[str, Check]) -> dict[str, Check]:
    """Return the defense of each student after the correction."""
    corrected = correct_for_students({name: {"defense": check} for name, check in measured.items()})
    return {name: checks["defense"] for name, checks in corrected.items()}


FEW = st.dictionaries(st.sampled_from(STUDENTS), DEFENSES)


@given(measured=FEW)
def test_the_correction_is_never_greener(measured: Mapping[str, Check]) -> None:
    """Expect that it takes away only, and never gives."""
    for name, check in outcomes(measured).items():
        assert BADNESS(check.outcome) >= BADNESS(measured[name].outcome)
        assert check.raw_outcome in (None, measured[name].outcome)


@given(measured=FEW)
def test_the_correction_never_lowers_a_p_value(measured: Mapping[str, Check]) -> None:
    """Expect the p-value of each test, or more, and a pass only below the level."""
    for check in outcomes(measured).values():
        numbers = check.numbers
        assert isinstance(numbers, Defense)
        if numbers.p_adjusted is not None:
            assert numbers.p_improvement is not None
            assert numbers.p_improvement <= numbers.p_adjusted <= 1
        if check.outcome is Outcome.PASS:
            proven = numbers.p_adjusted is not None and numbers.p_adjusted < SIGNIFICANCE
            assert numbers.improvement_required is False or proven


@given(measured=FEW)
def test_the_correction_is_made_once(measured: Mapping[str, Check]) -> None:
    """Expect the same of what is corrected already."""
    once = outcomes(measured)
    assert outcomes(once) == once


@given(measured=FEW, order=st.permutations(STUDENTS))
def test_the_correction_knows_no_order(measured: Mapping[str, Check], order: Sequence[str]) -> None:
    """Expect the same for the students in any order."""
    assert outcomes({name: measured[name] for name in order if name in measured}) == outcomes(measured)


@given(measured=FEW, some=st.sets(st.sampled_from(STUDENTS)))
def test_more_students_are_never_greener(measured: Mapping[str, Check], some: set[str]) -> None:
    """Expect that a student which passes among all passes among fewer."""
    among_all = outcomes(measured)
    for name, check in outcomes({name: check for name, check in measured.items() if name in some}).items():
        assert BADNESS(check.outcome) <= BADNESS(among_all[name].outcome)


@given(measured=FEW, some=st.sets(st.sampled_from(STUDENTS)))
def test_a_correction_over_fewer_students_leaves_no_trace(measured: Mapping[str, Check], some: set[str]) -> None:
    """Expect the correction over all students, whatever was corrected before over some."""
    earlier = outcomes({name: check for name, check in measured.items() if name in some})
    assert outcomes({**measured, **earlier}) == outcomes(measured)


@given(measured=FEW, smaller=P_VALUES)
def test_a_smaller_p_value_is_never_worse(measured: Mapping[str, Check], smaller: float) -> None:
    """Expect that a clearer improvement of one student harms nobody, the student itself included."""
    before = outcomes(measured)
    for name, check in measured.items():
        numbers = check.numbers
        assert isinstance(numbers, Defense)
        if numbers.p_improvement is None or smaller > numbers.p_improvement:
            continue
        clearer = replace(check, numbers=numbers.model_copy(update={"p_improvement": smaller}))
        for other, after in outcomes({**measured, name: clearer}).items():
            assert BADNESS(after.outcome) <= BADNESS(before[other].outcome)


@given(measured=FEW, outcome=OUTCOMES)
def test_students_that_failed_count_as_tested(measured: Mapping[str, Check], outcome: Outcome) -> None:
    """Expect the p-values alone to decide the correction, whatever came out of each student's own gate."""
    changed = {name: replace(check, outcome=outcome) for name, check in measured.items()}
    for name, check in outcomes(measured).items():
        assert check.numbers == outcomes(changed)[name].numbers


@given(measured=MEASURED)
def test_the_correction_touches_the_defense_alone(measured: Mapping[str, Checks]) -> None:
    """Expect every other check as it was measured."""
    for name, checks in correct_for_students(measured).items():
        assert {**checks, "defense": None} == {**measured[name], "defense": None} or "defense" not in checks
        assert checks.keys() == measured[name].keys()


# --- Runs merged -----------------------------------------------------------------------------------------------------


@given(runs=disjoint_runs())
def test_runs_over_other_students_merge_in_any_order(runs: dict[str, RunResult]) -> None:
    """Expect one decision, whichever run comes first."""
    decisions = [decision(merge(dict(order))) for order in itertools.permutations(runs.items())]
    assert all(each == decisions[0] for each in decisions)


@given(runs=disjoint_runs())
def test_a_merge_decides_as_one_run_would(runs: dict[str, RunResult]) -> None:
    """Expect the students' outcomes of a run over all of them."""
    merged = merge(runs)
    together = decided({student.id: student.checks for run in runs.values() for student in run.students})
    assert [(one.id, one.outcome, one.reasons) for one in merged.students] == [
        (one.id, one.outcome, one.reasons) for one in together.students
    ]


@given(runs=disjoint_runs())
def test_a_merge_merged_again_says_the_same(runs: dict[str, RunResult]) -> None:
    """Expect nothing new from merging twice, nor from merging by twos."""
    merged = merge(runs)
    assert decision(merge({"merged": merged})) == decision(merged)
    first, *rest = runs.items()
    if rest:
        by_twos = merge({"first": merge(dict([first])), "rest": merge(dict(rest))})
        assert decision(by_twos) == decision(merged)


@given(runs=disjoint_runs(), keep=st.booleans())
def test_a_run_cannot_be_repeated_until_it_passes(runs: dict[str, RunResult], keep: bool) -> None:
    """Expect an error where a decided student comes twice, or with *keep_first* the first decision."""
    merged = merge(runs)
    twice = {"once": merged, "twice": merged}
    if any(student.outcome is not Outcome.INCONCLUSIVE for student in merged.students) and not keep:
        with pytest.raises(DataError, match="was decided before"):
            merge(twice)
    else:
        again = merge(twice, keep_first=keep)
        assert [(one.id, one.outcome) for one in again.students] == [(one.id, one.outcome) for one in merged.students]
        assert BADNESS(again.outcome) >= BADNESS(merged.outcome)


@st.composite
def two_runs(draw: st.DrawFn) -> tuple[RunResult, RunResult]:
    """Draw two runs that may share students."""
    first, second = draw(MEASURED), draw(MEASURED)
    return decided(first, draw(incidents([*first]))), decided(second, draw(incidents([*second])))


@given(pair=two_runs())
def test_a_green_merge_rests_on_green_evidence(pair: tuple[RunResult, RunResult]) -> None:
    """Expect a pass only of what was measured whole, and of runs whose incidents are all made up for."""
    runs = dict(zip(("first", "second"), pair, strict=True))
    merged = merge(runs, keep_first=True)
    by_run = {name: {student.id: student for student in run.students} for name, run in runs.items()}
    for student in merged.students:
        if student.outcome is Outcome.PASS:
            assert any(_all_green(run[student.id]) for run in by_run.values() if student.id in run)
    if merged.outcome is Outcome.PASS:
        for incident in (*pair[0].incomplete, *pair[1].incomplete):
            assert incident.kind == "interrupted" or (incident.kind == "broken_test" and incident.students)


def _all_green(student: StudentResult) -> bool:
    """Return whether all required checks passed, before any correction."""
    checks = student.checks
    return all(name in checks and Outcome.PASS in (checks[name].outcome, checks[name].raw_outcome)
               for name in PATCH_REQUIRED)  # fmt: skip


@given(pair=two_runs())
def test_a_broken_test_is_excused_only_by_another_run(pair: tuple[RunResult, RunResult]) -> None:
    """Expect every incident of a student that no other run measured."""
    first, second = pair
    merged = merge({"first": first, "second": second}, keep_first=True)
    in_both = {student.id for student in first.students} & {student.id for student in second.students}
    for incident in (*first.incomplete, *second.incomplete):
        if incident.kind != "interrupted" and not incident.concerns_only(in_both):
            assert incident in merged.incomplete


@given(runs=disjoint_runs())
def test_runs_merge_from_disk_as_from_memory(runs: dict[str, RunResult]) -> None:
    """Expect one decision of runs that were written and read in between."""
    read = {name: run_from_table(json.loads(run.to_json())) for name, run in runs.items()}
    assert decision(merge(read)) == decision(merge(runs))
