"""Several runs as one: students that were gated on several machines, decided together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from safety_harness.errors import DataError
from safety_harness.gate.decide import correct_for_students, decide_run, decide_student, required
from safety_harness.gate.incidents import Incident
from safety_harness.gate.results import Outcome, Question, RunResult, StudentResult, asked_in_search


def merge(runs: Mapping[str, RunResult], anew: Collection[str] = (), *, keep_first: bool = False) -> RunResult:
    """One result of *runs*, by their names, as if all of their students had been gated in one.

    The correction over the students is made anew, over all of them. A student may stand in two runs where the earlier
    one was inconclusive, or where it is named in *anew* (it has other weights since, or is searched otherwise): the
    later counts. With *keep_first* it may be decided twice in any case (on another machine, say): the first counts.
    The result says so either way, also of merges before this one. Nothing is measured until it passes.

    Raises:
        DataError: a student was decided twice, one that is to be decided *anew* was not or is the same as before, or
            the runs were gated by other rules, another judge or on another subject.
    """
    _require_alike(runs)
    students: dict[str, StudentResult] = {}
    counted_in: dict[str, str] = {}
    measured_again: list[str] = []
    decided_anew: dict[str, list[str]] = {}
    decided_again: dict[str, list[str]] = {}
    for name, run in runs.items():
        for student in run.students:
            earlier = students.get(student.id)
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
    needed = required(first.provenance.get("subject", "patched"))
    now = {
        "decided anew": [said for every in decided_anew.values() for said in every],
        "decided again": [f"{student} ({', then '.join(outcomes)})" for student, outcomes in decided_again.items()],
    }
    checks = correct_for_students({name: student.checks for name, student in students.items()})
    decided = [
        decide_student(name, checks[name], required=needed, expected=student.expected, about=student.about)
        for name, student in students.items()
    ]
    whole = {student.id for student in decided if not set(needed) - student.checks.keys()}
    return decide_run(
        decided,
        incomplete=list(_incomplete(runs, counted_in, whole, anew)),
        gate={family: rules for run in runs.values() for family, rules in run.gate.items()},
        judge=first.judge,
        provenance={
            **_shared(runs),
            "runs": _named(runs),
            "measured again": _history(runs, "measured again", measured_again) or "none",
            **{key: said for key in ("decided anew", "decided again") if (said := _history(runs, key, now[key]))},
        },
        questions=_questions(runs),
    )


def _history(runs: Mapping[str, RunResult], key: str, now: Iterable[str]) -> str:
    """What earlier merges said under *key*, and what this one adds."""
    before = (str(run.provenance.get(key, "none")) for run in runs.values())
    return ", ".join(dict.fromkeys([*(said for said in before if said != "none"), *now]))


def _questions(runs: Mapping[str, RunResult]) -> dict[str, tuple[Question, ...]]:
    """Every set that was asked; with its words, if one of the runs has them."""
    found: dict[str, tuple[Question, ...]] = {}
    for run in runs.values():
        for name, asked in run.questions.items():
            if name not in found or any(one.text for one in asked):
                found[name] = asked
    return found


def _require_another(run: str, earlier: StudentResult, later: StudentResult, anew: Collection[str]) -> None:
    """A student that was decided is named in *anew*, and its weights, or what was searched for, are others now."""
    if later.id not in anew:
        raise DataError(
            f"{run}: {later.id} was decided before ({earlier.outcome.value}). Only what was inconclusive may be "
            "measured again; if it is another student now, or searched otherwise, say so (--anew); if it was gated "
            "once more, keep what was decided first (--keep-first)."
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
    """The weights, what was asked in the search, and how it searched; None where the run did not record it.

    Neither the size of batches, nor the device, nor the held-out questions make another student.
    """
    identity, patch = student.about.get("identity"), student.about.get("patch")
    if not identity or not patch:
        return None
    how = {name: patch.get(name) for name in ("strategy", "prior", "grain", "together", "transfer")}
    return {
        **identity,
        "batch_size": None,
        "device": None,
        "questions": asked_in_search(identity.get("questions", {})),
        **how,
    }


def _require_alike(runs: Mapping[str, RunResult]) -> None:
    names = list(runs)
    rules: dict[str, Any] = {}
    asked: dict[tuple[str, str], str] = {}
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
        for (family, check), questions in _held_out(run):
            if asked.setdefault((family, check), questions) != questions:
                raise DataError(f"{name}: asks {family} other held-out questions ({check}) than a run before it.")


def _held_out(run: RunResult) -> Iterator[tuple[tuple[str, str], str]]:
    """Of each family and check that all of its students share, the sha256 of its questions."""
    for student in run.students:
        for name in ("defense", "over_refusal"):
            if (check := student.checks.get(name)) and check.asked:
                yield (student.id.partition("/")[0], name), check.asked.set


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
    """The facts that are the same of every run."""
    first, *others = (run.provenance for run in runs.values())
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _named(runs: Mapping[str, RunResult]) -> dict[str, str]:
    """What each run was; of one that is a merge itself, what it was made of."""

    def said(run: RunResult) -> str:
        facts: Sequence[tuple[str, Any]] = [(key, run.provenance.get(key)) for key in ("started", "commit", "seconds")]
        return ", ".join(f"{key} {value}" for key, value in facts if value is not None)

    found: dict[str, str] = {}
    for name, run in runs.items():
        merged = run.provenance.get("runs")
        parts = merged if isinstance(merged, dict) else {name: f"{len(run.students)} students, {said(run)}"}
        for part, about in parts.items():
            while part in found:
                part += " (again)"
            found[part] = about
    return found
