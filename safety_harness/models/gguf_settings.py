"""Carry over what a GGUF file says of its model and transformers does not read, and refuse what cannot be carried.

llama.cpp's keys have the architecture as their first part: ``llama.rope.freq_base``. Each of them arrives in the
config, or is refused by name. Keys of other kinds (``general.``, ``tokenizer.``) do not change what weights compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.integrations.gguf import GgufHeader, load_gguf_state_dict
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from safety_harness.errors import SourceError

# llama.cpp's key -> the names that it has in configs of transformers, of which a config has one.
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size", "ffn_hidden_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size", "intermediate_size"),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
}
# Values with which a key says nothing; None stands for any value.
_SILENT: Mapping[str, Any] = {
    "attention.causal": True,
    "pooling_type": 0,
    "rope.scaling.finetuned": None,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
    "tensor_data_layout": None,
}
_SCALING = frozenset(
    f"rope.scaling.{key}"
    for key in ("type", "factor", "original_context_length", "attn_factor", "yarn_beta_fast", "yarn_beta_slow")
) | {"rope.scale_linear"}
_ROTARY_FACTORS = "rope_freqs.weight"
# Gemma's models of this many layers scale attention by the width of the model, not of a head.
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}


def carry_over(gguf: Path, said: Mapping[str, Any], tensors: Sequence[str], config: Any) -> None:
    """Put what the metadata of a GGUF file *said* into the *config* that transformers made of it.

    Raises:
        SourceError: the file is a part of a model or no model, or says something that the config cannot say.
    """
    if int(said.get("split.count", 1)) > 1:
        raise SourceError(
            f"{gguf}: is part {int(said.get('split.no', 0)) + 1} of {said['split.count']}, and the parts are read as "
            "one file only. Join them (`llama-gguf-split --merge FIRST-PART WHOLE.gguf`), and name the whole file."
        )
    if said.get("general.type", "model") != "model":
        raise SourceError(f"{gguf}: is no model (its general.type is {said['general.type']!r}). Name a model's file.")
    architecture = str(said["general.architecture"])
    prefix = f"{architecture}."
    own = {key.removeprefix(prefix): value for key, value in said.items() if key.startswith(prefix)}
    for key in sorted(own, key=lambda key: key not in _PLAIN):  # the plain ones first, on which others depend
        if not _carried(key, own[key], config):
            raise SourceError(
                f"{gguf}: says {prefix}{key} = {own[key]!r:.60}, which would be lost in conversion. Take the "
                "safetensors version of the model."
            )
    if scaling := _scaling(gguf, own, config):
        _rotary(config).update(scaling)
    if architecture in _GEMMA_27B:
        wide = own.get("block_count") == _GEMMA_27B[architecture]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if wide else config.head_dim
    if _ROTARY_FACTORS in tensors:
        _carry_factors(gguf, config)
    config.tie_word_embeddings = "output.weight" not in tensors


def _carried(key: str, value: Any, config: Any) -> bool:
    """Return whether *config* says what a key says, after a plain value was put into it."""
    if key in _SILENT:
        return _SILENT[key] in (None, value)
    if key in _PLAIN:
        name = next((name for name in _PLAIN[key] if hasattr(config, name)), None)
        if name is None or isinstance(value, list):  # of one value a layer
            return key in ("attention.key_length", "attention.value_length") and bool(value == _head_width(config))
        if getattr(config, name) != value:
            setattr(config, name, value)
        # Some configs hold a window that none of their layers uses.
        return name != "sliding_window" or "sliding_attention" in getattr(config, "layer_types", ["sliding_attention"])
    if key == "rope.freq_base":
        return bool(_rotary(config).get("rope_theta") == value)
    if key == "rope.freq_base_swa":
        return bool(_rotary(config, "sliding_attention").get("rope_theta") == value)
    if key == "rope.dimension_count":
        return bool(value == int(_head_width(config) * _rotary(config).get("partial_rotary_factor", 1.0)))
    if key == "attention.sliding_window_pattern":
        if not hasattr(config, "layer_types"):
            return False
        layers = range(1, config.num_hidden_layers + 1)
        slides = value if isinstance(value, list) else [layer % value != 0 for layer in layers]
        config.layer_types = ["sliding_attention" if slide else "full_attention" for slide in slides]
        return len(slides) == len(layers)
    return key in _SCALING


def _head_width(config: Any) -> int:
    """Return how many channels a head has."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rotary(config: Any, layers: str = "full_attention") -> dict[str, Any]:
    """Return the rotary settings of a config, for some *layers* if it has them by kind of layer."""
    settings: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    kind: dict[str, Any] = settings.get(layers, settings)
    return kind


def _scaling(gguf: Path, own: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return how the file scales rotary frequencies, in the words of transformers; empty if it does not."""
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    factor = float(own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0)))
    attention = float(own.get("rope.scaling.attn_factor", 1.0))
    if kind not in ("none", "linear", "yarn") or attention != 1.0:
        raise SourceError(
            f"{gguf}: scales rotary frequencies in a way that would be lost in conversion (rope.scaling.type = "
            f"{kind!r}, attn_factor = {attention}). Take the safetensors version of the model."
        )
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    prefix = "rope.scaling.yarn_"
    betas = {key.removeprefix(prefix): value for key, value in own.items() if key.startswith(f"{prefix}beta_")}
    length = own.get("rope.scaling.original_context_length", config.max_position_embeddings)
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length, **betas}


def account_for(gguf: Path, said: Mapping[str, Any], tensors: Sequence[str], model: Any) -> None:
    """Check that each of a GGUF file's *tensors* has a place in the *model* that was made of it, and is there once.

    Raises:
        SourceError: one is not. The message names the first.
    """
    processor = TENSOR_PROCESSORS.get(said["general.architecture"], TensorProcessor)(config={})
    places = get_gguf_hf_weights_map(model, processor).keys() | {_ROTARY_FACTORS}
    # Fused experts are no module, and have no suffix.
    if unused := [name for name in tensors if not places & {name, name.removesuffix(".weight")}]:
        raise SourceError(
            f"{gguf}: {len(unused)} of its {len(tensors)} tensors have no place in the model that transformers makes "
            f"of it, {unused[0]!r} first, and would be left out of what is measured. Take the safetensors version."
        )
    if len(set(tensors)) < len(tensors):
        twice = next(name for name in tensors if tensors.count(name) > 1)
        raise SourceError(f"{gguf}: holds the tensor {twice!r} twice. Fetch it again.")


def _carry_factors(gguf: Path, config: Any) -> None:
    """Put the factors of Llama 3's rotary frequencies, which GGUF keeps as a tensor, into *config*.

    Raises:
        SourceError: they are not those of Llama 3.1 and later.
    """
    factors = load_gguf_state_dict(GgufHeader.from_file(str(gguf)))[_ROTARY_FACTORS][...]
    rotary, width = _rotary(config), _head_width(config)
    rotary.update(rope_type="llama3", factor=float(factors.max()), low_freq_factor=1.0, high_freq_factor=4.0)
    rotary["original_max_position_embeddings"] = 8192
    plain = rotary["rope_theta"] ** -(torch.arange(0, width, 2) / width)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if scaled.shape != factors.shape or not torch.allclose(plain / scaled, factors.float(), rtol=1e-3):
        raise SourceError(
            f"{gguf}: {_ROTARY_FACTORS} scales rotary frequencies otherwise than Llama 3 does, which would be lost in "
            "conversion. Take the safetensors version of the model."
        )
