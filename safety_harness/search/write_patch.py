"""A patch that a search found -> an artifact: the numbers that were measured, in the student's own names and dtype."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from safety_harness.gate.records import Patch
from safety_harness.gate.results import read_results
from safety_harness.patch.card import card
from safety_harness.patch.folder import CARD, MANIFEST, ORIGINAL, PATCH, SUMS, Artifact, open_artifact, sums
from safety_harness.patch.manifest import Entry, Evidence, Further, Judge, Manifest, Measured, Nearness, Origin
from safety_harness.patch.tensor_bytes import Raw, Stored, digest, stored_tensors, with_channels
from safety_harness.registry.schema import ModelSpec
from safety_harness.search.find import select
from safety_harness.weights.checkpoint import BESIDE, Checkpoint
from safety_harness.weights.units import Moved, Unit, moved, ranges

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "peft")
# Of a evaluator's identity what the numbers of a patch are made of.
DECIDES_NUMBERS = ("student", "teacher", "ancestor", "dtype")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


def build(
    evaluator: Evaluator, patch: Patch, out: Path, *, results: Path | None = None, keep_original: bool = False
) -> Artifact:
    """Write the artifact of *patch*, which was found on *evaluator*, to the new folder *out*.

    Args:
        results: the results.json of a run that gated this patch, maybe on another machine; what it was found for and
            the gate's evidence go into the manifest.
        keep_original: keep the student's own numbers too, so that a revert needs nothing else.

    Raises:
        ArtifactError: the patch is empty, a number of it has no place in the student's dtype, or the results are of
            another patch.
        HarnessError: *out* exists, or the disk is full or may not be written to.
        DataError: the results cannot be read.
    """
    if not patch.units:
        raise ArtifactError(f"{patch.student}: there is nothing to write, because the patch is empty: {patch.reason}.")
    refuse_existing(out)
    evidence, identity = _evidence(results, patch, evaluator) if results else (None, evaluator.identity())
    units = select(evaluator, patch)
    own = stored_tensors(evaluator.checkpoint)
    measured = evaluator.transplanter.moving(units)
    new = {name: _in_dtype_of(evaluator.checkpoint, name, tensor) for name, tensor in measured.items()}
    with whole_folder(out, replace=False) as folder:
        save_file(new, folder / PATCH)
        if keep_original:
            save_file({what.name: _part(evaluator.checkpoint, what) for what in moved(units)}, folder / ORIGINAL)
        entries = _entries(units, own, new)
        moving = {entry.tensor for entry in entries}
        manifest = Manifest(
            tool=f"safety-harness {__version__}",
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            student=_origin(evaluator.student.spec, evaluator.checkpoint),
            teacher=_origin(evaluator.student.family.teacher, evaluator.teacher),
            ancestor=_ancestor(evaluator),
            lineage=Nearness(**asdict(evaluator.lineage)) if evaluator.lineage else None,
            total_parameters=evaluator.checkpoint.parameters,
            entries=entries,
            rest={name: place.fingerprint for name, place in sorted(own.items()) if name not in moving},
            identity=identity,
            search=patch,
            gate=evidence,
            environment=_environment(),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card(manifest), encoding="utf-8")
        (folder / SUMS).write_text(sums(folder), encoding="ascii")
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for its owner alone
    return open_artifact(out)


def _entries(units: Sequence[Unit], own: Mapping[str, Stored], new: Mapping[str, torch.Tensor]) -> tuple[Entry, ...]:
    homes: dict[str, list[Unit]] = {}
    for unit in units:
        for name in unit.tensors:
            homes.setdefault(name, []).append(unit)
    return tuple(_entry(what, homes[what.name], own[what.name], new[what.name]) for what in moved(units))


def _entry(what: Moved, units: Sequence[Unit], place: Stored, new: torch.Tensor) -> Entry:
    bits = place.read()
    before = digest(bits)
    return Entry(
        tensor=what.name,
        layer=units[0].layer,
        role="+".join(dict.fromkeys(unit.role for unit in units)),
        operation="replace_slice" if what.indices else "replace",
        axis=what.axis if what.indices else None,
        indices=ranges(what.indices) if what.indices else None,
        shape=place.shape,
        dtype=place.dtype,
        before=before,
        after=digest(with_channels(bits, what.axis, what.indices, _bits(new, bits))),
    )


def _bits(tensor: torch.Tensor, like: Raw) -> Raw:
    raw: Raw = tensor.contiguous().view(torch.uint8).numpy().view(like.dtype).reshape(tensor.shape)
    return raw


def _in_dtype_of(checkpoint: Checkpoint, name: str, measured: torch.Tensor) -> torch.Tensor:
    """What was measured, as the student's file can hold it."""
    stored = measured.to(checkpoint.dtype(name))
    if not torch.equal(stored.to(measured.dtype), measured):
        raise ArtifactError(
            f"{name}: was measured in {measured.dtype}, but the student stores {stored.dtype}, which cannot hold it. "
            "Search with the student's own dtype (`dtype` in the registry)."
        )
    return stored.contiguous()


