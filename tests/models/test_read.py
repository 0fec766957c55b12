"""Every tensor of a checkpoint is in the model that is measured, and the model holds nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from safety_harness.errors import SourceError
from safety_harness.models.load import load
from safety_harness.models.read import read_model
from safety_harness.weights.architectures import layouts
from tests.builders import ARCHITECTURES, make_config

Pairs = Callable[[str, bool], tuple[Path, Path]]
State = dict[str, torch.Tensor]
UP = "model.layers.1.mlp.up_proj.weight"
EXPERT = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"


def changed(pairs: Pairs, root: Path, architecture: str, change: Callable[[State], State]) -> Path:
    """Return a copy of a tied checkpoint, with its tensors changed."""
    folder = Path(shutil.copytree(pairs(architecture, True)[0], root / "model"))
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({name: value.clone() for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def plus(name: str, *shape: int) -> Callable[[State], State]:
    return lambda tensors: {**tensors, name: torch.ones(shape)}


def less(name: str) -> Callable[[State], State]:
    return lambda tensors: {other: value for other, value in tensors.items() if other != name}


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda tensors: {name.replace(old, new, 1): value for name, value in tensors.items()}


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


def factors(tensors: State) -> State:
    """Add LoRA factors to every query, unmerged."""
    queries = [name.removesuffix(".weight") for name in tensors if "q_proj" in name]
    names = [f"{query}.lora_{factor}.default.weight" for query in queries for factor in "AB"]
    return {**tensors, **{name: torch.randn(4, 32) for name in names}}


def trained(tensors: State) -> State:
    """Name queries as peft does while LoRA factors are on them."""
    return factors({name.replace("q_proj", "q_proj.base_layer"): value for name, value in tensors.items()})


def saved(tensors: State) -> State:
    """Name the last norm as peft does while it is trained whole."""
    own = {name.replace("model.norm", "model.norm.original_module"): value for name, value in tensors.items()}
    return {**own, "model.norm.modules_to_save.default.weight": tensors["model.norm.weight"] + 1}


REFUSED: dict[str, tuple[str, Callable[[State], State], str]] = {
    "LoRA factors": ("llama", factors, r"6 of its tensors have no place .*q_proj\.lora_A.* Merge the adapter"),
    "LoRA as it is trained": ("llama", trained, r"hold an adapter that was never merged .*base_layer\."),
    "whole modules as they are trained": ("llama", saved, r"'model\.norm\.modules_to_save.* Merge the adapter"),
    "a layer more": ("llama", plus("model.layers.3.mlp.up_proj.weight", 48, 32), r"1 of its.*'model\.layers\.3\.mlp"),
    "a norm of queries": ("llama", plus("model.layers.0.self_attn.q_norm.weight", 8), "1 of its .*q_norm"),
    "a bias": ("llama", plus("model.layers.0.self_attn.q_proj.bias", 32), r"1 of its .*q_proj\.bias"),
    "heads for further tokens": ("qwen3", plus("mtp.layers.0.mlp.up_proj.weight", 48, 32), "1 of its .*'mtp"),
    "a bias of another layer": ("gpt2", plus("transformer.h.9.attn.c_attn.bias", 96), r"1 of its .*h\.9\.attn\.c_attn"),
    "a bias named like a mask": ("gpt_neox", plus("gpt_neox.layers.0.attention.bias", 96), "1 of its .*attention.bias"),
    "an expert more": ("mixtral", lambda t: {**t, EXPERT.format(3): t[EXPERT.format(2)]}, "its experts are not those"),
    "an expert less": ("mixtral", less(EXPERT.format(2)), "its experts are not those"),
    "a tensor less": ("llama", less(UP), f"lacks the tensor '{UP}'"),
    "no embedding": ("llama", less("model.embed_tokens.weight"), "lacks the tensor"),
    "another shape": ("llama", plus(UP, 40, 32), rf"'{UP}' has the shape \(40, 32\), and .* with \(48, 32\)"),
    "another head": ("llama", plus("lm_head.weight", 300, 32), "says two things: .*tie_word_embeddings"),
    "another head, tied by default": ("gemma2", plus("lm_head.weight", 300, 32), "says two things"),
    "module.": ("llama", prefixed("module."), r"have 'module\.' too many in their names \('module\.model\."),
    "base_model.model.": ("llama", prefixed("base_model.model."), r"have 'base_model\.model\.' too many"),
    "_orig_mod.": ("llama", prefixed("_orig_mod."), r"have '_orig_mod\.' too many"),
    "_orig_mod. in each layer": ("llama", renamed(".mlp.", "._orig_mod.mlp."), r"have '_orig_mod\.' too many"),
    "module. before experts": ("mixtral", prefixed("module."), r"have 'module\.' too many"),
    "layers without a name": ("llama", renamed("model.layers.", ""), r"lack 'model\.layers\.' in their names"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_tensor_without_place_or_a_place_without_tensor_is_named(pairs: Pairs, tmp_path: Path, case: str) -> None:
    architecture, change, message = REFUSED[case]
    folder = changed(pairs, tmp_path, architecture, change)
    with pytest.raises(SourceError, match=message) as caught:
        load(folder, "float32")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_leaves_tying_to_its_default_is_tied(pairs: Pairs, tmp_path: Path) -> None:
    folder = changed(pairs, tmp_path, "gemma", plus("lm_head.weight", 300, 32))
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="says two things"):
        load(folder, "float32")


PASSED: dict[str, tuple[str, Callable[[State], State]]] = {
    "rotary frequencies": ("llama", plus("model.layers.0.self_attn.rotary_emb.inv_freq", 4)),
    "a mask of GPT-2": ("gpt2", plus("transformer.h.0.attn.bias", 1, 1, 8, 8)),
    "a mask's value of GPT-2": ("gpt2", plus("transformer.h.0.attn.masked_bias")),
    "masks of GPT-NeoX": ("gpt_neox", plus("gpt_neox.layers.0.attention.bias", 1, 1, 8, 8)),
    "the embedding as head": ("llama", lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"]}),
    "the head as embedding": ("llama", renamed("model.embed_tokens", "lm_head")),
    "GPT-2 without its head": ("gpt2", renamed("transformer.", "")),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSED)
def test_what_every_program_computes_or_ties_is_passed_over(pairs: Pairs, tmp_path: Path, case: str) -> None:
    architecture, change = PASSED[case]
    folder = changed(pairs, tmp_path, architecture, change)
    numbers = read_model(folder, torch.float32)[0].state_dict()
    expected = read_model(pairs(architecture, True)[0], torch.float32)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in numbers.items())
    assert numbers.keys() == expected.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_lets_no_tensor_of_a_known_model_be_missing(architecture: str) -> None:
    """Expect no pattern of names that are filled with random numbers without a report."""
    assert architecture.partition("-")[0] in layouts()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_config(architecture))
    assert not model._keys_to_ignore_on_load_missing
