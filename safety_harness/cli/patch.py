"""Run ``safety-harness apply, revert, verify, diff, export, upload, card``: place a patch, and publish it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from safety_harness.cli.common import Commands, Parser, add_json, command, show
from safety_harness.cli.sources import HUB_NAME
from safety_harness.errors import ArtifactError, ConfigError, SourceError
from safety_harness.files import clear_debris
from safety_harness.patch.apply import State, Verified, apply, beside, own_numbers, refuse_out, revert, verify
from safety_harness.patch.compare import compare
from safety_harness.patch.folder import Artifact, open_artifact
from safety_harness.patch.manifest import schema
from safety_harness.reading import shown
from safety_harness.weights.checkpoint import Checkpoint

_STATE_BY_NAME = {state.name.lower(): state for state in State}


def add_patch(commands: Commands[Parser]) -> None:
    """Add the commands that place, compare and publish a patch."""
    placing = []
    for name, run, about, example in (
        ("apply", _apply, "write a copy of a model with the patch in it", "patch models/student --out released"),
        ("revert", _revert, "write a copy of a patched model without the patch", "patch released --out student-again"),
    ):
        parser = command(commands, name, about, examples=[example])
        placing.append(parser)
        parser.set_defaults(run=run)
        _patch_and_model(parser)
        parser.add_argument("--out", type=Path, help="new folder for the model")
        parser.add_argument(
            "--link", action="store_true", help="hard-link files that do not change, instead of copying them"
        )
        parser.add_argument("--dry-run", action="store_true", help="check everything and write nothing")
        if name == "revert":
            parser.add_argument("--student", type=Path, help="the student's folder, for a patch without the original")

    check = command(
        commands,
        "verify",
        "check whether a model holds the patch; exit 1 if not as expected",
        examples=["patch released", "patch models/student --expect clean"],
    )
    check.set_defaults(run=_verify)
    _patch_and_model(check)
    check.add_argument(
        "--expect", choices=sorted(_STATE_BY_NAME), default="applied", help="the expected state (default: applied)"
    )
    check.add_argument(
        "--weights-only", action="store_true", help="ignore changed configs, tokenizer and chat template"
    )

    diff = command(commands, "diff", "compare two patches; exit 1 if they differ", examples=["patch other-patch"])
    diff.set_defaults(run=_diff)
    diff.add_argument("first", type=Path, metavar="PATCH", help="a patch's folder")
    diff.add_argument("second", type=Path, metavar="PATCH", help="the folder to compare it with")

    export = command(
        commands,
        "export",
        "write the patch for another tool",
        examples=["patch models/student --to peft --out adapter"],
    )
    export.set_defaults(run=_export)
    _patch_and_model(export)
    export.add_argument("--to", choices=("full", "mergekit", "peft"), required=True, help="the format to write")
    export.add_argument("--teacher", type=Path, help="the teacher's folder (for mergekit)")
    export.add_argument("--out", type=Path, required=True, help="new folder; for mergekit the recipe's file")

    publish = command(
        commands,
        "upload",
        "commit the patch with its card to a repository on the hub",
        examples=["patch our-org/our-patch"],
    )
    publish.set_defaults(run=_upload)
    publish.add_argument("patch", type=Path, metavar="PATCH", help="the patch's folder")
    publish.add_argument("repository", metavar="OWNER/NAME", help="created as private if it does not exist")
    publish.add_argument("--public", action="store_true", help="create it as public")

    describe = command(
        commands,
        "card",
        "print the model card of a patch, its ML-BOM, or the JSON Schema of its manifest",
        examples=["patch", "patch --bom", "--schema"],
    )
    describe.set_defaults(run=_card)
    describe.add_argument("patch", type=Path, nargs="?", metavar="PATCH", help="the patch's folder")
    describe.add_argument("--bom", action="store_true", help="print the patch's ML-BOM (CycloneDX) instead")
    describe.add_argument("--schema", action="store_true", help="print the JSON Schema of manifest.json instead")

    for parser in (*placing, check, diff, export, publish):
        add_json(parser)


def _patch_and_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command about a patch and a model."""
    parser.add_argument("patch", type=Path, metavar="PATCH", help="the patch's folder")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model's folder")


def _apply(options: argparse.Namespace) -> int:
    """Write a patched copy of the model. Return 1 if a dry run finds that it could not be patched."""
    artifact = open_artifact(options.patch)
    if options.dry_run:
        verified = verify(artifact, options.model)
        _print_state(options, verified, f"; {artifact.manifest.parameters} parameters would change")
        if options.out and verified.state is State.CLEAN and not _holds(artifact, options.out):
            refuse_out(options.model, options.out)
        return 0 if verified.state is State.CLEAN else 1
    out = _out(options)
    if _holds(artifact, out) and verify(artifact, options.model).state is State.CLEAN:
        clear_debris(out.parent)
        show(options, {"out": str(out), "written": False}, f"{out}: already holds this patch. Nothing was written")
        return 0
    _print_written(options, out, artifact, apply(artifact, options.model, out, link=options.link))
    return 0


