"""Do two checkpoints descend from one model? What differs is named; what makes a transplant meaningless is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safety_harness.errors import LineageError
from safety_harness.files import sha256_file
from safety_harness.weights.architectures import answering
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from safety_harness.weights.units import Unit

# Fine-tunes of one ancestor stay above .9 here; models trained apart lie near 0 (their bases differ).
MINIMAL_COSINE = 0.5

# With another number of these, the same weights mean something else.
_DECISIVE = ("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads", "head_dim")
# These shift what they mean, and a fine-tune may have changed them knowingly.
_TELLING = (
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


@dataclass(frozen=True)
class Lineage:
    """How near two checkpoints are: cosines of the tensors that may move, and in words what else differs."""

    median: float
    lowest: float
    lowest_tensor: str
    differs: tuple[str, ...]


def check_lineage(student: Checkpoint, teacher: Checkpoint, units: tuple[Unit, ...]) -> Lineage:
    """Refuse a teacher whose weights would mean nothing in the student, and warn of what shifts their meaning.

    Raises:
        LineageError: another architecture, another shape, other heads or another activation, or weights that do not
            descend from one ancestor (median cosine of the units' tensors).
    """
    check_shapes(student, teacher, units)
    ours, theirs = _settings(student), _settings(teacher)
    for name in _DECISIVE:
        if (said := _difference(name, ours, theirs)) is not None:
            raise LineageError(
                f"{student.folder.name} and {teacher.folder.name} are not of one build: {said}. The teacher's numbers "
                "would mean something else in the student."
            )
    names = dict.fromkeys(name for unit in units for name in unit.tensors)
    found = sorted((cosine, name) for name in names if (cosine := _cosine(student.tensor(name), teacher.tensor(name))))
    if not found:
        raise LineageError(f"{student.folder.name} or {teacher.folder.name} holds nothing but zeros where units are.")
    (median, _), (lowest, where) = found[len(found) // 2], found[0]
    if median < MINIMAL_COSINE:
        raise LineageError(
            f"{student.folder.name} and {teacher.folder.name} do not descend from one model: the median cosine of "
            f"their tensors is {median:.2f} (below {MINIMAL_COSINE}). Choose a teacher of the same lineage."
        )
    differs = [said for name in _TELLING if (said := _difference(name, ours, theirs)) is not None]
    differs += [
        file for file in ("tokenizer.json", "tokenizer.model") if _digest(student, file) != _digest(teacher, file)
    ]
    if differs:
        warnings.warn(
            f"{student.folder.name} and {teacher.folder.name}, which moves into it, differ in {'; '.join(differs)}.",
            stacklevel=2,
        )
    return Lineage(median, lowest, where, tuple(differs))


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What its config says of the part that answers, in the words of today: rotary settings used to stand alone."""
    settings = dict(answering(checkpoint.config))
    rotary = settings.pop("rope_parameters", None)
    if isinstance(rotary, Mapping):
        settings.setdefault("rope_theta", rotary.get("rope_theta"))
        settings["rope_parameters"] = {key: value for key, value in rotary.items() if key != "rope_theta"}
    return settings


def _difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """A setting of which both configs give a value, and not the same."""
    own, other = ours.get(name), theirs.get(name)
    return None if own is None or other is None or own == other else f"{name} ({own}, of the teacher {other})"


def _digest(checkpoint: Checkpoint, file: str) -> str | None:
    path = checkpoint.folder / file
    return sha256_file(path) if path.exists() else None


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """0 also where either is all zeros, as biases of some models are."""
    return torch.nn.functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0).item()
