"""Merge several runs into one: students that were gated on several machines are decided together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from safety_harness.errors import DataError
from safety_harness.gate.asked import Question
from safety_harness.gate.decide import (
    UNPATCHED,
    correct_for_students,
    decide_run,
    decide_student,
    required_of,
    subject_of,
    subjects,
)
from safety_harness.gate.incidents import Incident
from safety_harness.gate.numbers import Attack
from safety_harness.gate.results import Outcome, RunResult, StudentResult, asked_in_search
from safety_harness.registry.sources import MUST


def merge(
    runs: Mapping[str, RunResult],
    anew: Collection[str] = (),
    *,
    keep_first: bool = False,
    expected: Collection[str] = (),
) -> RunResult:
    """Return one result of *runs*, by their names, as if all of their students had been gated in one.

    Holm's correction is made again, over all students. A student may stand in several runs in three cases:

    - The earlier result was inconclusive: the later result counts.
    - It is named in *anew*, because it has other weights or another search by now: the later result counts.
    - *keep_first*, say for runs on several machines: the first decision counts.

    The result records every such choice, and those of earlier merges. A run cannot be repeated until it passes.
    A student that is *expected* and stands in no run makes the result inconclusive: its machine may have died.

    Raises:
        DataError: a student was decided twice without such a reason, or the runs have other rules, judges or subjects.
    """
    if any(student.about.subject for run in runs.values() for student in run.students):
        runs = {name: _each_with_subject(run) for name, run in runs.items()}
    _require_alike(runs)
    students: dict[str, StudentResult] = {}
    counted_in: dict[str, str] = {}
    measured_again: list[str] = []
    decided_anew: dict[str, list[str]] = {}
    decided_again: dict[str, list[str]] = {}
    for name, run in runs.items():
        for student in run.students:
            earlier = students.get(student.id)
            if earlier is not None and earlier.about.subject != student.about.subject:
                raise DataError(
                    f"{name}: {student.id} was gated {student.about.subject}, and before {earlier.about.subject}. Runs "
                    "of one kind can be merged; give one of them another name."
                )
            if earlier is not None and earlier.outcome is Outcome.INCONCLUSIVE:
                measured_again.append(student.id)
            elif earlier is not None and keep_first and student.id not in anew:
                if student.outcome is not Outcome.INCONCLUSIVE:
                    decided_again.setdefault(student.id, [earlier.outcome.value]).append(student.outcome.value)
                continue
            elif earlier is not None:
                _require_another(name, earlier, student, anew)
                decided_anew.setdefault(student.id, []).append(f"{student.id} ({earlier.outcome.value} before)")
            students[student.id], counted_in[student.id] = student, name
    if missing := [student for student in anew if student not in decided_anew]:
        raise DataError(f"{missing[0]} was not decided in two of these runs, so there is nothing to decide anew.")
    first = next(iter(runs.values()))
    needed = {
        name: required_of(student, first.provenance, runs[counted_in[name]].gate) for name, student in students.items()
    }
    now = {
        "decided anew": [entry for entries in decided_anew.values() for entry in entries],
        "decided again": [f"{student} ({', then '.join(outcomes)})" for student, outcomes in decided_again.items()],
    }
    checks = correct_for_students({name: student.checks for name, student in students.items()})
    decided = [
        decide_student(name, checks[name], required=needed[name], expected=student.expected, about=student.about)
        for name, student in students.items()
    ]
    whole = {student.id for student in decided if not set(needed[student.id]) - student.checks.keys()}
    return decide_run(
        decided,
        incomplete=[
            *_incomplete(runs, counted_in, whole, anew),
            *(
                Incident("other", students=(name,), cause=f"{name}: no run has it")
                for name in expected
                if name not in students
            ),
        ],
        gate={family: rules for run in runs.values() for family, rules in run.gate.items()},
        judge=first.judge,
        provenance={
            **_shared(runs),
            **({"subject": kinds} if (kinds := subjects(decided)) else {}),
            "runs": _named(runs),
            "measured again": _history(runs, "measured again", measured_again) or "none",
            **{key: history for key, entries in now.items() if (history := _history(runs, key, entries))},
        },
        questions=_questions(runs),
        remarks=list(dict.fromkeys(remark for run in runs.values() for remark in run.remarks)),
    )


def _history(runs: Mapping[str, RunResult], key: str, now: Iterable[str]) -> str:
    """Return what earlier merges recorded under *key*, and what this one adds."""
    before = (str(run.provenance.get(key, "none")) for run in runs.values())
    return ", ".join(dict.fromkeys([*(entries for entries in before if entries != "none"), *now]))


def _questions(runs: Mapping[str, RunResult]) -> dict[str, tuple[Question, ...]]:
    """Return every set that was asked, with its words if one of the runs has them."""
    sets: dict[str, tuple[Question, ...]] = {}
    for run in runs.values():
        for name, asked in run.questions.items():
            if name not in sets or any(one.text for one in asked):
                sets[name] = asked
    return sets


def _require_another(run: str, earlier: StudentResult, later: StudentResult, anew: Collection[str]) -> None:
    """Check that a decided student is named in *anew*, and has other weights or another search in the *later* result.

    Raises:
        DataError: it is not named, is the same as before, or a run does not say what was searched for.
    """
    if later.id not in anew:
        raise DataError(
            f"{run}: {later.id} was decided before ({earlier.outcome.value}). Only what was inconclusive may be "
            "measured again; if it is another student now, or searched otherwise, say so (--anew); if it was gated "
            "again, keep what was decided first (--keep-first)."
        )
    before, now = _searched(earlier), _searched(later)
    if before is None or now is None:
        silent = "the run before" if before is None else "this run"
        raise DataError(
            f"{run}: {later.id} was decided before ({earlier.outcome.value}), and {silent} did not record what was "
            "searched for, so that nobody can say whether that is another now. Gate it with test_minimality."
        )
    if before == now:
        raise DataError(
            f"{run}: {later.id} has the same weights, questions and search as before ({earlier.outcome.value}), as far "
            "as the runs say, so it may not be decided anew."
        )


def _searched(student: StudentResult) -> Mapping[str, Any] | None:
    """Return the weights, the questions and the way of a student's search; None where the run did not record them.

    Neither the batch size, nor the devices, nor an engine, nor the held-out questions, nor the attacks of the gate make
    another student.
    """
    identity, patch = student.about.identity, student.about.patch
    if not identity.model_fields_set or not (patch or student.about.subject in UNPATCHED):
        return None
    return {
        **identity.model_dump(exclude={"batch_size", "device", "layout", "engine", "attacks"}),
        "questions": asked_in_search(identity.questions),
        **(patch.model_dump(include={"strategy", "prior", "grain", "together", "transfer"}) if patch else {}),
    }


def _require_alike(runs: Mapping[str, RunResult]) -> None:
    """Check that all runs have one judge, one subject, and for each family one set of rules and questions."""
    names = list(runs)
    rules: dict[str, Any] = {}
    asked: dict[tuple[str, str], str] = {}
    for name, run in runs.items():
        first = runs[names[0]]
        for what, value, expected in (
            ("judge", run.judge.fingerprint, first.judge.fingerprint),
            ("subject", _subject_of_all(run), _subject_of_all(first)),
        ):
            if value != expected:
                raise DataError(
                    f"{name}: has {what} {value}, and {names[0]} {expected}. Runs of one kind can be merged."
                )
        for family, settings in run.gate.items():
            if rules.setdefault(family, settings) != settings:
                raise DataError(
                    f"{name}: searches or gates {family} by other settings than a run before it. Use the same for both."
                )
        for (family, check), questions in _held_out(run):
            if asked.setdefault((family, check), questions) != questions:
                raise DataError(f"{name}: asks {family} other held-out questions ({check}) than a run before it.")


def _subject_of_all(run: RunResult) -> Any:
    """Return what was gated of all students of *run*, as older versions record it; None where each student says it."""
    return None if run.students and all(one.about.subject for one in run.students) else run.provenance.get("subject")


def _each_with_subject(run: RunResult) -> RunResult:
    """Return *run*, each student of which says that it was patched where a run of an older version says it of all."""
    students = tuple(
        replace(one, about=one.about.model_copy(update={"subject": "patched"}))
        if not one.about.subject and subject_of(one, run.provenance) == "patched"
        else one
        for one in run.students
    )
    return replace(run, students=students)


def _held_out(run: RunResult) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the digest of the questions, or of the attack, of each family and check; all its students share them."""
    for student in run.students:
        for name, check in student.checks.items():
            if check.asked and (name in ("defense", "over_refusal") or name.startswith(MUST)):
                yield (student.id.partition("/")[0], name), check.asked.set
            if isinstance(check.numbers, Attack) and check.numbers.fingerprint:
                yield (student.id.partition("/")[0], name), check.numbers.fingerprint