def _revert(options: argparse.Namespace) -> int:
    """Write an unpatched copy of the model. Return 1 if a dry run finds that it does not hold the patch."""
    artifact = open_artifact(options.patch)
    if options.dry_run:
        verified = verify(artifact, options.model)
        _print_state(options, verified, "")
        if verified.state not in (State.APPLIED, State.PARTLY):
            return 1
        own_numbers(artifact, options.student)  # raises if the student's own weights are nowhere
        if options.out:
            refuse_out(options.model, options.out)
        return 0
    out = _out(options)
    _print_written(options, out, artifact, revert(artifact, options.model, out, options.student, link=options.link))
    return 0


def _holds(artifact: Artifact, out: Path) -> bool:
    """Return whether *out* is a model that holds the patch."""
    try:
        return out.is_dir() and verify(artifact, out).state is State.APPLIED
    except SourceError:  # it is no model at all
        return False


def _out(options: argparse.Namespace) -> Path:
    """Return ``--out``. Raises ArtifactError if it is missing: only a dry run does without."""
    if options.out is None:
        raise ArtifactError(
            "--out is missing: name the folder of the model to write. The model itself is never changed."
        )
    out: Path = options.out
    return out


def _print_written(options: argparse.Namespace, out: Path, artifact: Artifact, left_out: tuple[str, ...]) -> None:
    """Report a model that was written, and what about it the gate has not seen."""
    unseen_files = beside(artifact, Checkpoint(options.model))
    lines = [f"{out}: written and read back"]
    if left_out:
        lines.append(f"left out, as unpatched weights or as not needed in a release: {', '.join(left_out)}")
    if unseen_files:
        lines.append(f"not what the gate saw: {', '.join(unseen_files)}")
    if artifact.manifest.student.dequantised:
        lines.append("its weights were unpacked from a quantised file, and are written unpacked")
    show(options, {"out": str(out), "written": True, "left_out": left_out, "beside": unseen_files}, "\n".join(lines))


def _print_state(options: argparse.Namespace, verified: Verified, more: str) -> None:
    """Report the patch's state in a model, with *more* after it."""
    lines = [f"{options.model}: {verified.state.value}{more}"]
    lines += [verified.foreign] if verified.foreign else []
    lines += [f"not applied: {', '.join(verified.unapplied)}"] if verified.state is State.PARTLY else []
    lines += [f"not what the gate saw: {', '.join(verified.beside)}"] if verified.beside else []
    show(options, {"model": str(options.model), **asdict(verified)}, "\n".join(lines))


def _verify(options: argparse.Namespace) -> int:
    """Report the patch's state in a model. Return 0 if it is the expected state and the gate saw all other files."""
    verified = verify(open_artifact(options.patch), options.model)
    _print_state(options, verified, "")
    unseen_files = verified.beside and not options.weights_only
    return 0 if verified.state is _STATE_BY_NAME[options.expect] and not unseen_files else 1


def _diff(options: argparse.Namespace) -> int:
    """Print the tensors in which two patches differ. Return 1 if there are any."""
    entries = compare(open_artifact(options.first), open_artifact(options.second))
    rows = [
        (entry.tensor, entry.only_first, entry.only_second, entry.same, entry.different)
        for entry in entries
        if not entry.equal
    ]
    headers = ("tensor", "only first", "only second", "same", "different")
    equal = len(entries) - len(rows)
    text = f"{equal} of {len(entries)} tensors are moved alike"
    show(options, {"tensors": list(map(asdict, entries))}, text + (f"\n{tabulate(rows, headers)}" if rows else ""))
    return 1 if rows else 0


def _export(options: argparse.Namespace) -> int:
    """Write the patch in another tool's format."""
    artifact = open_artifact(options.patch)
    if options.to == "full":
        _print_written(options, options.out, artifact, apply(artifact, options.model, options.out))
        return 0
    from safety_harness.patch.export import mergekit, peft_adapter

    if options.to == "peft":
        peft_adapter(artifact, options.model, options.out)
    elif options.teacher is None:
        raise ArtifactError("--teacher is missing: a mergekit recipe names both models.")
    else:
        mergekit(artifact, options.model, options.teacher, options.out)
    show(options, {"out": str(options.out), "written": True}, f"{options.out}: written")
    return 0


def _card(options: argparse.Namespace) -> int:
    """Print a patch's model card or its ML-BOM, or the schema of manifests."""
    if options.schema:
        print(json.dumps(schema(), indent=2))
    elif options.patch is None:
        raise ArtifactError("Name a patch, or ask for --schema.")
    elif options.bom:
        from safety_harness.patch.mlbom import ml_bom

        print(ml_bom(open_artifact(options.patch).manifest), end="")
    else:
        from safety_harness.patch.card import card  # brings scipy, which the other commands do without

        print(card(open_artifact(options.patch).manifest), end="")
    return 0


def _upload(options: argparse.Namespace) -> int:
    """Publish the patch and print the address of the commit."""
    artifact = open_artifact(options.patch)
    if not HUB_NAME.fullmatch(options.repository):
        raise ConfigError(f"{shown(options.repository)[:200]}: a repository's name on a hub is OWNER/NAME.")
    from safety_harness.patch.upload import upload

    address = upload(artifact, options.repository, public=options.public)
    show(options, {"commit": address}, f"{options.patch}: {address}")
    return 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
