"""``safety-harness search, apply, revert, verify, diff, export, upload, card``: a patch to review and to ship."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from safety_harness.errors import ArtifactError, ConfigError, SourceError
from safety_harness.files import refuse_existing
from safety_harness.gate.results import read_results
from safety_harness.patch.apply import State, Verified, apply, beside, own_numbers, refuse_out, revert, verify
from safety_harness.patch.compare import compare
from safety_harness.patch.folder import Artifact, open_artifact
from safety_harness.patch.manifest import schema
from safety_harness.registry.load import load_registry
from safety_harness.weights.checkpoint import Checkpoint

_WORDS = {state.name.lower(): state for state in State}


def add_artifact(commands: Any) -> None:
    """Add the commands to the parser's commands."""
    search = commands.add_parser("search", help="find a student's patch, or take one that was found, and write it down")
    search.set_defaults(run=_search)
    search.add_argument("student", help="as `safety-harness list` names it")
    search.add_argument("--registry", action="append", type=Path, default=[], help="registry file (TOML)")
    search.add_argument("--out", type=Path, required=True, help="folder of the artifact")
    search.add_argument("--results", type=Path, help="results.json of a gated run: its patch, and its evidence")
    search.add_argument(
        "--with-original", action="store_true", help="keep what is replaced, to revert without the student"
    )

    placing = []
    for name, run, about in (
        ("apply", _apply, "write a model with the patch in it"),
        ("revert", _revert, "write a patched model as it was before"),
    ):
        parser = commands.add_parser(name, help=about)
        placing.append(parser)
        parser.set_defaults(run=run)
        _patch_and_model(parser)
        parser.add_argument("--out", type=Path, help="folder of the model that is written")
        parser.add_argument("--link", action="store_true", help="hard-link the files that do not change")
        parser.add_argument("--dry-run", action="store_true", help="check all that can be checked, and write nothing")
        if name == "revert":
            parser.add_argument("--student", type=Path, help="the student, where the patch does not hold the original")

    check = commands.add_parser("verify", help="tell whether a model holds the patch; exit 1 where not as expected")
    check.set_defaults(run=_verify)
    _patch_and_model(check)
    check.add_argument(
        "--expect", choices=sorted(_WORDS), default="applied", help="the state that exits 0 (default: applied)"
    )
    check.add_argument("--weights-only", action="store_true", help="whatever its configs, tokenizer and template are")

    diff = commands.add_parser("diff", help="compare two patches; exit 1 where they differ")
    diff.set_defaults(run=_diff)
    diff.add_argument("first", type=Path, metavar="PATCH")
    diff.add_argument("second", type=Path, metavar="PATCH")

    export = commands.add_parser("export", help="write the patch for another tool")
    export.set_defaults(run=_export)
    _patch_and_model(export)
    export.add_argument("--to", choices=("full", "mergekit", "peft"), required=True)
    export.add_argument("--teacher", type=Path, help="the teacher's folder (mergekit)")
    export.add_argument("--out", type=Path, required=True, help="a folder; of mergekit the recipe's file")

    publish = commands.add_parser("upload", help="commit the patch, with its card, to a hub's repository")
    publish.set_defaults(run=_upload)
    publish.add_argument("patch", type=Path, metavar="PATCH")
    publish.add_argument("repository", metavar="OWNER/NAME", help="made, and private, where there is none")
    publish.add_argument("--public", action="store_true", help="where it is made, for everybody to see")

    describe = commands.add_parser("card", help="print the model card of a patch, or the JSON Schema of its manifest")
    describe.set_defaults(run=_card)
    describe.add_argument("patch", type=Path, nargs="?", metavar="PATCH")
    describe.add_argument("--schema", action="store_true", help="the JSON Schema of manifest.json")

    for parser in (search, *placing, check, diff, export, publish):
        parser.add_argument("--json", action="store_true", help="for machines")


def _patch_and_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patch", type=Path, metavar="PATCH", help="the artifact's folder")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model's folder")


def _search(options: argparse.Namespace) -> int:
    students = load_registry(*options.registry).select(students=[options.student])
    if len(students) > 1:
        raise ConfigError(f"{options.student!r} is the name of {', '.join(s.id for s in students)}. Name one of them.")
    refuse_existing(options.out)  # a search takes long; what can be known before is
    if options.results:
        read_results(options.results)
    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.search.find import find_patch
    from safety_harness.search.write_patch import build

    evaluator = open_evaluator(students[0])
    patch = find_patch(evaluator, options.results)
    found: dict[str, Any] = {"student": patch.student, "found": patch.found, "reason": patch.reason, "key": patch.key}
    if not patch.units:
        _say(options, {**found, "out": None}, f"{patch.student}: no patch is written: {patch.reason}")
        return 1
    artifact = build(evaluator, patch, options.out, results=options.results, keep_original=options.with_original)
    gate = artifact.manifest.gate.outcome.value if artifact.manifest.gate else "not gated"
    found |= {"out": str(options.out), "share": artifact.manifest.share, "gate": gate}
    _say(options, found, f"{options.out}: {patch.student}, {artifact.manifest.share:.2%} of the parameters, {gate}")
    return 0


