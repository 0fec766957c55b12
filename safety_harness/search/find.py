"""Units and an oracle -> a patch: the one place where delta debugging meets models.

A search starts from about the smallest share of the likeliest units that the oracle accepts, and delta debugging takes
out whatever the oracle does not miss.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_harness import ddmin
from safety_harness.errors import DataError, HarnessError, VoidProbe
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.files import locked, sha256_text
from safety_harness.gate.records import Certificate, Patch, SearchFacts, Step
from safety_harness.gate.results import asked_in_search
from safety_harness.patch.record import content_key, load_patch, patch_folder, recorded, save_patch
from safety_harness.search.candidates import GRAINS, Candidates
from safety_harness.search.progress import Progress, publish
from safety_harness.weights.units import Group, Unit, flat, group_id, grouped, named

# How often the interval between a share that refuses too little and one that refuses enough is halved.
NARROWINGS = 3


@dataclass(frozen=True)
class _Found:
    groups: tuple[Group, ...]
    certificate: Mapping[str, Certificate]
    minimal: bool
    reason: str
    found: bool = True
    replayed: int = 0


def find_patch(evaluator: Evaluator, results: Path | None = None) -> Patch:
    """The patch of *evaluator*: from the cache when it was searched for before, else searched and kept there; with
    *results*, the one that this run recorded (:func:`recorded_patch`).

    Two processes never search for the same patch: the second waits for the first.

    A disk that fills up meanwhile, or batches that had to be halved, cost the cache, with a warning, never the patch.

    Raises:
        VoidProbe: the student, or the student with all of the teacher in it, gives too many unscored answers.
        ConfigError: all of the teacher refuses none of the questions that the prior sees.
        SourceError: a gradient, or an answer of the student as it is, holds a NaN or an infinity.
        HarnessError: the cache cannot be written to; said before the search. Or a journal there is damaged.
        DataError: *results* hold no patch for *evaluator*.
    """
    if results:
        return recorded_patch(evaluator, results)
    key = patch_key(evaluator)
    folder = patch_folder(key)
    with locked(folder):
        cached = load_patch(folder)
        return (
            _under_its_name(evaluator, cached) if cached else _kept(evaluator, search(evaluator, key, folder), folder)
        )


def recorded_patch(evaluator: Evaluator, results: Path) -> Patch:
    """The patch of *evaluator* that the run of *results* found, on this machine or another; nothing is searched.

    Raises:
        DataError: the run records no patch of this student, or found it for other weights, other questions or another
            transfer; or the file cannot be read.
    """
    student = evaluator.student.id
    found = recorded(results).get(student)
    if found is None:
        raise DataError(f"{results}: records no patch of {student}. Name another student, or search for it.")
    then, now = _found_for(found.identity), _found_for(evaluator.identity())
    if other := [name for name in now if then.get(name) != now[name]]:
        raise DataError(
            f"{results}: the patch of {student} was found for another {other[0]} than today's. Search anew."
        )
    transfer = evaluator.student.search.transfer
    if found.patch.transfer != transfer:
        raise DataError(
            f"{results}: the patch of {student} was found with transfer {found.patch.transfer!r}, and today's settings "
            f"say {transfer!r}. Set `transfer` to it in the registry, or give --search-transfer."
        )
    return found.patch


def _found_for(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Of a evaluator's identity what a patch belongs to: the weights, and the questions that its target was set on."""
    return {
        "student": identity.get("student"),
        "teacher": identity.get("teacher"),
        "set of questions": asked_in_search(identity.get("questions", {})),
    }


def _under_its_name(evaluator: Evaluator, patch: Patch) -> Patch:
    """The key knows weights and no names: the same ones may have been searched for under others."""
    return patch.model_copy(update={"student": evaluator.student.id, "teacher": evaluator.teacher.folder.name})


def _kept(evaluator: Evaluator, patch: Patch, folder: Path) -> Patch:
    if patch_key(evaluator) != patch.key:
        message = f"The patch of {patch.student} is used, but not kept: it was found in batches of two sizes."
        warnings.warn(message, stacklevel=2)
        _forget_journals(folder)
        return patch
    try:
        save_patch(patch, folder)
    except HarnessError as error:
        warnings.warn(f"The patch of {patch.student} is used, but could not be kept. {error}", stacklevel=2)
    else:
        _forget_journals(folder)
    return patch


def _forget_journals(folder: Path) -> None:
    for journal in folder.parent.glob(f"{folder.name}.*.journal"):
        journal.unlink()


def patch_key(evaluator: Evaluator) -> str:
    """The key of the patch of *evaluator*, made of all that a search sees.

    The report split is not part of it, so changing it searches nothing again.
    """
    settings = evaluator.student.search.model_dump(mode="json")
    return content_key(
        {**evaluator.identity(), "questions": asked_in_search(evaluator.questions.hashes), "search": settings}
    )


