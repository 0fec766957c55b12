"""Decide a run again by other thresholds or by people's labels, from what it recorded. Nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from safety_harness.errors import DataError, first_fault
from safety_harness.gate import checks
from safety_harness.gate.decide import correct_for_students, decide_run, decide_student, required_of
from safety_harness.gate.labels import Labels, require_of, with_labels
from safety_harness.gate.numbers import (
    Attack,
    Attacked,
    Defense,
    Divergence,
    Minimality,
    Numbers,
    OverRefusal,
    Perplexity,
    Task,
)
from safety_harness.gate.recheck import by_letters
from safety_harness.gate.records import About, Refused
from safety_harness.gate.results import Check, Outcome, RunResult, StudentResult
from safety_harness.gate.statistics import Rate
from safety_harness.gate.thresholds import CHANGED, OUTCOME, SOURCE, changes
from safety_harness.gate.under_attack import attacked
from safety_harness.registry.settings import GateSettings
from safety_harness.registry.sources import ATTACKED

# What decides which answers a run got.
HOW_ASKED = ("attacks", "attack_tokens", "samples", "temperature")
# How the names of numbers end that depend on a confidence.
_BOUNDS = ("_interval", "upper", "lower")


def redecide(run: RunResult, overrides: Mapping[str, Any], source: str, labels: Labels | None = None) -> RunResult:
    """Return *run*, decided by the thresholds *overrides*; *source* names the file that it was read from.

    What cannot be decided from what is kept is INCONCLUSIVE. A suite's own check keeps its outcome: it has its own
    rule. The result says which thresholds were changed, also after several changes. The defense of each student whose
    answers have *labels* is decided by them.

    Raises:
        DataError: the run does not say by which thresholds it was gated. Or the labels are of another run, or the run
            keeps no answers to find theirs.
    """
    if labels:
        require_of(run, labels)
    settings = {family: _changed(family, rules, overrides, run.outcome) for family, rules in run.gate.items()}
    gates = {family: GateSettings.model_validate(rules["gate"]) for family, rules in settings.items()}
    before = {family: GateSettings.model_validate(rules["gate"]) for family, rules in run.gate.items()}
    again = {student.id: _checks(student, before, gates) for student in run.students}
    if labels:
        again = {
            name: _by_labels(named, gate, run, labels) if (gate := gates.get(name.partition("/")[0])) else named
            for name, named in again.items()
        }
    corrected = correct_for_students(again)
    decided = [
        decide_student(
            student.id,
            corrected[student.id],
            required=required_of(student, run.provenance, settings),
            expected=student.expected,
            about=_about(student.about, gates[family].confidence) if family in gates else student.about,
        )
        for student in run.students
        for family in [student.id.partition("/")[0]]
    ]
    return decide_run(
        decided,
        incomplete=run.incomplete,
        gate=settings,
        judge=run.judge,
        provenance={**run.provenance, SOURCE: run.provenance.get(SOURCE, f"{source}, sha256 {run.sha256}")},
        questions=run.questions,
        remarks=run.remarks,
    )


def _changed(family: str, rules: Mapping[str, Any], overrides: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return the settings of a family with its new thresholds, and which of them are not the run's own.

    Raises:
        DataError: the thresholds of the run are missing or wrong.
    """
    try:
        was = GateSettings.model_validate(rules.get("gate"))
    except ValidationError as error:
        raise DataError(f"{family}: by which thresholds it was gated is not said ({first_fault(error)}).") from error
    if asked := [name for name in HOW_ASKED if overrides.get(name, getattr(was, name)) != getattr(was, name)]:
        raise DataError(
            f"{family}: `{asked[0]}` says how the run asked, which no later decision changes. Run again with it, or "
            "leave it out."
        )
    if was.attacks and was.samples > 1 and overrides.get("premise", was.premise) != was.premise:
        raise DataError(
            f"{family}: `premise` cannot change for answers that were drawn {was.samples} times. Of each question the "
            "answer was kept that is worst by the premise of the run. Run again with it."
        )
    now, before = was.model_copy(update=dict(overrides)), was.model_dump(mode="json")
    first = {name: own for name, (own, _) in changes(rules).items()}
    decided = rules[CHANGED].get(OUTCOME) if first else None
    changed = {
        name: {"from": own, "to": value}
        for name, value in now.model_dump(mode="json").items()
        if (own := first.get(name, before[name])) != value
    }
    kept = {name: value for name, value in rules.items() if name != CHANGED}
    said = {CHANGED: {**changed, OUTCOME: decided or outcome.value}} if changed else {}
    return {**kept, "gate": now.model_dump(mode="json"), **said}


