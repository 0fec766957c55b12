"""A patch for other tools: a mergekit recipe, a PEFT adapter. For all others ``apply`` writes the full model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from safety_harness.artifact.folder import Artifact
from safety_harness.artifact.stored import Raw, stored_tensors, with_channels
from safety_harness.errors import ArtifactError
from safety_harness.files import whole_folder, write_whole
from safety_harness.weights import Checkpoint


def mergekit(artifact: Artifact, model: Path, teacher: Path, out: Path) -> None:
    """Write a mergekit recipe that takes the moved tensors from *teacher* and all others from *model*.

    Raises:
        ArtifactError: the patch moves parts of tensors, or adds instead of replacing: a recipe can say neither.
    """
    manifest = artifact.manifest
    if sliced := [entry.tensor for entry in manifest.entries if entry.operation == "replace_slice"]:
        raise ArtifactError(
            f"mergekit moves whole tensors, and this patch a part of {sliced[0]} (and of {len(sliced) - 1} others). "
            "Use `apply`, which writes the full model."
        )
    if manifest.search.transfer == "add":
        raise ArtifactError(
            "This patch adds what the teacher learnt to the student's numbers; a recipe of moved tensors cannot say "
            "that. Use `apply`, which writes the full model."
        )
    names = [entry.tensor for entry in manifest.entries]
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
    """Write a PEFT adapter folder that holds every touched module whole, as the patched model has it.

    PEFT has no adapter that only replaces: one LoRA of rank 1 that is zero carries the modules. It holds whole modules,
    so it is larger than the patch.

    Raises:
        ArtifactError: a moved tensor is no weight or bias of a module.
        SourceError: *model* is no whole checkpoint of safetensors.
    """
    checkpoint = Checkpoint(model)
    places = stored_tensors(checkpoint)
    modules = sorted({_module(entry.tensor) for entry in artifact.manifest.entries})
    entries = {entry.tensor: entry for entry in artifact.manifest.entries}
    tensors: dict[str, torch.Tensor] = {}
    for name, place in places.items():
        if name.rpartition(".")[0] in modules:
            bits = place.read()
            if entry := entries.get(name):
                bits = with_channels(bits, entry.along, entry.moved, artifact.new(entry))
            tensors[f"base_model.model.{name}"] = _tensor(bits, checkpoint.tensor(name))
    carrier = next((name for name in sorted(places) if _carries(name, places[name].shape, modules)), None)
    if carrier is None:
        raise ArtifactError("PEFT needs one linear layer that the patch leaves alone, and there is none. Use `apply`.")
    rows, columns = places[carrier].shape
    stem = f"base_model.model.{carrier.removesuffix('.weight')}"
    dtype = checkpoint.tensor(carrier).dtype
    tensors[f"{stem}.lora_A.weight"] = torch.zeros(1, columns, dtype=dtype)
    tensors[f"{stem}.lora_B.weight"] = torch.zeros(rows, 1, dtype=dtype)
    config: Mapping[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": artifact.manifest.student.repository or model.name,
        "revision": artifact.manifest.student.revision,
        "r": 1,
        "lora_alpha": 1,
        "bias": "none",
        "target_modules": [carrier.removesuffix(".weight")],
        "modules_to_save": modules,
        "inference_mode": True,
    }
    with whole_folder(out) as folder:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _filters(names: list[str], value: float) -> list[dict[str, Any]]:
    # A filter matches any part of a name, and "1.mlp" would match layer 11: the whole name cannot.
    return [{"filter": name, "value": value} for name in names]


def _one_dtype(artifact: Artifact) -> str:
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    found = sorted({entry.dtype for entry in artifact.manifest.entries})
    if len(found) > 1 or found[0] not in names:
        raise ArtifactError(f"mergekit writes one of {', '.join(names.values())}; this patch holds {', '.join(found)}.")
    return names[found[0]]


def _module(tensor: str) -> str:
    module, _, kind = tensor.rpartition(".")
    if kind not in ("weight", "bias"):
        raise ArtifactError(
            f"{tensor}: is no weight or bias of a module, which is all that PEFT can save. Use `apply`."
        )
    return module


def _carries(name: str, shape: tuple[int, ...], taken: list[str]) -> bool:
    """Whether this is the weight of a linear layer that the patch leaves alone."""
    linear = re.fullmatch(r".*\.(self_attn|mlp|attn)\.[\w]+\.weight", name)
    return bool(linear) and len(shape) == 2 and name.removesuffix(".weight") not in taken


def _tensor(bits: Raw, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(bits.reshape(-1).view("u1").copy()).view(like.dtype).reshape(like.shape)
