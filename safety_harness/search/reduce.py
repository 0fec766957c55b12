"""Reduce a start to a patch: the one place where delta debugging meets models."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safety_harness import ddmin
from safety_harness.errors import HarnessError, VoidProbe
from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Failure, Oracle
from safety_harness.files import sha256_text
from safety_harness.gate.records import Budgets, Certificate, Patch, SearchFacts
from safety_harness.progress import alone
from safety_harness.search.ahead import probers
from safety_harness.search.candidates import GRAINS
from safety_harness.search.course import Course
from safety_harness.search.start import Shares, Start
from safety_harness.weights.moved import changed
from safety_harness.weights.units import Group, Unit, flat, group_id, grouped


@dataclass(frozen=True)
class _Outcome:
    """What a search came to, and the budgets that it asked for last. ``replayed`` probes were in the journal."""

    budgets: Budgets
    reason: str
    groups: tuple[Group, ...] = ()
    certificate: Mapping[str, Certificate] = field(default_factory=dict)
    minimal: bool = False
    found: bool = True
    replayed: int = 0


def search(
    evaluator: Evaluator,
    key: str,
    journal: Path | None = None,
    oracle: Oracle | None = None,
    first: Sequence[Unit] = (),
    ahead: int = 1,
) -> Patch:
    """Search for the patch of *evaluator*, whatever the cache holds.

    Args:
        key: the key of the patch. A journal of another key is not used.
        journal: answers are kept in a file whose name begins with this one, so that a killed search can go on.
        oracle: the oracle to ask; a new one of *evaluator* if None.
        first: units to start from if they keep the budgets, such as those of an earlier release's patch.
        ahead: processes that answer probes, this one included. The patch does not depend on it.

    Raises:
        HarnessError: the journal cannot be read or written; what it holds is kept.
        VoidProbe: the student, or the student with all of the teacher in it, gives too many unscored answers.
    """
    settings = evaluator.student.search
    start = time.perf_counter()
    oracle = oracle or Oracle(evaluator)
    course = Course(oracle, evaluator.student.id)
    outcome = _outcome(evaluator, oracle, course, key, journal, first, ahead)
    units = flat(outcome.groups)
    components = bool(units and settings.components)
    return Patch(
        key=key,
        student=evaluator.student.id,
        teacher=evaluator.teacher.folder.name,
        found=outcome.found,
        reason=outcome.reason,
        units=tuple(map(group_id, outcome.groups)),
        certificate=outcome.certificate,
        minimal=outcome.minimal,
        parameters=sum(unit.parameters for unit in units),
        changed=changed(units) if components else None,
        numbers=evaluator.transplanter.digest(units) if components else None,
        total_parameters=evaluator.checkpoint.parameters,
        candidates=len(grouped(evaluator.units, settings.together)),
        probes=course.begun + outcome.replayed,
        seconds=time.perf_counter() - start,
        strategy=settings.strategy,
        prior=settings.prior,
        grain=settings.grain,
        together=settings.together,
        transfer=settings.transfer,
        search=SearchFacts(
            questions=len(oracle.harmful),
            refused_before=oracle.refused_before,
            refused_whole=oracle.refused_whole,
            **outcome.budgets.model_dump(),
        ),
        course=tuple(probe.step for probe in course.probes),
    )


def _outcome(
    evaluator: Evaluator,
    oracle: Oracle,
    course: Course,
    key: str,
    journal: Path | None,
    first: Sequence[Unit],
    ahead: int,
) -> _Outcome:
    """Return what a search comes to: no patch needed, none found, or a start that was reduced."""
    budgets = search_budgets(evaluator.student.search, oracle)
    before, whole = oracle.refused_before, oracle.refused_whole
    enough = course.probe((), budgets).accepted
    # A target of 0 says nothing about a student that is no worse than its teacher.
    if whole <= before and not (enough and budgets.target):
        reason = f"all of the teacher gives {whole} refusals, no more than the student's {before}"
        tokens = evaluator.student.family.screen_tokens
        if tokens is not None and (full := oracle.refused_whole_in_full()) > whole:
            reason += f"; it gives {full} where no answer is broken off after {tokens} tokens: raise `screen_tokens`"
        return _Outcome(budgets, reason, found=False)
    if enough:
        counts = f"{before} of {len(oracle.harmful)} refusals, {budgets.target} are needed"
        return _Outcome(budgets, f"the student refuses enough as it is: {counts}", minimal=True)
    with probers(evaluator, oracle, ahead) as course.probers:
        return _found(evaluator, oracle, course, budgets, key, journal, first)


def _found(
    evaluator: Evaluator,
    oracle: Oracle,
    course: Course,
    budgets: Budgets,
    key: str,
    journal: Path | None,
    first: Sequence[Unit],
) -> _Outcome:
    """Return what a search for units comes to: none found, or a start that was reduced."""
    settings = evaluator.student.search
    if first and _still_enough(course, first, budgets):
        # They were all needed once, so none is likelier than another, and the prior's gradients are saved.
        known = {frozenset[Unit](): False, frozenset(first): True}
        since = "from units that moved before"
        return _reduced(evaluator, lambda _: 1.0, Start(tuple(first), budgets, known), course, key, journal, since)
    candidates = GRAINS[settings.grain](evaluator)
    shares = Shares(candidates, course, budgets)
    if start := shares.smallest_accepted():
        return _reduced(evaluator, candidates.weight, start, course, key, journal)
    missed = _why_not(course, oracle, budgets)
    # Within the other budgets, fewer refusals than the settings ask for may be possible. One more than the student has
    # is the least that a patch is good for.
    lowest = budgets.model_copy(update={"target": oracle.refused_before + 1})
    for floors in (budgets.floors, {}) if budgets.floors else ({},):
        lowest = lowest.model_copy(update={"floors": floors})
        if start := shares.most_within(lowest):
            lost = "" if floors == budgets.floors else " and not enough of every kind of harm"
            since = f"with no more than {start.budgets.target} refusals{lost}: {missed}"
            return _reduced(evaluator, candidates.weight, start, course, key, journal, since)
    return _Outcome(lowest, missed, found=False)


def _reduced(
    evaluator: Evaluator,
    weight: Callable[[Group], float],
    start: Start,
    course: Course,
    key: str,
    journal: Path | None,
    since: str = "",
) -> _Outcome:
    """Take everything out of *start* that the oracle does not miss. *since* says how the start was come by."""
    settings = evaluator.student.search
    groups = grouped(start.units, settings.together)
    others = course.probers
    with _explained_journal(), alone("searching"), others.sharing_cores() if others else contextlib.nullcontext():
        reduction = ddmin.minimize(
            groups,
            lambda sets: course.accepts(sets, start.budgets),
            workers=others.at_once if others else 1,
            strategy=settings.strategy,
            weights=[weight(group) for group in groups],
            certificate="explicit",
            max_calls=max(1, settings.max_probes - course.begun),
            on_event=course.on_event,
            assume=_in_groups(start.known, groups),
            journal=_journal_of(groups, start.budgets, journal),
            fingerprint=key,
        )
    if reduction.stopped == "interrupted":
        raise KeyboardInterrupt  # a half-done search must not be taken for a patch, nor cached
    reason = "found" if reduction.stopped is None else f"search stopped early: {reduction.stopped}"
    if since:
        reason += f", {since}"
    return _Outcome(
        start.budgets,
        reason,
        groups=reduction.kept,
        certificate={group_id(group): _certified(reduction.certificate[group]) for group in reduction.kept},
        minimal=reduction.minimal,
        replayed=reduction.replayed,
    )


def _still_enough(course: Course, units: Sequence[Unit], budgets: Budgets) -> bool:
    """Return whether *units* keep *budgets*. A void probe says nothing for them."""
    try:
        return course.probe(units, budgets).accepted
    except VoidProbe:
        return False


def _in_groups(known: Mapping[frozenset[Unit], bool], start: Sequence[Group]) -> dict[frozenset[Group], bool]:
    """Return the *known* answers for sets that consist of whole groups of the *start*."""
    within = {units: frozenset(group for group in start if units.issuperset(group)) for units in known}
    return {groups: known[units] for units, groups in within.items() if units == frozenset(flat(groups))}


def _journal_of(start: Sequence[Group], budgets: Budgets, journal: Path | None) -> Path | None:
    """Return the file of one start under its budgets: another processor may order the units and count otherwise."""
    counts = (budgets.target, budgets.over_refusal_limit, budgets.task_floor, *budgets.floors.items())
    digest = sha256_text(" ".join([*map(group_id, start), *map(str, counts)]))[:8]
    return journal and journal.with_name(f"{journal.name}.{digest}.journal")


@contextlib.contextmanager
def _explained_journal() -> Iterator[None]:
    """Turn a journal's error into one that says how to go on.

    Raises:
        HarnessError: the journal cannot be read or written.
    """
    try:
        yield
    except ddmin.JournalError as error:
        raise HarnessError(f"{error}. Run again to go on from the answers that are there.") from error


def _certified(evidence: ddmin.Evidence) -> Certificate:
    """Return what a patch may claim of a unit. An inference, which only a search cut short leaves, is no test."""
    return evidence if evidence in ("tested", "unresolved") else "untested"


def _why_not(course: Course, oracle: Oracle, budgets: Budgets) -> str:
    """Return why no share of the units was accepted, by the example of the best probe."""
    best = max(course.probes, key=lambda probe: (probe.failed is not Failure.REFUSALS, probe.refused))
    return (
        f"no prefix of the teacher's units is acceptable: {budgets.target} of {len(oracle.harmful)} refusals are "
        f"needed; the best of {len(course.probes)} probes has {best.refused} of {best.asked} and fails on {best.missed}"
    )