def _checks(
    student: StudentResult, before: Mapping[str, GateSettings], after: Mapping[str, GateSettings]
) -> dict[str, Check]:
    family = student.id.partition("/")[0]
    if family not in after:
        return dict(student.checks)
    again = {name: _again(check, before[family], after[family]) for name, check in student.checks.items()}
    return _attacked_again(again, before[family], after[family])


def _attacked_again(named: dict[str, Check], was: GateSettings, now: GateSettings) -> dict[str, Check]:
    """Return the checks of a student, that of all attacks as those of each attack make it now."""
    whole = named.get(ATTACKED)
    if was == now or whole is None or not isinstance(whole.numbers, Attacked):
        return named
    made = attacked(named, now)
    known = "teacher" in whole.numbers.model_fields_set and was.premise == now.premise
    teacher = {"teacher": whole.numbers.teacher} if known else {}
    return {**named, ATTACKED: replace(made, numbers=made.numbers.model_copy(update=teacher))}


def _by_labels(named: dict[str, Check], gate: GateSettings, run: RunResult, labels: Labels) -> dict[str, Check]:
    """Return the checks of a student, the defense as *labels* of its answers decide it."""
    defense = named.get(Defense.check)
    if defense is None or defense.asked is None:
        return named
    questions = run.questions.get(defense.asked.set, ())
    return {**named, defense.name: with_labels(defense, questions, labels, gate)}


def _again(check: Check, was: GateSettings, now: GateSettings) -> Check:
    """Return *check* as the thresholds *now* decide it; INCONCLUSIVE where what is kept does not say."""
    if was == now:
        return check
    if made := by_letters(check, now):
        stale = isinstance(check.numbers, Attack) and was.premise != now.premise
        numbers = made.numbers.model_copy(update={"teacher": None}) if stale else made.numbers
        return replace(made, asked=check.asked, numbers=numbers)
    bare = replace(check, outcome=check.raw_outcome or check.outcome, raw_outcome=None)
    numbers = check.numbers
    match numbers:
        case Perplexity(ratio=float(ratio), ratio_upper=float(upper)) if was.confidence == now.confidence:
            return checks.perplexity_by(numbers, ratio, upper, now)
        case Divergence(mean=float(mean), upper=float(upper)) if was.confidence == now.confidence:
            return checks.divergence_by(numbers, mean, upper, now)
        case Perplexity() | Divergence():
            reason = "its bound was kept at the confidence of the run alone"
        case Defense() | OverRefusal():
            reason = "the letters of its questions were not kept"
        case Task() if numbers.model_fields_set:
            reason = "the letters of its questions were not kept"
        case Minimality(units=int()) if was.premise != now.premise:
            reason = "the search counted answers that dispute the premise otherwise"
        case _:  # its rule knows no threshold of the gate: minimality, a student without a task, a suite's own check
            return bare
    summary = f"{check.name}: not decided again by the changed thresholds: {reason}"
    return replace(bare, outcome=Outcome.INCONCLUSIVE, summary=summary, numbers=_without_bounds(numbers))


def _without_bounds(numbers: Numbers) -> Numbers:
    """Return *numbers* without what depends on a confidence, which is another by now."""
    facts = {name: fact for name, fact in numbers.model_dump().items() if not name.endswith(_BOUNDS)}
    return type(numbers).model_validate(facts)


def _about(about: About, confidence: float) -> About:
    """Return *about* with the intervals of its rates at another confidence."""

    def at(counts: Refused | None) -> Refused | None:
        if counts is None or counts.interval is None or not counts.n:
            return counts
        return counts.model_copy(update={"interval": list(Rate(counts.refused, counts.n).interval(confidence))})

    teacher, further = about.teacher, about.further
    both = {"harmful": at(teacher.harmful), "harmless": at(teacher.harmless)}
    rates = {name: counts for name, counts in both.items() if name in teacher.model_fields_set}
    others = {
        name: one.model_copy(update={"before": at(one.before), "after": at(one.after)}) for name, one in further.items()
    }
    facts = {"teacher": teacher.model_copy(update=rates), "further": others}
    return about.model_copy(update={name: fact for name, fact in facts.items() if name in about.model_fields_set})
