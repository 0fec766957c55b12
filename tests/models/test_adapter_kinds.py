"""Each kind of LoRA adapter is merged whole, or refused with what found no place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from safety_harness.errors import SourceError
from safety_harness.models.adapters import refuse_other_settings
from safety_harness.models.convert import merge_adapter
from safety_harness.models.load import load
from safety_harness.models.read import read_model
from tests.builders import make_model, make_tokenizer, save, vary

Pairs = Callable[[str, bool], tuple[Path, Path]]
IDS = torch.arange(40).reshape(2, 20) + 3


def make(base: Path, folder: Path, *, rows: int = 0, noise: float = 0.1, **settings: Any) -> Any:
    """Write an adapter of random numbers, and return base and adapter as peft computes with them."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows)
    defaults = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**{**defaults, **settings}))
    vary(adapted, 2, noise, only=lambda name: any(kind in name for kind in ("lora_", "modules_to", "trainable_tok")))
    adapted.save_pretrained(folder)
    return adapted.eval()


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS).logits
    return result


HEADS = ["embed_tokens", "lm_head"]
# The base, whether its head is tied, the adapter's settings, and whether the merged head is tied.
MERGED: dict[str, tuple[str, bool, dict[str, Any], bool]] = {
    "DoRA": ("llama", True, {"use_dora": True}, True),
    "rsLoRA": ("llama", True, {"use_rslora": True}, True),
    "ranks of their own": ("llama", True, {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"down_proj": 3}}, True),
    "some layers": ("llama", True, {"layers_to_transform": [0, 2]}, True),
    "biases": ("qwen2", True, {"bias": "all"}, True),
    "a head of its own": ("llama", False, {"target_modules": ["q_proj", "lm_head"]}, False),
    "whole modules": ("llama", False, {"modules_to_save": ["norm", *HEADS]}, False),
    "whole head and embedding that were tied": ("llama", True, {"modules_to_save": HEADS}, False),
    "a whole head that was tied": ("llama", True, {"modules_to_save": ["lm_head"]}, False),
    "a whole embedding that was tied": ("llama", True, {"modules_to_save": ["embed_tokens"]}, False),
    "rows of the embedding": ("llama", True, {"trainable_token_indices": [5, 6]}, True),
    "Conv1D": ("gpt2", True, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, True),
    "text of a multimodal model": ("gemma3", True, {}, True),
    "experts": ("mixtral", True, {"target_parameters": ["mlp.experts.gate_up_proj"]}, True),
}


@pytest.mark.parametrize("kind", MERGED)
def test_an_adapter_of_each_kind_is_merged_whole(pairs: Pairs, tmp_path: Path, kind: str) -> None:
    architecture, tied, settings, still_tied = MERGED[kind]
    base = pairs(architecture, tied)[0]
    adapted = make(base, tmp_path / "adapter", **settings)
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    merged = load(tmp_path / "out", "float32").model
    effect, rounding = logits(adapted) - logits(load(base, "float32").model), logits(merged) - logits(adapted)
    assert rounding.abs().mean() < effect.abs().mean() / 5
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is still_tied


