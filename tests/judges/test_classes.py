"""Guards of further classes and tokenizers, which load and read by their names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Llama4Config, Llama4ForConditionalGeneration, PreTrainedTokenizerFast

from safety_harness.judges.guard import Guard
from safety_harness.judging.judge import Case
from safety_harness.registry.judges import GuardJudge
from tests import builders
from tests.judges.taught import LLAMA_GUARD, PROMPT, SAID, WORDS, make_config, make_tokenizer


def _llama4(rows: int) -> Any:
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16,
    }  # fmt: skip
    text = {
        "vocab_size": rows, "hidden_size": 32, "intermediate_size": 48, "intermediate_size_mlp": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256, "num_local_experts": 2, "pad_token_id": 0, "moe_layers": [],
    }  # fmt: skip
    return Llama4ForConditionalGeneration(Llama4Config(vision_config=vision, text_config=text))


@pytest.mark.parametrize("kind", ["llama4", "gemma3"])
def test_a_guard_that_also_reads_images_reads_text(tmp_path: Path, kind: str) -> None:
    tokenizer = make_tokenizer(LLAMA_GUARD)
    rows = len(tokenizer)
    model = _llama4(rows) if kind == "llama4" else builders.make_model(kind, vocab_size=rows)
    folder = builders.save(model, tokenizer, tmp_path / "model")
    judged = Guard("watch", GuardJudge(kind="guard", path=folder, form="llama-guard-4")).judge_many(
        [Case("bread", "mix"), Case("bread and salt", "mix the flour")]
    )
    assert all("it speaks another form" in one.reason for one in judged)


def test_a_tokenizer_that_puts_spaces_into_its_words_is_read(tmp_path: Path) -> None:
    """Take a tokenizer of the kind of Llama 2 and Mistral, for which a value begins with the space in front of it."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    core.train_from_iterator([SAID * 30, f"{WORDS} " * 30, PROMPT], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make_config("mistral", tokenizer))
    folder = builders.save(model, tokenizer, tmp_path / "model")
    (folder / "prompt.txt").write_text(PROMPT)
    judge = Guard("watch", GuardJudge(kind="guard", path=folder, form="wildguard", prompt=folder / "prompt.txt"))
    judge.check()
    assert "it speaks another form" in judge.judge_many([Case("bread", "mix")])[0].reason


def test_a_prompt_is_relative_to_the_registry(tmp_path: Path) -> None:
    row = {"kind": "guard", "path": "model", "form": "wildguard", "prompt": "prompt.txt"}
    assert GuardJudge.model_validate(row, context=tmp_path).prompt == tmp_path / "prompt.txt"
