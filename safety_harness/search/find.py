"""Find the patch of a student: in the cache, in the results of another run, or by a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safety_harness.errors import DataError, HarnessError, UnitError, remark
from safety_harness.evaluation.attacks import gate_attacks
from safety_harness.evaluation.budgets import aim_of, leaves_to_gate
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.files import locked
from safety_harness.gate.records import Patch
from safety_harness.gate.results import asked_in_search
from safety_harness.models.components import METHOD
from safety_harness.patch.record import content_key, fetchers, load_patch, patch_folder, recorded, save_patch
from safety_harness.search.priors import descent
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit, flat, named


def find_patch(evaluator: Evaluator, results: Path | None = None, earlier: Path | None = None, ahead: int = 1) -> Patch:
    """Return the patch of *evaluator*: the one that the run of *results* recorded, or else the cached one.

    Without either, it is searched for and cached. The units that moved in the run of *earlier*, an earlier release of
    the student, are tried first. *ahead* processes answer the probes of the search. Two searches are never for the same
    patch: the second waits for the first. A disk that fills up meanwhile, or batches that had to be halved, cost the
    cache, with a warning, and never the patch.

    Raises:
        VoidProbe: the student, or the student with all of the teacher in it, gives too many unscored answers.
        ConfigError: there is no teacher, or all of it refuses none of the questions that the prior sees.
        SourceError: a gradient, or an answer of the student as it is, holds a NaN or an infinity.
        HarnessError: the cache cannot be written to (raised before the search), or a journal there is damaged.
        DataError: *results* hold no patch for *evaluator*, or *earlier* cannot be read.
    """
    evaluator.student.require_teacher()
    if results:
        return recorded_patch(evaluator, results)
    first = earlier_units(evaluator, earlier) if earlier else ()
    key = patch_key(evaluator, first)
    folder = patch_folder(key)
    with locked(folder):
        for fetch in fetchers:
            fetch(folder)
        if cached := load_patch(folder):
            _forget_journals(folder)  # a kill may have left them
            # The key knows weights only, which may have had other names before.
            return cached.model_copy(update={"student": evaluator.student.id, "teacher": evaluator.teacher.folder.name})
        return _kept(evaluator, search(evaluator, key, folder, first=first, ahead=ahead), folder, first)


def recorded_patch(evaluator: Evaluator, results: Path) -> Patch:
    """Return the patch of *evaluator* that the run of *results* found, on this machine or another. Search nothing.

    Raises:
        DataError: the file cannot be read, or records no patch of this student. Or the patch was found for other
            weights, other questions, another transfer or another grain.
    """
    student = evaluator.student.id
    record = recorded(results).get(student)
    if record is None:
        raise DataError(f"{results}: records no patch of {student}. Name another student, or search for it.")
    then, now = _belongs_to(record.identity), _belongs_to(evaluator.identity())
    if changed := [name for name in now if then.get(name) != now[name]]:
        raise DataError(
            f"{results}: the patch of {student} was found for another {changed[0]} than today's. Search again."
        )
    transfer = evaluator.student.search.transfer
    if record.patch.transfer != transfer:
        raise DataError(
            f"{results}: the patch of {student} was found with transfer {record.patch.transfer!r}, and today's "
            f"settings say {transfer!r}. Set `transfer` to it in the registry, or give --gate-search-transfer."
        )
    try:
        named(record.patch.units, evaluator.units)
    except UnitError as error:
        raise DataError(f"{results}: the patch of {student} does not fit today's settings. {error}") from error
    return record.patch


def _belongs_to(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an *identity* that a patch belongs to: weights, and the questions that set its target."""
    return {
        "student": identity.get("student"),
        "teacher": identity.get("teacher"),
        "set of questions": asked_in_search(identity.get("questions", {})),
    }


def earlier_units(evaluator: Evaluator, earlier: Path) -> tuple[Unit, ...]:
    """Return the units that the run of *earlier* moved in a student of this name; none where they are no use here.

    Raises:
        DataError: the file cannot be read.
    """
    student = evaluator.student.id
    record = recorded(earlier).get(student)
    if record is None or not record.patch.units:
        remark(f"{earlier}: records no units of {student}, so that none are tried first.")
        return ()
    gated = {attack.fingerprint for attack in gate_attacks(evaluator.student)}
    if seen := [name for name, one in record.identity.get("search_attacks", {}).items() if one in gated]:
        remark(f"{earlier}: the units of {student} are not tried first. Their search saw {seen[0]}, a gated attack.")
        return ()
    try:
        return flat(named(record.patch.units, evaluator.units))
    except UnitError as error:
        remark(f"{earlier}: the units of {student} are not tried first, because it is another model now. {error}")
        return ()


def _kept(evaluator: Evaluator, patch: Patch, folder: Path, first: Sequence[Unit]) -> Patch:
    """Cache *patch* in *folder* if that is possible, and return it either way."""
    if patch_key(evaluator, first) != patch.key:
        message = f"The patch of {patch.student} is used, but not kept: it was found in batches of two sizes."
        remark(message)
        _forget_journals(folder)
        return patch
    try:
        save_patch(patch, folder)
    except HarnessError as error:
        remark(f"The patch of {patch.student} is used, but could not be kept. {error}")
    else:
        _forget_journals(folder)
    return patch


def _forget_journals(folder: Path) -> None:
    """Delete the journals of the search that *folder* belongs to."""
    for journal in folder.parent.glob(f"{folder.name}.*.journal"):
        journal.unlink()


def patch_key(evaluator: Evaluator, first: Sequence[Unit] = ()) -> str:
    """Return the key of the patch of *evaluator*: a hash of everything that a search sees, *first* its units.

    The report split is not part of it, so a change of the report split does not start a search. Where the settings
    leave a budget to the gate, the counts that the gate's thresholds come to are part of it.
    """
    search = evaluator.student.search
    settings = search.model_dump(mode="json")
    # The questions of the prior are part of the key themselves. 0 was once written as None.
    settings |= {name: settings[name] or None for name in ("prior_questions", "prior_harmless_questions")}
    if not search.attacks:  # a search of before there were attacks has the same key; what is asked is part of it
        settings = {name: value for name, value in settings.items() if name not in ("attacks", "attacked_share")}
    if search.kind_share is None:
        del settings["kind_share"]
    else:  # the hash of a set does not know the kinds
        settings["kinds"] = [[prompt.id, prompt.category] for prompt in evaluator.questions.harmful.search]
    if search.components:
        settings["components"] = METHOD
        if search.prior == "descent":
            settings["descent"] = asdict(descent.DEFAULT)
    else:
        del settings["rank"]
    key = {**evaluator.identity(), "questions": asked_in_search(evaluator.questions.hashes), "search": settings}
    if leaves_to_gate(search):
        key["aim"] = asdict(aim_of(evaluator.student, evaluator.questions))
    if first:
        key["first"] = [unit.id for unit in first]
    return content_key(key)


def select(evaluator: Evaluator, patch: Patch) -> tuple[Unit, ...]:
    """Return the units of *evaluator* that *patch* moves.

    Raises:
        UnitError: the model has no such units.
        DataError: components are other numbers here than those that were searched.
    """
    units = flat(named(patch.units, evaluator.units))
    if patch.numbers and patch.numbers != evaluator.transplanter.digest(units):
        raise DataError(
            f"{patch.student}: the components of its patch are other numbers here than where they were searched for. "
            "Search again on this machine, or gate with the versions and on the machine of the search."
        )
    return units