def rename(old: str, new: str) -> Callable[[Path], None]:
    """Return a function that renames an adapter's tensors."""

    def renamed(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file({name.replace(old, new): value for name, value in load_file(file).items()}, file)

    return renamed


def keep(kept: Callable[[str], bool]) -> Callable[[Path], None]:
    """Return a function that drops an adapter's tensors but those whose name is *kept*."""

    def dropped(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file({name: value for name, value in load_file(file).items() if kept(name)}, file)

    return dropped


def to_int8(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: (value * 10).to(torch.int8) for name, value in load_file(file).items()}, file)


def say(**settings: Any) -> Callable[[Path], None]:
    """Return a function that changes an adapter's config."""

    def said(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    return said


def nothing(_: Path) -> None:
    pass


# The adapter's settings, what is done to its folder, and the error.
REFUSED: dict[str, tuple[dict[str, Any], Callable[[Path], object], str]] = {
    "other names": ({}, rename(".model.layers.", ".decoder.blocks."), "only 0 of its 12 tensors find a place.*'base_"),
    "a step deeper": (
        {}, rename(".model.layers.", ".model.language_model.layers."), r"only 0 of .*have 'language_model\.' too many"
    ),
    "compiled": ({}, rename(".model.model.", ".model._orig_mod.model."), r"have '_orig_mod\.' too many"),
    "no prefix": ({}, rename("base_model.model.", ""), r"lack 'base_model\.model\.' in their names"),
    "names of one layer": ({}, rename(".layers.1.", ".blocks.1."), r"only 8 of its 12 .* 'base_model.*blocks\.1"),
    "a layer that the model lacks": ({}, rename(".layers.2.", ".layers.9."), "only 8 of its 12 tensors"),
    "layers that the model lacks": (
        {"layers_to_transform": [0, 2]}, say(layers_to_transform=[0, 9]), "only 4 of its 8 tensors"
    ),
    "a layer lost": ({}, keep(lambda name: ".layers.1." not in name), "names 4 tensors that its weights lack"),
    "a factor lost": ({}, keep(lambda name: "layers.1.self_attn.q_proj.lora_B" not in name), "names 1 tensors"),
    "a whole module lost": ({"modules_to_save": ["lm_head"]}, keep(lambda name: "lm_head" not in name), "does not fit"),
    "another rank": ({"rank_pattern": {"q_proj": 8}}, say(rank_pattern={}), "does not fit .* size mismatch for base"),
    "further tokens": ({"rows": 310}, nothing, "does not fit .*size mismatch"),
    "untrained": ({"noise": 0}, nothing, "changes no number of the base model"),
    "packed": ({}, to_int8, "is quantised .*stored as I8"),
    "a head that is the embedding": ({"target_modules": ["q_proj", "lm_head"]}, nothing, "computes something else"),
    "an embedding that is the head": ({"target_modules": ["embed_tokens"]}, nothing, "computes something else"),
    "layers twice": ({"layer_replication": [[0, 2], [1, 3]]}, nothing, "computes something else"),
    "from a token on": ({"alora_invocation_tokens": [5]}, nothing, "does not support safe merging"),
    "a base with other rotary settings": (
        {}, lambda f: (f / "config.json").write_text('{"rope_parameters": {"rope_theta": 5.0}}'), "says rope_parameters"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_cannot_be_merged_whole_is_refused(pairs: Pairs, tmp_path: Path, kind: str) -> None:
    settings, spoil, message = REFUSED[kind]
    base = pairs("llama", True)[0]
    make(base, tmp_path / "adapter", **settings)
    spoil(tmp_path / "adapter")
    with pytest.raises(SourceError, match=message) as caught:
        merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    assert str(tmp_path / "adapter") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


WITHOUT_MEANING: dict[str, Any] = {
    "pad_token_id": 2, "attention_dropout": 0.1, "initializer_range": 0.5, "max_position_embeddings": 64,
    "use_cache": False, "dtype": "bfloat16", "transformers_version": "4.40.0", "pretraining_tp": 2,
}  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_config_that_means_the_same_is_passed_over(pairs: Pairs, tmp_path: Path, architecture: str) -> None:
    """Read the config.json that training left next to an adapter; that of Gemma 3 has a part for the text."""
    base = pairs(architecture, True)[0]
    config = json.loads((base / "config.json").read_text())
    for part in (config, config.get("text_config", config)):
        part.update(WITHOUT_MEANING)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = read_model(base, torch.float32)[0]
    refuse_other_settings(tmp_path, model.config)
    config.get("text_config", config)["rms_norm_eps"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"says rms_norm_eps = 0\.5, and the base model"):
        refuse_other_settings(tmp_path, model.config)


def test_other_ends_of_an_answer_need_a_generation_config(pairs: Pairs, tmp_path: Path) -> None:
    config = read_model(pairs("llama", True)[0], torch.float32)[0].config
    (tmp_path / "config.json").write_text('{"eos_token_id": [2, 6]}')
    with pytest.raises(SourceError, match=r"says eos_token_id = \[2, 6\], and the base model 2"):
        refuse_other_settings(tmp_path, config)
    GenerationConfig(eos_token_id=[2, 6]).save_pretrained(tmp_path)
    refuse_other_settings(tmp_path, config)


def test_a_base_that_lacks_a_tensor_takes_no_adapter(tmp_path: Path) -> None:
    base, lost = (
        save(make_model("llama"), make_tokenizer(), tmp_path / "base"),
        "model.layers.1.self_attn.o_proj.weight",
    )
    make(base, tmp_path / "adapter")
    tensors = load_file(base / "model.safetensors")
    del tensors[lost]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=f"lacks the tensor '{lost}'"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "out")


def test_an_adapters_own_ends_of_an_answer_are_kept(pairs: Pairs, tmp_path: Path) -> None:
    base = pairs("llama", True)[0]
    make(base, tmp_path / "adapter")
    GenerationConfig(eos_token_id=[2, 6]).save_pretrained(tmp_path / "adapter")
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    assert load(tmp_path / "out", "float32").model.generation_config.eos_token_id == [2, 6]