def select(evaluator: Evaluator, patch: Patch) -> tuple[Unit, ...]:
    """The units of *evaluator* that *patch* moves."""
    return flat(named(patch.units, evaluator.units))


def search(evaluator: Evaluator, key: str, journal: Path | None = None) -> Patch:
    """Search for the patch of *evaluator*, whatever the cache holds.

    Answers are kept in a file whose name begins with *journal*, so that a search that was killed can go on.

    Raises:
        HarnessError: the journal cannot be read or written; what it holds is kept.
    """
    settings = evaluator.student.search
    start = time.perf_counter()
    oracle = Oracle(evaluator)
    progress = _Progress(evaluator.student.id, oracle)
    found = _find(evaluator, oracle, key, journal, progress)
    return Patch(
        key=key,
        student=evaluator.student.id,
        teacher=evaluator.teacher.folder.name,
        found=found.found,
        reason=found.reason,
        units=tuple(map(group_id, found.groups)),
        certificate=found.certificate,
        minimal=found.minimal,
        parameters=sum(unit.parameters for unit in flat(found.groups)),
        total_parameters=evaluator.checkpoint.parameters,
        candidates=len(grouped(evaluator.units, settings.together)),
        probes=oracle.asked + found.replayed,
        seconds=time.perf_counter() - start,
        strategy=settings.strategy,
        prior=settings.prior,
        grain=settings.grain,
        together=settings.together,
        transfer=settings.transfer,
        search=SearchFacts(
            questions=len(oracle.harmful),
            refused_before=oracle.before,
            refused_whole=oracle.whole,
            target=oracle.target,
            over_refusal_limit=oracle.over_refusal_limit,
            task_floor=oracle.task_floor,
        ),
        course=tuple(map(_step, oracle.probes)),
    )


def _step(probe: Probe) -> Step:
    return Step(
        parameters=probe.parameters,
        asked=probe.asked,
        refused=probe.refused,
        over_refused=probe.over_refused,
        accepted=probe.accepted,
    )


def _find(evaluator: Evaluator, oracle: Oracle, key: str, journal: Path | None, progress: _Progress) -> _Found:
    enough = oracle(())
    if oracle.whole <= oracle.before and not (enough and oracle.target):
        reason = f"all of the teacher gives {oracle.whole} refusals, no more than the student's {oracle.before}"
        return _Found((), {}, False, reason, found=False)
    if enough:
        reason = f"{oracle.before} of {len(oracle.harmful)} refusals, {oracle.target} are needed"
        return _Found((), {}, True, f"the student refuses enough as it is: {reason}")
    settings = evaluator.student.search
    candidates = GRAINS[settings.grain](evaluator)
    shares, missed = _Shares(candidates, oracle), ""
    units = shares.smallest_accepted()
    if units is None:
        missed = _why_not(oracle)
        units = shares.most_within_budgets()
    if units is None:
        return _Found((), {}, False, missed, found=False)
    start = grouped(units, settings.together)
    with _explained_journal():
        reduction = ddmin.minimize(
            start,
            _resolving(oracle),
            strategy=settings.strategy,
            weights=[candidates.weight(group) for group in start],
            certificate="explicit",
            max_calls=max(1, settings.max_probes - oracle.asked),
            on_event=progress.event,
            assume=_in_groups(shares.known, start),
            journal=_journal_of(start, oracle, journal),
            fingerprint=key,
        )
    if reduction.stopped == "interrupted":
        raise KeyboardInterrupt  # a half-done search must not be taken for a patch, nor cached
    certificate = {group_id(group): _seen(reduction.certificate[group]) for group in reduction.kept}
    reason = "found" if reduction.stopped is None else f"search stopped early: {reduction.stopped}"
    if missed:
        reason += f", with no more than {oracle.target} refusals: {missed}"
    return _Found(reduction.kept, certificate, reduction.minimal, reason, replayed=reduction.replayed)


class _Progress:
    """Publishes to whoever watches how far a search is, after each probe and each event of delta debugging."""

    def __init__(self, student: str, oracle: Oracle) -> None:
        self._student, self._oracle = student, oracle
        self._event: ddmin.Event | None = None
        oracle.on_probe = self._publish

    def event(self, event: ddmin.Event) -> None:
        self._event = event
        self._publish()

    def _publish(self) -> None:
        event, probes = self._event, self._oracle.probes
        # The first probe is of nothing moved, which was asked before the search.
        seconds = [probe.seconds for probe in probes[1:]]
        enough = [probe for probe in probes if probe.accepted]
        publish(
            Progress(
                student=self._student,
                phase="searching a start" if event is None else event.phase,
                size=event.size if event else None,
                probes=len(probes),
                refused=enough[-1].refused if enough else max((probe.refused for probe in probes), default=0),
                asked=len(self._oracle.harmful),
                to_go=event.estimate if event else None,
                rest=event.estimate * sum(seconds) / len(seconds) if event and seconds else None,
            )
        )


