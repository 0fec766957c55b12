"""A random bfloat16 Llama with a byte-level tokenizer: what adapters are merged into, and what becomes a GGUF file."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
VOCABULARY = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
HEADS, KV_HEADS = 4, 2
CONFIG = LlamaConfig(
    vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=128,
    tie_word_embeddings=True, rope_theta=10000.0, bos_token_id=1, eos_token_id=2, pad_token_id=2,
)  # fmt: skip


def build(folder: Path) -> Path:
    """Write the checkpoint, and return its folder."""
    torch.manual_seed(0)
    LlamaForCausalLM(CONFIG).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCABULARY)}, [("a", "b")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def names(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def cut(file: Path) -> None:
    """Take away the last 100 bytes of a file."""
    file.write_bytes(file.read_bytes()[:-100])