def _apply(options: argparse.Namespace) -> int:
    artifact = open_artifact(options.patch)
    if options.dry_run:
        found = verify(artifact, options.model)
        _tell_state(options, found, f"; {artifact.manifest.parameters} numbers would move")
        if options.out and found.state is State.CLEAN and not _holds(artifact, options.out):
            refuse_out(options.model, options.out)
        return 0 if found.state is State.CLEAN else 1
    out = _out(options)
    if _holds(artifact, out) and verify(artifact, options.model).state is State.CLEAN:
        _say(options, {"out": str(out), "written": False}, f"{out}: holds this patch already; nothing was written")
        return 0
    _tell(options, out, artifact, apply(artifact, options.model, out, link=options.link))
    return 0


def _revert(options: argparse.Namespace) -> int:
    artifact = open_artifact(options.patch)
    if options.dry_run:
        found = verify(artifact, options.model)
        _tell_state(options, found, "")
        if found.state not in (State.APPLIED, State.PARTLY):
            return 1
        own_numbers(artifact, options.student)
        if options.out:
            refuse_out(options.model, options.out)
        return 0
    out = _out(options)
    _tell(options, out, artifact, revert(artifact, options.model, out, options.student, link=options.link))
    return 0


def _holds(artifact: Artifact, out: Path) -> bool:
    """Whether *out* is a model that holds the patch."""
    try:
        return out.is_dir() and verify(artifact, out).state is State.APPLIED
    except SourceError:  # no model at all
        return False


def _out(options: argparse.Namespace) -> Path:
    if options.out is None:
        raise ArtifactError(
            "--out is missing: the folder of the model that is to be written. A model is never changed."
        )
    out: Path = options.out
    return out


def _tell(options: argparse.Namespace, out: Path, artifact: Artifact, left_out: tuple[str, ...]) -> None:
    others = beside(artifact, Checkpoint(options.model))
    lines = [f"{out}: written and read back"]
    if left_out:
        lines.append(f"left out, because they hold weights that the patch does not reach: {', '.join(left_out)}")
    if others:
        lines.append(f"not what the gate saw: {', '.join(others)}")
    if artifact.manifest.student.dequantised:
        lines.append("its weights were unpacked from a quantised file, and are written unpacked")
    _say(
        options,
        {"out": str(out), "written": True, "left_out": left_out, "beside": others},
        "\n".join(lines),
    )


def _tell_state(options: argparse.Namespace, found: Verified, more: str) -> None:
    lines = [f"{options.model}: {found.state.value}{more}"]
    lines += [found.foreign] if found.foreign else []
    lines += [f"not applied: {', '.join(found.unapplied)}"] if found.state is State.PARTLY else []
    lines += [f"not what the gate saw: {', '.join(found.beside)}"] if found.beside else []
    _say(options, {"model": str(options.model), **asdict(found)}, "\n".join(lines))


def _verify(options: argparse.Namespace) -> int:
    found = verify(open_artifact(options.patch), options.model)
    _tell_state(options, found, "")
    others = found.beside and not options.weights_only
    return 0 if found.state is _WORDS[options.expect] and not others else 1


def _diff(options: argparse.Namespace) -> int:
    found = compare(open_artifact(options.first), open_artifact(options.second))
    rows = [
        (entry.tensor, entry.only_first, entry.only_second, entry.same, entry.different)
        for entry in found
        if not entry.equal
    ]
    headers = ("tensor", "only first", "only second", "same", "different")
    equal = len(found) - len(rows)
    text = f"{equal} of {len(found)} tensors are moved alike"
    _say(options, {"tensors": list(map(asdict, found))}, text + (f"\n{tabulate(rows, headers)}" if rows else ""))
    return 1 if rows else 0


def _export(options: argparse.Namespace) -> int:
    artifact = open_artifact(options.patch)
    if options.to == "full":
        _tell(options, options.out, artifact, apply(artifact, options.model, options.out))
        return 0
    from safety_harness.patch.export import mergekit, peft_adapter

    if options.to == "peft":
        peft_adapter(artifact, options.model, options.out)
    elif options.teacher is None:
        raise ArtifactError("--teacher is missing: a mergekit recipe names both models.")
    else:
        mergekit(artifact, options.model, options.teacher, options.out)
    _say(options, {"out": str(options.out), "written": True}, f"{options.out}: written")
    return 0


def _card(options: argparse.Namespace) -> int:
    if options.schema:
        print(json.dumps(schema(), indent=2))
    elif options.patch is None:
        raise ArtifactError("Name a patch, or ask for --schema.")
    else:
        from safety_harness.patch.card import card  # brings scipy, which the other commands do without

        print(card(open_artifact(options.patch).manifest), end="")
    return 0


def _upload(options: argparse.Namespace) -> int:
    artifact = open_artifact(options.patch)
    from safety_harness.patch.upload import upload

    address = upload(artifact, options.repository, public=options.public)
    _say(options, {"commit": address}, f"{options.patch}: {address}")
    return 0


def _say(options: argparse.Namespace, table: Mapping[str, Any], text: str) -> None:
    print(json.dumps(table, indent=1) if options.json else text)