def _in_groups(known: Mapping[frozenset[Unit], bool], start: Sequence[Group]) -> dict[frozenset[Group], bool]:
    """The answers that are about some of the *start*'s groups, each of them whole."""
    within = {units: frozenset(group for group in start if units.issuperset(group)) for units in known}
    return {groups: known[units] for units, groups in within.items() if units == frozenset(flat(groups))}


def _journal_of(start: Sequence[Group], oracle: Oracle, journal: Path | None) -> Path | None:
    """One file a start and what is enough there: another processor may order the units and measure otherwise."""
    enough = (oracle.target, oracle.over_refusal_limit, oracle.task_floor)
    begun = sha256_text(" ".join([*map(group_id, start), *map(str, enough)]))[:8]
    return journal and journal.with_name(f"{journal.name}.{begun}.journal")


@contextlib.contextmanager
def _explained_journal() -> Iterator[None]:
    try:
        yield
    except ddmin.JournalError as error:
        raise HarnessError(f"{error}. Run again to go on from the answers that are there.") from error


class _Shares:
    """What delta debugging may start from: shares of the likeliest units, none asked twice of the same target."""

    def __init__(self, candidates: Candidates, oracle: Oracle) -> None:
        self._candidates = candidates
        self._oracle = oracle
        self._too_few: dict[tuple[Unit, ...], bool] = {(): True}
        self.known = {frozenset[Unit](): False}
        """What the oracle said of each set of units."""

    def smallest_accepted(self) -> tuple[Unit, ...] | None:
        """About the smallest share that refuses enough within the budgets."""
        low = 0.0
        for share in self._candidates.shares:
            if not self._refuses_too_little(share):
                # Twice as much as refuses too little often refuses harmless questions already: look between the two.
                tried = [share, *_narrowed(low, share, self._refuses_too_little)]
                if accepted := [one for one in tried if self.known.get(frozenset(self._candidates.best(one)))]:
                    return self._candidates.best(min(accepted))
            low = share
        return None

    def most_within_budgets(self) -> tuple[Unit, ...] | None:
        """Where nothing refuses enough within the budgets: about the largest share within them that refuses too little.

        From here on the oracle asks for as many refusals as that share gives.
        """
        refused: dict[float, int] = {}

        def within(share: float) -> bool:
            with contextlib.suppress(VoidProbe):
                if self._oracle(self._candidates.best(share)):
                    refused[share] = self._oracle.probes[-1].refused
            return share in refused

        shares = self._candidates.shares
        high = next((share for share in shares if not self._refuses_too_little(share)), None)
        self._oracle.target = self._oracle.before + 1
        for low in reversed([share for share in shares if high is None or share < high]):
            if within(low):
                if high is not None:
                    _narrowed(low, high, within)
                most = max(refused, key=lambda share: (refused[share], -share))
                units = self._candidates.best(most)
                self._oracle.target = refused[most]
                self.known = {frozenset(): False, frozenset(units): True}
                return units
            high = low
        return None

    def _refuses_too_little(self, share: float) -> bool:
        units = self._candidates.best(share)
        if units not in self._too_few:
            self._too_few[units] = True
            # A void share says nothing about a larger one.
            with contextlib.suppress(VoidProbe):
                self.known[frozenset(units)] = self._oracle(units)
                self._too_few[units] = self._oracle.probes[-1].failed == "DSR"
        return self._too_few[units]


def _narrowed(low: float, high: float, still_low: Callable[[float], bool]) -> list[float]:
    """Shares between *low* and *high*, halving towards where *still_low* turns false."""
    tried = []
    for _ in range(NARROWINGS):
        tried.append(middle := (low + high) / 2)
        low, high = (middle, high) if still_low(middle) else (low, middle)
    return tried


def _resolving(oracle: Oracle) -> Callable[[tuple[Group, ...]], bool]:
    """The oracle as delta debugging sees it: a void probe is unresolved, never false."""

    def probe(groups: tuple[Group, ...]) -> bool:
        try:
            return oracle(flat(groups))
        except VoidProbe as error:
            raise ddmin.Unresolved(str(error)) from error

    return probe


def _seen(evidence: ddmin.Evidence) -> Certificate:
    """What a patch may claim of a unit: an inference, which only a search cut short leaves, is no test."""
    return evidence if evidence in ("tested", "unresolved") else "untested"


def _why_not(oracle: Oracle) -> str:
    best: Probe = max(oracle.probes, key=lambda probe: (probe.failed != "DSR", probe.refused))
    return (
        f"no prefix of the teacher's units is acceptable: {oracle.target} of {len(oracle.harmful)} refusals are "
        f"needed; the best of {len(oracle.probes)} probes has {best.refused} of {best.asked} and fails on {best.failed}"
    )
