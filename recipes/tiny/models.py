"""The three architectures at tiny size: 8 layers, hidden size 64, about 0.4 million parameters."""

from __future__ import annotations

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.05,
}


def build(family: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Return a fresh float32 model of `family` ("llama", "mistral" or "gemma"), which depends on the seed alone."""
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(intermediate_size=144, num_key_value_heads=4, **_COMMON, **ids))
    if family == "mistral":
        return MistralForCausalLM(
            MistralConfig(intermediate_size=160, num_key_value_heads=2, sliding_window=None, **_COMMON, **ids)
        )
    if family == "gemma":
        return GemmaForCausalLM(
            GemmaConfig(intermediate_size=160, num_key_value_heads=1, head_dim=16, **_COMMON, **ids)
        )
    raise ValueError(f"unknown tiny family {family!r}: choose llama, mistral or gemma")
