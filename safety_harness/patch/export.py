"""Export a patch for other tools: a mergekit recipe, a PEFT adapter. For any other tool ``apply`` the patch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from safety_harness.errors import ArtifactError
from safety_harness.files import refuse_existing, whole_folder, write_whole
from safety_harness.patch.apply import State, require
from safety_harness.patch.folder import Artifact
from safety_harness.patch.tensor_bytes import digest, stored_tensors, with_channels
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit


def mergekit(artifact: Artifact, model: Path, teacher: Path, out: Path) -> None:
    """Write a mergekit recipe that takes the moved tensors from *teacher* and all others from *model*.

    Raises:
        ArtifactError: a recipe cannot express the patch, because it moves parts of tensors or numbers that the
            teacher's files do not hold, or *model* is not the student that the patch was made for.
        SourceError: *model* or *teacher* is no whole checkpoint of safetensors.
        HarnessError: *out* exists, or the disk is full or may not be written to.
    """
    refuse_existing(out)
    require(artifact, model, State.CLEAN)
    entries = artifact.manifest.entries
    if sliced := [entry.tensor for entry in entries if entry.operation == "replace_slice"]:
        raise ArtifactError(
            f"mergekit moves whole tensors, but this patch moves parts of {sliced[0]} and {len(sliced) - 1} others. "
            "Use `apply`, which writes the full model."
        )
    places = stored_tensors(Checkpoint(teacher))
    for entry in entries:
        if entry.tensor not in places or digest(places[entry.tensor].read()) != entry.after:
            raise ArtifactError(
                f"{entry.tensor}: what the patch moves is not what {teacher} holds (another teacher, another dtype, "
                "components, or added instead of replaced). A recipe can only copy tensors. Use `apply`, which writes "
                "the full model."
            )
    names = [entry.tensor for entry in entries]
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "dtype": _one_dtype(artifact),
        "parameters": {"normalize": False},
        "models": [
            {"model": str(model), "parameters": {"weight": [*_filters(names, 0.0), {"value": 1.0}]}},
            {"model": str(teacher), "parameters": {"weight": [*_filters(names, 1.0), {"value": 0.0}]}},
        ],
        "tokenizer": {"source": str(model)},
    }
    write_whole(out, yaml.safe_dump(recipe, sort_keys=False))


def peft_adapter(artifact: Artifact, model: Path, out: Path) -> None:
    """Write a PEFT adapter folder that holds every module that the patch touches, whole, as in the patched model.

    PEFT has no adapter that only replaces modules, so a LoRA of rank 1 that is all zeros carries them. The folder is
    larger than the patch, because it holds whole modules.

    Raises:
        ArtifactError: PEFT has no name for a moved tensor, because the loaded model keeps it under another name, or
            *model* is not the student that the patch was made for.
        SourceError: *model* is no whole checkpoint of safetensors.
        HarnessError: *out* exists, or the disk is full or may not be written to.
    """
    refuse_existing(out)
    require(artifact, model, State.CLEAN)
    checkpoint = Checkpoint(model)
    places = stored_tensors(checkpoint)
    entries = {entry.tensor: entry for entry in artifact.manifest.entries}
    units = enumerate_units(checkpoint.config, checkpoint.shapes)
    kept = {part.disk.name for unit in units for part in unit.parts if part.disk.name == part.memory.name}
    modules = sorted({name.rpartition(".")[0] for name in entries})
    if elsewhere := [name for name in entries if name not in kept or not name.endswith((".weight", ".bias"))]:
        raise ArtifactError(
            f"{elsewhere[0]}: has another name in the loaded model, so PEFT has no name for it. Use `apply`."
        )
    carrier = next((unit for unit in units if unit.role in ("o", "down") and not _touched(unit, modules)), None)
    if carrier is None:
        raise ArtifactError(
            "PEFT needs one linear layer that the patch does not touch, and there is none. Use `apply`."
        )
    tensors: dict[str, torch.Tensor] = {}
    for name, place in places.items():
        if name.rpartition(".")[0] in modules:
            bits = place.read()
            if entry := entries.get(name):
                bits = with_channels(bits, entry.along, entry.moved, artifact.new(entry))
            flat = torch.from_numpy(bits.reshape(-1).view("u1").copy()).view(checkpoint.dtype(name))
            tensors[f"base_model.model.{name}"] = flat.reshape(bits.shape)
    spot = carrier.parts[0].disk
    stem, dtype = spot.name.removesuffix(".weight"), checkpoint.dtype(spot.name)
    tensors[f"base_model.model.{stem}.lora_A.weight"] = torch.zeros(1, spot.shape[spot.axis], dtype=dtype)
    tensors[f"base_model.model.{stem}.lora_B.weight"] = torch.zeros(spot.shape[1 - spot.axis], 1, dtype=dtype)
    config: Mapping[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": artifact.manifest.student.repository or model.name,
        "revision": artifact.manifest.student.revision,
        "r": 1,
        "lora_alpha": 1,
        "bias": "none",
        "fan_in_fan_out": spot.axis == 0,
        "target_modules": [stem],
        "modules_to_save": modules,
        "inference_mode": True,
    }
    with whole_folder(out, replace=False) as folder:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _touched(unit: Unit, modules: Sequence[str]) -> bool:
    """Return whether *unit* cannot carry the zero LoRA: it is in one of *modules*, or has another name in memory."""
    spot = unit.parts[0]
    return spot.disk.name.rpartition(".")[0] in modules or spot.disk.name != spot.memory.name


def _filters(names: list[str], value: float) -> list[dict[str, Any]]:
    """Return mergekit's filters that give the tensors of these *names* the weight *value*."""
    # A filter matches any part of a name, and "1.mlp" would match layer 11: the whole name cannot.
    return [{"filter": name, "value": value} for name in names]


def _one_dtype(artifact: Artifact) -> str:
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    dtypes = sorted({entry.dtype for entry in artifact.manifest.entries})
    if len(dtypes) > 1 or dtypes[0] not in names:
        raise ArtifactError(
            f"mergekit writes one of {', '.join(names.values())}, this patch holds {', '.join(dtypes)}. Use `apply`."
        )
    return names[dtypes[0]]
