"""Check that two checkpoints descend from one model: refuse what makes a transplant meaningless, name what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from safety_harness.errors import LineageError, SourceError, remark
from safety_harness.files import sha256_file
from safety_harness.gate.records import Lineage
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from safety_harness.weights.units import Unit

# Fine-tunes of one ancestor have a median cosine above 0.9. Models that were trained apart lie near 0.
MIN_MEDIAN_COSINE = 0.5

# If one of these differs, equal weights mean different things.
_HEAD_SETTINGS = ("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads", "head_dim")
# If one of these differs, the meaning of the weights shifts. A fine-tune may have changed it on purpose. They are named
# first; all else that a config of this architecture declares is compared as well.
_SHIFTING_SETTINGS = (
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "rope_theta",
    "rope_parameters",
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
# What training and serving read, and no answer depends on.
NO_MEANING = re.compile(
    r"_.*|.*(?:dropout|pdrop|_token_id|aux_loss_coef|jitter_noise)|output_router_logits|initializer_range|use_cache|"
    r"pretraining_tp|init_device|is_decoder|summary_.*|max_position_embeddings|max_seq_len|n_positions"
)
# Values of rotary settings that stand for those that are left out, and an older name of rope_type.
_ROTARY_DEFAULTS = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "partial_rotary_factor": 1}
_OLD_ROTARY_NAME = "type"


def check_lineage(student: Checkpoint, teacher: Checkpoint, units: tuple[Unit, ...]) -> Lineage:
    """Refuse a teacher whose weights would mean nothing in the student, and warn of what shifts their meaning.

    Raises:
        LineageError: the teacher has another architecture, another shape or other heads. Or the median cosine of the
            units' tensors is too low for models that descend from one ancestor.
        SourceError: transformers cannot read one of the configs.
    """
    check_shapes(student, teacher, units)
    settings, teacher_settings = _meaning(student), _meaning(teacher)
    for name in _HEAD_SETTINGS:
        known = None not in (settings.get(name), teacher_settings.get(name))
        if known and (difference := _difference(name, settings, teacher_settings)) is not None:
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
    others = sorted({*settings, *teacher_settings} - {*_SHIFTING_SETTINGS, *_HEAD_SETTINGS})
    names_of_settings = [*_SHIFTING_SETTINGS, *(name for name in others if not NO_MEANING.fullmatch(name))]
    differs = [
        difference
        for name in names_of_settings
        if (difference := _difference(name, settings, teacher_settings)) is not None
    ]
    differs += [
        file for file in ("tokenizer.json", "tokenizer.model") if _digest(student, file) != _digest(teacher, file)
    ]
    if differs:
        remark(f"{student.folder.name} and {teacher.folder.name}, which moves into it, differ in {'; '.join(differs)}.")
    return Lineage(median=median, lowest=lowest, lowest_tensor=lowest_tensor, differs=tuple(differs))


def _meaning(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return what the config of the part that answers means: defaults filled in, and older names as they are today.

    Raises:
        SourceError: transformers cannot read the config.
    """
    try:
        config = CONFIG_MAPPING[checkpoint.config["model_type"]].from_dict(dict(checkpoint.config)).get_text_config()
        known = type(config)().to_dict().keys() - PreTrainedConfig().to_dict().keys()
    except Exception as error:  # transformers and its validators raise many kinds of errors for a bad config
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise SourceError(
            f"{checkpoint.folder / 'config.json'}: transformers cannot read it ({type(error).__name__}: {reason})."
        ) from error
    settings = {name: value for name, value in config.to_dict().items() if name in known or name in _HEAD_SETTINGS}
    rotary = settings.get("rope_parameters")
    if isinstance(rotary, Mapping):
        settings["rope_theta"] = rotary.get("rope_theta")
        settings["rope_parameters"] = _rotary(rotary)
    return settings


def _rotary(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return rotary *settings*, maybe one set for each kind of layer, without what is a default."""
    return {
        name: _rotary(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if value is not None and name != _OLD_ROTARY_NAME and value != _ROTARY_DEFAULTS.get(name)
    }


def _difference(name: str, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str | None:
    """Return the two values of a setting in words, or None if they are equal."""
    value, teacher_value = student.get(name), teacher.get(name)
    return None if value == teacher_value else f"{name} ({value}, of the teacher {teacher_value})"


def _digest(checkpoint: Checkpoint, file: str) -> str | None:
    """Return the sha256 of one of a checkpoint's files, or None if it has no such file."""
    path = checkpoint.folder / file
    return sha256_file(path) if path.exists() else None


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the cosine of two tensors, which is 0 if one of them is all zeros, as biases of some models are."""
    return torch.nn.functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0).item()
