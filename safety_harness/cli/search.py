"""Run ``safety-harness search`` and ``patch``: find a student's patch, or take the one of a gated run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_harness.cli.common import (
    LATEST,
    Commands,
    Parser,
    add_choice,
    add_json,
    chosen,
    command,
    one_of,
    show,
    watched,
    whole,
)
from safety_harness.errors import DataError
from safety_harness.files import refuse_existing, try_to_write
from safety_harness.gate.runs import finished
from safety_harness.registry.load import Student

if TYPE_CHECKING:
    from safety_harness.gate.records import Patch


def add_search(commands: Commands[Parser]) -> None:
    """Add the commands that make a patch."""
    search = command(
        commands,
        "search",
        "find a student's patch, and write it",
        examples=["--out patch", "--student mine/our-release --out patch"],
        more="Nothing is gated: the patch of a gated run, with its evidence, is written by `patch`.",
    )
    search.set_defaults(run=_search)
    search.add_argument(
        "--earlier", type=Path, help="results.json of an earlier release: the units of its patch are tried first"
    )
    search.add_argument(
        "--ahead", type=whole, default=1, metavar="K", help="processes that answer the probes, each with a copy"
    )
    gated = command(
        commands,
        "patch",
        "write the patch that a run gated, with the gate's evidence",
        examples=["--out patch", "last/results.json --student our-release --out patch"],
        more="Nothing is searched.",
    )
    gated.set_defaults(run=_patch)
    gated.add_argument("results", type=Path, nargs="?", default=LATEST, help=f"results.json (default: {LATEST})")
    for parser in (search, gated):
        add_choice(parser)
        parser.add_argument("--out", type=Path, required=True, help="new folder for the patch")
        parser.add_argument(
            "--with-original", action="store_true", help="also keep the replaced weights, to revert without the student"
        )
        add_json(parser)


def _search(options: argparse.Namespace) -> int:
    """Find the student's patch and write it. Return 1 if there is none."""
    return _write_patch(
        options, one_of(chosen(options)), None, options.earlier and finished(options.earlier), options.ahead
    )


def _patch(options: argparse.Namespace) -> int:
    """Write the patch that a run recorded. Return 1 if it found none."""
    from safety_harness.patch.record import recorded  # brings scipy, which the other commands do without

    results = finished(options.results)
    gated = recorded(results)
    students = chosen(options)
    # A run of several machines gates some of a registry's students, and a student that was named is always meant.
    recorded_ones = [student for student in students if student.id in gated]
    student = one_of(recorded_ones or students)
    if student.id in gated:
        student = _as_searched(student, gated[student.id].patch)
    return _write_patch(options, student, results)


def _as_searched(student: Student, patch: Patch) -> Student:
    """Return *student* with the grain, rank and transfer that *patch* was searched with: the run may have had options.

    Nothing is added without an ancestor, so the registry's transfer then stays, and does not fit.
    """
    from safety_harness.weights.units import rank_of

    searched: dict[str, Any] = {"grain": patch.grain}
    if rank := max(map(rank_of, patch.units), default=0):
        searched["rank"] = rank
    if patch.transfer != "add" or student.family.ancestor:
        searched["transfer"] = patch.transfer
    try:
        search = type(student.search).model_validate(student.search.model_dump() | searched)
    except ValueError as error:
        raise DataError(f"{patch.student}: its patch was searched with settings that do not exist: {error}") from error
    return student.searched_by(search)


def _write_patch(
    options: argparse.Namespace, student: Student, results: Path | None, earlier: Path | None = None, ahead: int = 1
) -> int:
    """Write the patch of *student*: the one that the run of *results* found, or else one that is searched for."""
    student.require_teacher()
    refuse_existing(options.out)  # before the search, which takes long
    try_to_write(options.out)
    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.search.find import find_patch
    from safety_harness.search.write_patch import build, refuse_unwritable

    with watched():
        evaluator = open_evaluator(student)
        if results is None:
            refuse_unwritable(evaluator)
        patch = find_patch(evaluator, results, earlier, ahead)
    facts: dict[str, Any] = {"student": patch.student, "found": patch.found, "reason": patch.reason, "key": patch.key}
    if not patch.units:
        show(options, {**facts, "out": None}, f"{patch.student}: no patch is written: {patch.reason}")
        return 1
    artifact = build(evaluator, patch, options.out, results=results, keep_original=options.with_original)
    gate = artifact.manifest.gate.outcome.value if artifact.manifest.gate else "not gated"
    facts |= {"out": str(options.out), "share": artifact.manifest.share, "gate": gate}
    show(options, facts, f"{options.out}: {patch.student}, {artifact.manifest.share:.2%} of the parameters, {gate}")
    return 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
