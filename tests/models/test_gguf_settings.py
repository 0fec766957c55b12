"""What a GGUF file says of its model arrives in the checkpoint that is made of it, or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from safety_harness.errors import SourceError
from safety_harness.models.convert import from_gguf
from safety_harness.models.gguf_settings import carry_over
from safety_harness.models.load import load
from tests.builders import make_config, make_model
from tests.models.byte_llama import TEMPLATE, VOCABULARY

IDS = torch.arange(40).reshape(2, 20) + 3
# Our name of an architecture -> llama.cpp's.
NAMES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3_text": "gemma3",
         "phi3": "phi3", "qwen3_moe": "qwen3moe", "falcon-shared": "falcon", "gpt2": "gpt2"}  # fmt: skip


def write(
    model: Any,
    architecture: str,
    file: Path,
    says: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Store a model as GGUF in float32, with what else the file *says*, and *without* or with *more* tensors."""
    name = NAMES[architecture]
    writer = gguf.GGUFWriter(file, name)
    for key, value in {**_settings(model.config, name), **(says or {})}.items():
        {float: writer.add_float32, int: writer.add_uint32, str: writer.add_string, bool: writer.add_bool,
         list: writer.add_array}[type(value)](key, value)  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["a b"])
    writer.add_chat_template(TEMPLATE)
    tensors = {key: value for key, value in _tensors(model, name).items() if key not in without}
    for key, array in {**tensors, **(more or {})}.items():
        writer.add_tensor(key, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _settings(config: Any, name: str) -> dict[str, Any]:
    """Return what llama.cpp's converter says of a model."""
    heads, rotary = config.num_attention_heads, getattr(config, "rope_parameters", None) or {}
    own: dict[str, Any] = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "attention.head_count": heads, "vocab_size": len(VOCABULARY),
        "feed_forward_length": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 128,
    }  # fmt: skip
    if hasattr(config, "rms_norm_eps"):
        own["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
    else:
        own["attention.layer_norm_epsilon"] = config.layer_norm_epsilon
    if name != "gpt2":
        own["attention.head_count_kv"] = getattr(config, "num_key_value_heads", None) or heads
    if rotary:
        own["rope.freq_base"] = rotary.get("full_attention", rotary)["rope_theta"]
    if getattr(config, "head_dim", None):
        own["attention.key_length"] = own["attention.value_length"] = config.head_dim
    if name.startswith("gemma"):
        own["attention.sliding_window"] = config.sliding_window
    if name == "gemma2":
        own["attn_logit_softcapping"] = config.attn_logit_softcapping
        own["final_logit_softcapping"] = config.final_logit_softcapping
    if name == "gemma3":
        own["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in config.layer_types]
    if name == "qwen3moe":
        own |= {"expert_count": config.num_experts, "expert_used_count": config.num_experts_per_tok}
        own |= {
            "expert_feed_forward_length": config.moe_intermediate_size,
            "expert_weights_norm": config.norm_topk_prob,
        }
    ids = {f"tokenizer.ggml.{kind}_token_id": token for kind, token in {"bos": 1, "eos": 2, "padding": 2}.items()}
    return {f"{name}.{key}": value for key, value in own.items()} | ids


def _tensors(model: Any, name: str) -> dict[str, np.ndarray]:
    """Return a model's tensors by llama.cpp's names and in its order."""
    config, stored = model.config, {}
    known = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[name], config.num_hidden_layers)
    for ours, tensor in model.state_dict().items():
        array = tensor.numpy()
        if ours == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if "experts.gate_up_proj" in ours:
            for kind, half in zip(("gate", "up"), np.split(array, 2, axis=1), strict=True):
                stored[f"blk.{ours.split('.')[2]}.ffn_{kind}_exps.weight"] = half
            continue
        if name == "llama" and ("q_proj" in ours or "k_proj" in ours):
            heads = config.num_attention_heads if "q_proj" in ours else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if name.startswith("gemma") and ours.endswith("norm.weight"):
            array = array + 1
        if name == "gpt2" and array.ndim == 2 and ".h." in ours:
            array = array.T
        kind = ".bias" if ours.endswith(".bias") else ".weight"
        stored[names.get_name(ours.removesuffix(kind)) + kind] = array
    return stored


def read(model: Any, architecture: str, root: Path, **options: Any) -> Any:
    """Write a model as GGUF, and return what is loaded of it."""
    from_gguf(write(model, architecture, root / "model.gguf", **options), root / "out")
    return load(root / "out", "float32").model


@torch.inference_mode()
def same(one: Any, other: Any) -> bool:
    """Return whether two models compute the same but for rounding to bfloat16."""
    expected, found = one(input_ids=IDS).logits, other(input_ids=IDS).logits
    return bool((found - expected).abs().mean() < expected.abs().mean() / 10)


def rotary(**settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10_000.0, **settings}}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
# The architecture, settings of the model, and what the file says of them.
CARRIED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{f"{name} as it is": (name, {}, {}) for name in NAMES},
    "yarn": (
        "qwen2", rotary(**YARN), {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0,
                                  "qwen2.rope.scaling.original_context_length": 16},
    ),
    "yarn's edges": (
        "llama", rotary(**YARN, beta_fast=8.0, beta_slow=2.0),
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0, "llama.rope.scaling.yarn_beta_fast": 8.0,
         "llama.rope.scaling.yarn_beta_slow": 2.0, "llama.rope.scaling.original_context_length": 16},
    ),
    "linear scaling": (
        "llama", rotary(rope_type="linear", factor=4.0),
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    ),
    "linear scaling of old": ("llama", rotary(rope_type="linear", factor=4.0), {"llama.rope.scale_linear": 4.0}),
    "linear scaling of whole layers": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                             "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}},
        {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0},
    ),
    "softcapping": ("gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, {}),
    "a window": ("phi3", {"sliding_window": 8}, {"phi3.attention.sliding_window": 8}),
    "a pattern of windows": (
        "gemma3_text", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        {"gemma3.attention.sliding_window_pattern": 2},
    ),
    "a width of heads": ("qwen3", {"head_dim": 16}, {}),
    "other words": ("llama", {}, {"general.quantized_by": "me", "quantize.imatrix.file": "x", "split.count": 1,
                                  "llama.tensor_data_layout": "Meta AI original pth", "llama.attention.causal": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", CARRIED)
def test_what_a_gguf_says_arrives_in_the_checkpoint(tmp_path: Path, case: str) -> None:
    architecture, settings, says = CARRIED[case]
    model = make_model(architecture, vocab_size=len(VOCABULARY), **settings)
    assert same(model, read(model, architecture, tmp_path, says=says))


def test_factors_of_llama_3_become_its_settings(tmp_path: Path) -> None:
    settings = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_theta": 500_000.0}  # fmt: skip
    model = make_model("llama", vocab_size=len(VOCABULARY), head_dim=16, rope_parameters=settings)
    plain = 500_000.0 ** -(np.arange(0, 16, 2) / 16)
    factors = plain / model.model.rotary_emb.inv_freq.numpy()
    assert factors.max() == pytest.approx(8.0)
    found = read(model, "llama", tmp_path, more={"rope_freqs.weight": factors})
    assert found.config.rope_parameters == settings


@pytest.mark.parametrize(("own_head", "tied"), [(True, False), (False, True)])
def test_a_head_of_its_own_stays_one(tmp_path: Path, own_head: bool, tied: bool) -> None:
    """Give Falcon, whose head transformers takes for tied in every file, another head."""
    model = make_model("falcon-shared", vocab_size=len(VOCABULARY), tied=not own_head)
    found = read(model, "falcon-shared", tmp_path)
    assert found.config.tie_word_embeddings is tied
    assert same(model, found)


@pytest.mark.parametrize(("layers", "scalar"), [(46, 8), (26, 16)])
def test_attention_of_the_largest_gemma_is_scaled_by_the_model(layers: int, scalar: int) -> None:
    """Expect the scale that llama.cpp knows by the number of layers, and that no key says."""
    config = make_config("gemma2", head_dim=16)
    said = {"general.architecture": "gemma2", "gemma2.block_count": layers}
    carry_over(Path("gemma.gguf"), said, [], config)
    assert config.query_pre_attn_scalar == scalar


def test_every_token_that_ends_an_answer_is_kept(tmp_path: Path) -> None:
    ends = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 6}
    found = read(make_model("llama", vocab_size=len(VOCABULARY)), "llama", tmp_path, says=ends)
    assert found.generation_config.eos_token_id == [2, 5, 6]


ROW = np.ones(32)
Case = tuple[str, dict[str, Any], str]
REFUSED: dict[str, Case] = {
    "a part": ("llama", {"says": {"split.no": 0, "split.count": 2}}, r"is part 1 of 2.*llama-gguf-split --merge"),
    "an adapter": ("llama", {"says": {"general.type": "adapter"}}, "is no model"),
    "a layer more": ("llama", {"more": {"blk.7.attn_norm.weight": ROW}}, r"1 of its 30 .*'blk\.7\.attn_norm"),
    "a bias": ("llama", {"more": {"blk.0.attn_q.bias": ROW}}, r"'blk\.0\.attn_q\.bias' first"),
    "heads for further tokens": ("llama", {"more": {"blk.0.nextn.eh_proj.weight": ROW}}, "nextn"),
    "a tensor less": ("llama", {"without": ["blk.1.ffn_up.weight"]}, r"lacks the tensor '.*layers\.1\.mlp\.up_proj"),
    "an expert's half less": ("qwen3_moe", {"without": ["blk.1.ffn_down_exps.weight"]}, "lacks the tensor"),
    "no embedding": ("llama", {"without": ["token_embd.weight"]}, "lacks the tensor"),
    "another width": ("llama", {"says": {"llama.feed_forward_length": 40}}, r"has the shape \(\d+, \d+\), and"),
    "other factors": ("llama", {"more": {"rope_freqs.weight": np.arange(1, 5)}}, r"rope_freqs\.weight scales"),
    "factors by length": ("phi3", {"more": {"rope_factors_long.weight": np.ones(4)}}, "rope_factors_long"),
    "longrope": ("phi3", {"says": {"phi3.rope.scaling.type": "longrope"}}, r"rope\.scaling\.type = 'longrope'"),
    "a factor of attention": ("llama", {"says": {"llama.rope.scaling.attn_factor": 1.2}}, "attn_factor = 1.2"),
    "half of a head": ("phi3", {"says": {"phi3.rope.dimension_count": 4}}, r"phi3\.rope\.dimension_count = 4, which"),
    "a window of no layer": ("qwen2", {"says": {"qwen2.attention.sliding_window": 8}}, "sliding_window = 8, which"),
    "a window of no model": ("llama", {"says": {"llama.attention.sliding_window": 8}}, "sliding_window = 8, which"),
    "another local base": ("gemma3_text", {"says": {"gemma3.rope.freq_base_swa": 77.0}}, "freq_base_swa = 77.0, which"),
    "a scale": ("llama", {"says": {"llama.logit_scale": 2.0}}, r"llama\.logit_scale = 2\.0, which would be lost"),
    "attention both ways": ("llama", {"says": {"llama.attention.causal": False}}, "causal = False, which"),
    "heads by layer": ("llama", {"says": {"llama.attention.head_count_kv": [2, 2, 1]}}, "head_count_kv|cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_of_a_gguf_is_named(tmp_path: Path, case: str) -> None:
    architecture, options, message = REFUSED[case]
    model = make_model(architecture, vocab_size=len(VOCABULARY))
    with pytest.raises(SourceError, match=message) as caught:
        read(model, architecture, tmp_path, **options)
    assert str(tmp_path / "model.gguf") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