def _incomplete(
    runs: Mapping[str, RunResult], counted_in: Mapping[str, str], whole: set[str], anew: Collection[str]
) -> Iterator[Incident]:
    """Yield the incidents that still hold.

    Tests that broke count no more where all of their students are measured elsewhere: in the run that counts, or in
    another run that nothing disturbed and in which the student came out the same. An interrupt counts no more once all
    of its run's students have all of their checks.
    """
    undisturbed = {name: dict(_undisturbed(run)) for name, run in runs.items()}
    for name, run in runs.items():
        others = [outcomes for other, outcomes in undisturbed.items() if other != name]
        elsewhere = {student for student, counts_in in counted_in.items() if counts_in != name}
        elsewhere |= {
            student.id
            for student in run.students
            if student.id not in anew and any(outcomes.get(student.id) is student.outcome for outcomes in others)
        }
        finished = {student.id for student in run.students} <= whole
        for incident in run.incomplete:
            if not incident.concerns_only(elsewhere) and not (finished and incident.kind == "interrupted"):
                yield incident


def _undisturbed(run: RunResult) -> Iterator[tuple[str, Outcome]]:
    """Yield each student that *run* decided while no incident concerned it, with its outcome."""
    ids = {student.id for student in run.students}
    for student in run.students:
        disturbed = not all(incident.concerns_only(ids - {student.id}) for incident in run.incomplete)
        if student.outcome is not Outcome.INCONCLUSIVE and not disturbed:
            yield student.id, student.outcome


def _shared(runs: Mapping[str, RunResult]) -> dict[str, Any]:
    """Return the facts on which all runs agree."""
    first, *others = (run.provenance for run in runs.values())
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _named(runs: Mapping[str, RunResult]) -> dict[str, str]:
    """Return a description of each run by its name; of a run that is a merge itself, the runs that it was made of."""
    descriptions: dict[str, str] = {}
    for name, run in runs.items():
        facts = [(key, run.provenance.get(key)) for key in ("started", "commit", "seconds")]
        described = [f"{len(run.students)} students", *(f"{key} {fact}" for key, fact in facts if fact is not None)]
        merged = run.provenance.get("runs")
        parts = merged if isinstance(merged, dict) else {name: ", ".join(described)}
        for part, description in parts.items():
            while part in descriptions:
                part += " (again)"
            descriptions[part] = description
    return descriptions
