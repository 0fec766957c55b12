"""Several runs as one: students that were gated on several machines, decided together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from safety_harness.errors import DataError
from safety_harness.gate import (
    ALWAYS_REQUIRED,
    INTERRUPTED,
    PATCH_REQUIRED,
    correct_for_students,
    decide_run,
    decide_student,
)
from safety_harness.results import Outcome, RunResult, StudentResult


def merge(runs: Mapping[str, RunResult], anew: Collection[str] = ()) -> RunResult:
    """One result of *runs*, by their names, as if all of their students had been gated in one.

    The correction over the students is made anew, over all of them. A student may stand in two runs only where the
    earlier one was inconclusive, or where it is named in *anew* (it has other weights since, or is searched otherwise):
    the later counts, and the result says so. Nothing else is measured until it passes.

    Raises:
        DataError: a student was decided twice, one that is to be decided *anew* was not or is the same as before, or
            the runs were gated by other rules, another judge or on another subject.
    """
    _require_alike(runs)
    students: dict[str, StudentResult] = {}
    measured_again: list[str] = []
    decided_anew: dict[str, str] = {}
    for name, run in runs.items():
        for student in run.students:
            earlier = students.get(student.id)
            if earlier is not None and earlier.outcome is Outcome.INCONCLUSIVE:
                measured_again.append(student.id)
            elif earlier is not None:
                _require_another(name, earlier, student, anew)
                decided_anew[student.id] = f"{student.id} ({earlier.outcome.value} before)"
            students[student.id] = student
    if missing := [student for student in anew if student not in decided_anew]:
        raise DataError(f"{missing[0]} was not decided in two of these runs, so there is nothing to decide anew.")
    replaced = {*measured_again, *decided_anew}
    first = next(iter(runs.values()))
    required = PATCH_REQUIRED if first.provenance.get("subject", "patched") == "patched" else ALWAYS_REQUIRED
    checks = correct_for_students({name: student.checks for name, student in students.items()})
    decided = [
        decide_student(name, checks[name], required=required, expected=student.expected, about=student.about)
        for name, student in students.items()
    ]
    whole = {student.id for student in decided if not set(required) - student.checks.keys()}
    return decide_run(
        decided,
        incomplete=[reason for run in runs.values() for reason in _still_missing(run, replaced, whole)],
        gate={family: rules for run in runs.values() for family, rules in run.gate.items()},
        judge=first.judge,
        provenance={
            **_shared(runs),
            "runs": _named(runs),
            "measured again": ", ".join(measured_again) or "none",
            **({"decided anew": ", ".join(decided_anew.values())} if decided_anew else {}),
        },
        questions={name: asked for run in runs.values() for name, asked in run.questions.items()},
    )


def _require_another(run: str, earlier: StudentResult, later: StudentResult, anew: Collection[str]) -> None:
    """A student that was decided is named in *anew*, and its weights, or what was searched for, are others now."""
    if later.id not in anew:
        raise DataError(
            f"{run}: {later.id} was decided before ({earlier.outcome.value}). Only what was inconclusive may be "
            "measured again; if it is another student now, or searched otherwise, say so (--anew)."
        )

    def of(student: StudentResult) -> tuple[object, object]:
        return student.about.get("patch", {}).get("key"), student.about.get("identity")

    if of(earlier) == of(later):
        raise DataError(
            f"{run}: {later.id} has the same weights, questions and search as before ({earlier.outcome.value}), as far "
            "as the runs say, so it may not be decided anew."
        )


def _require_alike(runs: Mapping[str, RunResult]) -> None:
    names = list(runs)
    rules: dict[str, Any] = {}
    for name, run in runs.items():
        first = runs[names[0]]
        for what, own, other in (
            ("judge", run.judge.get("fingerprint"), first.judge.get("fingerprint")),
            ("subject", run.provenance.get("subject"), first.provenance.get("subject")),
        ):
            if own != other:
                raise DataError(f"{name}: has {what} {own}, and {names[0]} {other}. Runs of one kind can be merged.")
        for family, settings in run.gate.items():
            if rules.setdefault(family, settings) != settings:
                raise DataError(
                    f"{name}: searches or gates {family} by other settings than a run before it. Use the same for both."
                )


def _still_missing(run: RunResult, replaced: set[str], whole: set[str]) -> list[str]:
    """Why a run was incomplete beside its students, where that still holds.

    What went wrong with a student that was measured again does not; nor an interrupt, once all of the run's students
    have all of their checks.
    """
    own = decide_run(run.students, incomplete=[], gate={}, judge={}, provenance={}).reasons
    about_run = [reason for reason in run.reasons if reason not in own]
    if {student.id for student in run.students} <= whole:
        about_run = [reason for reason in about_run if reason != INTERRUPTED]
    gone = "|".join(map(re.escape, replaced))
    of_gone = re.compile(rf"\[({gone})\]( and \d+ more of this student)? could not be measured")
    return [reason for reason in about_run if not (replaced and of_gone.search(reason))]


def _shared(runs: Mapping[str, RunResult]) -> dict[str, Any]:
    """The facts that are the same of every run."""
    first, *others = (run.provenance for run in runs.values())
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _named(runs: Mapping[str, RunResult]) -> dict[str, str]:
    def said(run: RunResult) -> str:
        facts: Sequence[tuple[str, Any]] = [(key, run.provenance.get(key)) for key in ("started", "commit", "seconds")]
        return ", ".join(f"{key} {value}" for key, value in facts if value is not None)

    return {name: f"{len(run.students)} students, {said(run)}" for name, run in runs.items()}
