"""Write a patch as an artifact: the numbers that were measured, in the student's own names and dtype."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from safety_harness import __version__
from safety_harness.errors import ArtifactError
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.files import refuse_existing, sha256_file, sha256_text, whole_folder
from safety_harness.gate.reading import read_results
from safety_harness.gate.records import Identity, Patch
from safety_harness.gate.results import Outcome
from safety_harness.patch.card import card
from safety_harness.patch.folder import BOM, CARD, MANIFEST, ORIGINAL, PATCH, SUMS, Artifact, open_artifact, sums
from safety_harness.patch.manifest import Entry, GateEvidence, Manifest, Measured, Origin
from safety_harness.patch.mlbom import ml_bom
from safety_harness.patch.tensor_bytes import Raw, Stored, digest, stored_tensors, with_channels
from safety_harness.registry.schema import ModelSpec
from safety_harness.report.head import notices
from safety_harness.search.find import select
from safety_harness.weights.checkpoint import Checkpoint, companions
from safety_harness.weights.moved import Moved, moved
from safety_harness.weights.ranges import ranges
from safety_harness.weights.units import Unit

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "peft")
_LONGEST_FRONT = 64 << 10
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


def refuse_unwritable(evaluator: Evaluator) -> None:
    """Refuse, before a search, numbers that the student's file cannot hold: sums in a wider dtype than it stores.

    Raises:
        ArtifactError: naming the first tensor.
    """
    search = evaluator.student.search
    if not (search.components or search.transfer == "add"):
        return  # the teacher's own numbers may fit into fewer bits
    measured = getattr(torch, evaluator.student.family.dtype)
    for name in dict.fromkeys(part.disk.name for unit in evaluator.units for part in unit.parts):
        stored = evaluator.checkpoint.dtype(name)
        if torch.promote_types(measured, stored) != stored:
            raise _unfit(name, measured, stored)


def build(
    evaluator: Evaluator, patch: Patch, out: Path, *, results: Path | None = None, keep_original: bool = False
) -> Artifact:
    """Write the artifact of *patch*, which was found on *evaluator*, to the new folder *out*.

    Args:
        results: the results.json of a run that gated this patch, maybe on another machine. The gate's evidence and the
            identity of that run go into the manifest.
        keep_original: keep the student's own numbers too, so that a revert needs nothing else.

    Raises:
        ArtifactError: the patch is empty, the student's dtype cannot hold one of its numbers, or the results are of
            another patch.
        HarnessError: *out* exists, or the disk is full or may not be written to.
        DataError: the results cannot be read.
    """
    if not patch.units:
        raise ArtifactError(f"{patch.student}: there is nothing to write, because the patch is empty: {patch.reason}.")
    refuse_existing(out)
    today = Identity.model_validate(evaluator.identity())
    evidence, identity = _evidence(results, patch, today) if results else (None, today)
    units = select(evaluator, patch)
    student_tensors = stored_tensors(evaluator.checkpoint)
    measured = evaluator.transplanter.moving(units)
    new = {name: _in_dtype_of(evaluator.checkpoint, name, tensor) for name, tensor in measured.items()}
    with whole_folder(out, replace=False) as folder:
        save_file(new, folder / PATCH)
        if keep_original:
            save_file({part.name: _part(evaluator.checkpoint, part) for part in moved(units)}, folder / ORIGINAL)
        entries = _entries(units, student_tensors, new)
        moving = {entry.tensor for entry in entries}
        manifest = Manifest(
            tool=f"safety-harness {__version__}",
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            student=_origin(evaluator.student.spec, evaluator.checkpoint),
            teacher=_origin(evaluator.student.require_teacher(), evaluator.teacher),
            ancestor=_ancestor(evaluator),
            lineage=evaluator.lineage,
            total_parameters=evaluator.checkpoint.parameters,
            entries=entries,
            rest={name: place.fingerprint for name, place in sorted(student_tensors.items()) if name not in moving},
            identity=identity,
            search=patch,
            gate=evidence,
            environment=_environment(),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(manifest), encoding="utf-8")
        (folder / BOM).write_text(ml_bom(manifest), encoding="utf-8")
        (folder / SUMS).write_text(sums(folder), encoding="ascii")
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for its owner alone
    return open_artifact(out)


def _entries(
    units: Sequence[Unit], student_tensors: Mapping[str, Stored], new: Mapping[str, torch.Tensor]
) -> tuple[Entry, ...]:
    homes: dict[str, list[Unit]] = {}
    for unit in units:
        for name in unit.tensors:
            homes.setdefault(name, []).append(unit)
    return tuple(_entry(part, homes[part.name], student_tensors[part.name], new[part.name]) for part in moved(units))


def _entry(part: Moved, units: Sequence[Unit], place: Stored, new: torch.Tensor) -> Entry:
    bits = place.read()
    before = digest(bits)  # now, because `with_channels` overwrites them
    new_bits: Raw = new.contiguous().view(torch.uint8).numpy().view(bits.dtype).reshape(new.shape)
    return Entry(
        tensor=part.name,
        layer=units[0].layer,
        role="+".join(dict.fromkeys(unit.role for unit in units)),
        operation="replace_slice" if part.indices else "replace",
        axis=part.axis if part.indices else None,
        indices=ranges(part.indices) if part.indices else None,
        shape=place.shape,
        dtype=place.dtype,
        before=before,
        after=digest(with_channels(bits, part.axis, part.indices, new_bits)),
    )


def _in_dtype_of(checkpoint: Checkpoint, name: str, measured: torch.Tensor) -> torch.Tensor:
    """Return the measured numbers as the student's file can hold them."""
    stored = measured.to(checkpoint.dtype(name))
    if not torch.equal(stored.to(measured.dtype), measured):
        raise _unfit(name, measured.dtype, stored.dtype)
    return stored.contiguous()


