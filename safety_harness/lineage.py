"""Do two checkpoints descend from one model? What differs is named; what makes a transplant meaningless is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safety_harness.errors import LineageError
from safety_harness.files import sha256_file
from safety_harness.units import Unit
from safety_harness.weights import Checkpoint, check_shapes

# Fine-tunes of one ancestor stay above .9 here; models trained apart lie near 0 (their bases differ).
MINIMAL_COSINE = 0.5

# With another value of these, the same numbers mean something else.
_DECISIVE = (
    ("num_attention_heads", "n_head", "n_heads"),
    ("num_key_value_heads", "num_kv_heads"),
    ("head_dim",),
    ("hidden_act", "hidden_activation", "activation_function", "activation"),
)
# These shift what they mean, and a fine-tune may have changed them knowingly.
_TELLING = (
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
    ours, theirs = (checkpoint.config.get("text_config", checkpoint.config) for checkpoint in (student, teacher))
    for names in _DECISIVE:
        for name in names:
            if (said := _difference(name, ours, theirs)) is not None:
                raise LineageError(
                    f"{student.folder.name} and {teacher.folder.name} are not of one build: {said}. The teacher's "
                    "numbers would mean something else in the student."
                )
    found = [(_cosine(student.tensor(name), teacher.tensor(name)), name) for unit in units for name in unit.tensors]
    found.sort()
    (median, _), (lowest, where) = found[len(found) // 2], found[0]
    if median < MINIMAL_COSINE:
        raise LineageError(
            f"{student.folder.name} and {teacher.folder.name} do not descend from one model: the median cosine of "
            f"their tensors is {median:.2f} (below {MINIMAL_COSINE}). Choose a teacher of the same lineage."
        )
    differs = [said for name in _TELLING if (said := _difference(name, ours, theirs)) is not None]
    if _tokenizer(student) != _tokenizer(teacher):
        differs.append("their tokenizers")
    if differs:
        warnings.warn(
            f"{student.folder.name} and its teacher {teacher.folder.name} differ in {'; '.join(differs)}.", stacklevel=2
        )
    return Lineage(median, lowest, where, tuple(differs))


def _difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """A setting in which both configs have a value, and not the same."""
    if name not in ours or name not in theirs or ours[name] == theirs[name]:
        return None
    return f"{name} ({ours[name]}, of the teacher {theirs[name]})"


def _tokenizer(checkpoint: Checkpoint) -> str | None:
    file = checkpoint.folder / "tokenizer.json"
    return sha256_file(file) if file.exists() else None


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0).item()
