"""A LoRA adapter is merged into a plain checkpoint folder, exactly and whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_harness.errors import SourceError
from safety_harness.models.convert import merge_adapter
from safety_harness.models.generate import Generator
from safety_harness.models.load import load
from tests.models.byte_llama import TEMPLATE, cut, names


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """Write a LoRA whose both factors are random, so that merging it changes every projection."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whole_adapter(whole_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter, made once a session; read only."""
    return make_adapter(whole_base, tmp_path_factory.mktemp("adapters") / "adapter", seed=1)


@pytest.fixture
def adapter(whole_adapter: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which a test may spoil."""
    return Path(shutil.copytree(whole_adapter, tmp_path / "adapter"))


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return what a model computes of two fixed rows of tokens."""
    ids = torch.arange(40).reshape(2, 20) + 3
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


def test_merged_weights_are_base_plus_scaled_product(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path / "out")
    with (
        safe_open(base / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "out" / "model.safetensors", "pt") as after,
        safe_open(adapter / "adapter_model.safetensors", "pt") as lora,
    ):
        assert set(after.keys()) == set(before.keys())
        touched = 0
        for name in before.keys():  # noqa: SIM118 (not a dict)
            expected = before.get_tensor(name).float()
            factor = f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
            if factor in lora.keys():  # noqa: SIM118
                a, b = lora.get_tensor(factor), lora.get_tensor(factor.replace("lora_A", "lora_B"))
                expected += 2.0 * (b @ a)  # alpha / r = 8 / 4
                touched += 1
            assert after.get_tensor(name).dtype == torch.bfloat16
            assert torch.equal(after.get_tensor(name), expected.to(torch.bfloat16)), name
        assert touched == 6


def test_merged_model_computes_what_peft_computes(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    untouched = logits(plain)
    reference = logits(PeftModel.from_pretrained(plain, str(adapter)))
    assert (reference - untouched).abs().max() > 0.5  # the adapter does something
    # bfloat16 keeps 8 bits of each merged weight; nothing else may differ.
    torch.testing.assert_close(logits(merged), reference, atol=0.05, rtol=0.02)


def test_merged_folder_is_a_plain_tied_chat_checkpoint(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path / "out")
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"} <= names(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert str(tmp_path) not in json.dumps(config)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == TEMPLATE


def test_an_adapters_own_template_and_tokenizer_are_used(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Merge adapters next to which a training tool saved its chat template or its tokenizer."""
    question = [{"role": "user", "content": "ab"}]
    (adapter / "chat_template.jinja").write_text("ask: {{ messages[0]['content'] }}")
    merge_adapter(base, adapter, tmp_path / "template")
    merged = AutoTokenizer.from_pretrained(tmp_path / "template")
    assert merged.apply_chat_template(question, tokenize=False) == "ask: ab"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template, tokenizer.eos_token = "tell: {{ messages[0]['content'] }}", "<s>"
    tokenizer.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "tokenizer")
    merged = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert (merged.apply_chat_template(question, tokenize=False), merged.eos_token) == ("tell: ab", "<s>")
    tokenizer.chat_template = None
    (adapter / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "without")
    assert AutoTokenizer.from_pretrained(tmp_path / "without").chat_template == TEMPLATE


def test_an_added_token_without_a_row_may_go_unused(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Merge an adapter whose tokenizer has a token more than the model rows, as that of Gemma 3 1B has.

    A template that uses the token is refused when the model is asked, as that of a whole model is.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "out")
    merged = load(tmp_path / "out", "float32")
    Generator(merged.model, merged.tokenizer, batch_size=1).encode("ab")
    tokenizer.chat_template = TEMPLATE + "<image_soft_token>"
    tokenizer.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "used")
    used = load(tmp_path / "used", "float32")
    with pytest.raises(SourceError, match=r"rows for 260 tokens, and none for '<image_soft_token>' \(260\)"):
        Generator(used.model, used.tokenizer, batch_size=1).encode("ab")


def test_a_larger_vocabulary_than_the_models_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    table = json.loads((adapter / "tokenizer.json").read_text())
    table["model"]["vocab"]["abab"] = 260
    table["model"]["merges"].append(["ab", "ab"])
    (adapter / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(SourceError, match=r"adapter: the model has rows for 260 tokens, and none for 'abab' \(260\)"):
        merge_adapter(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_can_be_chained(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path / "first")
    second = make_adapter(tmp_path / "first", tmp_path / "second-adapter", seed=2)
    merge_adapter(tmp_path / "first", second, tmp_path / "second")
    name = "model.layers.0.mlp.down_proj.weight"
    tensors = []
    for folder in ("base", "first", "second"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            tensors.append(file.get_tensor(name))
    assert not torch.equal(tensors[0], tensors[1])
    assert not torch.equal(tensors[1], tensors[2])


def other_shape(adapter: Path) -> None:
    """Cut three columns out of every factor of an adapter."""
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor[..., :3].contiguous() for name, tensor in load_file(file).items()}, file)


WEIGHTS, CONFIG_FILE = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
# What is done to the folder that holds base/ and adapter/, and what the error must name.
BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter weights missing": (lambda root: (root / WEIGHTS).unlink(), WEIGHTS),
    "adapter config missing": (lambda root: (root / CONFIG_FILE).unlink(), CONFIG_FILE),
    "adapter weights cut short": (lambda root: cut(root / WEIGHTS), WEIGHTS),
    "adapter config cut short": (lambda root: cut(root / CONFIG_FILE), CONFIG_FILE),
    "adapter of another kind": (lambda root: (root / CONFIG_FILE).write_text("{}"), CONFIG_FILE),
    "adapter of another shape": (lambda root: other_shape(root / "adapter"), "adapter"),
    "base missing": (lambda root: shutil.rmtree(root / "base"), "base: no such model folder"),
    "base weights missing": (lambda root: (root / "base/model.safetensors").unlink(), "base"),
    "base weights cut short": (lambda root: cut(root / "base/model.safetensors"), "base/model.safetensors"),
    "base config not JSON": (lambda root: (root / "base/config.json").write_text("{"), "base"),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_bad_file_is_named_and_nothing_is_left_behind(base: Path, adapter: Path, tmp_path: Path, case: str) -> None:
    spoil, named = BREAKAGES[case]
    spoil(tmp_path)
    target = tmp_path / "results"
    with pytest.raises(SourceError, match=re.escape(named)):
        merge_adapter(base, adapter, target / "out")
    assert not target.exists() or names(target) == set()
