"""Check that two checkpoints descend from one model: refuse what makes a transplant meaningless, name what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from safety_harness.errors import LineageError, remark
from safety_harness.files import sha256_file
from safety_harness.gate.records import Lineage
from safety_harness.weights.architectures import answering
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from safety_harness.weights.units import Unit

# Fine-tunes of one ancestor have a median cosine above 0.9. Models that were trained apart lie near 0.
MIN_MEDIAN_COSINE = 0.5

# If one of these differs, equal weights mean different things.
_HEAD_SETTINGS = ("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads", "head_dim")
# If one of these differs, the meaning of the weights shifts. A fine-tune may have changed it on purpose.
_SHIFTING_SETTINGS = (
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "sliding_window",
    "layer_types",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "tie_word_embeddings",
    "vocab_size",
)


def check_lineage(student: Checkpoint, teacher: Checkpoint, units: tuple[Unit, ...]) -> Lineage:
    """Refuse a teacher whose weights would mean nothing in the student, and warn of what shifts their meaning.

    Raises:
        LineageError: the teacher has another architecture, another shape or other heads. Or the median cosine of the
            units' tensors is too low for models that descend from one ancestor.
    """
    check_shapes(student, teacher, units)
    student_settings, teacher_settings = _settings(student), _settings(teacher)
    for name in _HEAD_SETTINGS:
        if (difference := _difference(name, student_settings, teacher_settings)) is not None:
            raise LineageError(
                f"{student.folder.name} and {teacher.folder.name} are not of one build: {difference}. The teacher's "
                "numbers would mean something else in the student."
            )
    names = dict.fromkeys(name for unit in units for name in unit.tensors)
    cosines = [(_cosine(student.tensor(name), teacher.tensor(name)), name) for name in names]
    # Neither 0, of a tensor of zeros, nor NaN, of numbers that the first answer will refuse.
    ranked = sorted((cosine, name) for cosine, name in cosines if abs(cosine) > 0)
    if not ranked:
        raise LineageError(f"{student.folder.name} or {teacher.folder.name} holds nothing but zeros where units are.")
    (median, _), (lowest, lowest_tensor) = ranked[len(ranked) // 2], ranked[0]
    if median < MIN_MEDIAN_COSINE:
        raise LineageError(
            f"{student.folder.name} and {teacher.folder.name} do not descend from one model: the median cosine of "
            f"their tensors is {median:.2f} (below {MIN_MEDIAN_COSINE}). Choose a teacher of the same lineage."
        )
    differs = [
        difference
        for name in _SHIFTING_SETTINGS
        if (difference := _difference(name, student_settings, teacher_settings)) is not None
    ]
    differs += [
        file for file in ("tokenizer.json", "tokenizer.model") if _digest(student, file) != _digest(teacher, file)
    ]
    if differs:
        remark(f"{student.folder.name} and {teacher.folder.name}, which moves into it, differ in {'; '.join(differs)}.")
    return Lineage(median=median, lowest=lowest, lowest_tensor=lowest_tensor, differs=tuple(differs))


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the config of the part that answers, with the rotary settings where transformers now keeps them.

    ``rope_theta`` stood alone in older configs, and is compared as if it still did.
    """
    settings = dict(answering(checkpoint.config))
    rotary = settings.pop("rope_parameters", None)
    if isinstance(rotary, Mapping):
        settings.setdefault("rope_theta", rotary.get("rope_theta"))
        settings["rope_parameters"] = {key: value for key, value in rotary.items() if key != "rope_theta"}
    return settings


def _difference(name: str, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str | None:
    """Return the two values of a setting in words, or None if they are equal or a config leaves the setting out."""
    value, teacher_value = student.get(name), teacher.get(name)
    if value is None or teacher_value is None or value == teacher_value:
        return None
    return f"{name} ({value}, of the teacher {teacher_value})"


def _digest(checkpoint: Checkpoint, file: str) -> str | None:
    """Return the sha256 of one of a checkpoint's files, or None if it has no such file."""
    path = checkpoint.folder / file
    return sha256_file(path) if path.exists() else None


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the cosine of two tensors, which is 0 if one of them is all zeros, as biases of some models are."""
    return torch.nn.functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0).item()