def _part(checkpoint: Checkpoint, what: Moved) -> torch.Tensor:
    whole = checkpoint.tensor(what.name)
    return (whole.index_select(what.axis, torch.tensor(what.indices)) if what.indices else whole).contiguous()


def _ancestor(evaluator: Evaluator) -> Origin | None:
    spec = evaluator.student.family.ancestor
    return _origin(spec, evaluator.ancestor) if spec and evaluator.ancestor else None


def _origin(spec: ModelSpec, checkpoint: Checkpoint) -> Origin:
    beside = {path for pattern in BESIDE for path in checkpoint.folder.glob(pattern)}
    local = spec.path or spec.gguf  # of a path on this machine only the last part is anybody's business
    in_hub_cache = spec.hf and checkpoint.folder.parent.name == "snapshots"
    return Origin(
        source=local.name if local else str(spec),
        repository=spec.hf,
        revision=checkpoint.folder.name if in_hub_cache else spec.revision,
        licence=spec.licence or _licence(checkpoint.folder / "README.md"),
        architecture=checkpoint.model_type,
        adapters=tuple(sha256_file(path / "adapter_model.safetensors") for path in spec.adapters),
        dequantised=bool(spec.gguf) or str(spec.file).endswith(".gguf"),
        files={path.name: sha256_file(path) for path in sorted([*checkpoint.shards, *beside])},
    )


def _licence(readme: Path) -> str | None:
    """The licence that a model's card names in its front matter."""
    found = _FRONT_MATTER.match(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    try:
        table: Any = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError):  # a date that is none
        return None
    licence = table.get("license") if isinstance(table, dict) else None
    return str(licence) if licence else None


def _evidence(results: Path, patch: Patch, evaluator: Evaluator) -> tuple[Evidence, Mapping[str, Any]]:
    """What the run of *results* said of *patch*, and what the patch was found for."""
    run = read_results(results)
    student = next((found for found in run.students if found.id == patch.student), None)
    gated = student.about.get("patch", {}) if student else {}
    # The key says what was searched for; on another processor the same search may find other units.
    if student is None or gated.get("key") != patch.key or tuple(gated.get("units", ())) != patch.units:
        raise ArtifactError(
            f"{results}: is no evidence for this patch: it tells of {'another patch of' if student else 'no student'} "
            f"{patch.student!r}. Run the suites once more with these settings."
        )
    identity, now = student.about.get("identity", {}), evaluator.identity()
    if other := [name for name in DECIDES_NUMBERS if identity.get(name) != now[name]]:
        raise ArtifactError(
            f"{results}: is no evidence for what would be written: {patch.student} was gated with another {other[0]} "
            "than today's. Gate this patch once more: pytest suites/ --patches, and give the results of that run."
        )
    further = student.about.get("further", {})
    evidence = Evidence(
        outcome=student.outcome,
        reasons=student.reasons,
        checks={
            name: Measured(outcome=check.outcome, summary=check.sentence, numbers=_counts(check.numbers))
            for name, check in student.checks.items()
        },
        thresholds=run.gate.get(patch.student.partition("/")[0], {}).get("gate", {}),
        teacher=student.about.get("teacher", {}),
        further={name: Further.model_validate(found, strict=False) for name, found in further.items()},
        judge=Judge.model_validate(run.judge, strict=False),
        provenance={**run.provenance, "results": sha256_text(results.read_text(encoding="utf-8"))},
    )
    return evidence, identity


def _counts(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers without the lists of single questions, which results.json holds."""
    return {name: value for name, value in numbers.items() if name != "flips"}


def _environment() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}