def _unfit(name: str, measured: torch.dtype, stored: torch.dtype) -> ArtifactError:
    return ArtifactError(
        f"{name}: is measured in {measured}, but the student stores {stored}, which cannot hold it. "
        "Search with the student's own dtype (`dtype` in the registry)."
    )


def _part(checkpoint: Checkpoint, part: Moved) -> torch.Tensor:
    whole = checkpoint.tensor(part.name)
    return (whole.index_select(part.axis, torch.tensor(part.indices)) if part.indices else whole).contiguous()


def _ancestor(evaluator: Evaluator) -> Origin | None:
    spec = evaluator.student.family.ancestor
    return _origin(spec, evaluator.ancestor) if spec and evaluator.ancestor else None


def _origin(spec: ModelSpec, checkpoint: Checkpoint) -> Origin:
    decisive = sorted([*checkpoint.shards, *companions(checkpoint.folder)])
    in_hub_cache = spec.hf and checkpoint.folder.parent.name == "snapshots"
    return Origin(
        source=spec.published,
        repository=spec.hf,
        revision=checkpoint.folder.name if in_hub_cache else spec.revision,
        licence=spec.licence or _licence(checkpoint.folder / "README.md"),
        architecture=checkpoint.model_type,
        adapters=tuple(sha256_file(path / "adapter_model.safetensors") for path in spec.adapters),
        dequantised=bool(spec.gguf) or str(spec.file).endswith(".gguf"),
        files={path.relative_to(checkpoint.folder).as_posix(): sha256_file(path) for path in decisive},
    )


def _licence(readme: Path) -> str | None:
    """Return the licence that a model's card names in its front matter."""
    if not readme.is_file():
        return None
    with readme.open("rb") as stream:
        front = _FRONT_MATTER.match(stream.read(_LONGEST_FRONT).decode("utf-8", errors="replace"))
    try:
        # All values stay texts, and nothing is merged: a small file could otherwise fill the memory.
        table: Any = yaml.load(front[1], yaml.BaseLoader) if front else None
    except (yaml.YAMLError, RecursionError):
        return None
    licence = table.get("license") if isinstance(table, dict) else None
    return licence if isinstance(licence, str) and licence else None


def _evidence(results: Path, patch: Patch, today: Identity) -> tuple[GateEvidence, Identity]:
    """Return what the run of *results* decided about *patch*, and what the patch was found for."""
    run = read_results(results)
    student = next((student for student in run.students if student.id == patch.student), None)
    gated = student.about.patch if student else None
    # The key says what was searched for; on another processor the same search may find other units.
    if student is None or gated is None or (gated.key, gated.units) != (patch.key, patch.units):
        raise ArtifactError(
            f"{results}: is no evidence for this patch: it records {'another patch of' if student else 'no student'} "
            f"{patch.student!r}. Run the suites again with these settings."
        )
    about, then, now = student.about, _decisive(student.about.identity), _decisive(today)
    if changed := [name for name, value in then.items() if value != now[name]]:
        raise ArtifactError(
            f"{results}: is no evidence for what would be written: {patch.student} was gated with another {changed[0]} "
            "than today's. Gate this patch again: pytest suites/ --gate-patches, and give the results of that run."
        )
    family = patch.student.partition("/")[0]
    rules = run.gate.get(family, {})
    others = {one.id for one in run.students} - {student.id}
    disturbed = tuple(incident.sentence for incident in run.incomplete if not incident.concerns_only(others))
    evidence = GateEvidence(
        outcome=Outcome.INCONCLUSIVE if disturbed and student.outcome is Outcome.PASS else student.outcome,
        reasons=(*student.reasons, *disturbed, *notices(replace(run, gate={family: rules}))),
        checks={
            name: Measured(outcome=check.outcome, summary=check.sentence, numbers=check.numbers)
            for name, check in student.checks.items()
        },
        thresholds=rules.get("gate", {}),
        teacher=about.teacher,
        further=about.further,
        judge=run.judge,
        provenance={**run.provenance, "results": sha256_text(results.read_text(encoding="utf-8"))},
    )
    return evidence, about.identity


def _decisive(identity: Identity) -> dict[str, str | None]:
    """Return the part of an identity that decides the numbers of a patch."""
    return {name: getattr(identity, name) for name in ("student", "teacher", "ancestor", "dtype")}


def _environment() -> dict[str, str]:
    """Return the Python, the machine and the versions of the packages that are installed."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # peft comes with an extra
            versions[package] = metadata.version(package)
    return versions
