"""A model of random weights in the shape of a large Llama, with a tokenizer, a teacher and candidates."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks import kept
from safety_harness.weights.units import Unit, cut

PROMPTS = Path(__file__).parents[2] / "safety_harness" / "families" / "prompts"
# The share of each unit's channels that a candidate moves: about that of a real patch.
SHARE = 0.03
TEMPLATE = (
    "{% for message in messages %}[INST] <<SYS>>\nYou are a helpful assistant.\n<</SYS>>\n\n"
    "{{ message['content'] | trim }} [/INST]{% endfor %}"
)


class Noise:
    """A teacher near the student: each tensor is the student's and a little noise, the same at each call."""

    def __init__(self, model: Any) -> None:
        self._student_tensors = {name: parameter.data.clone() for name, parameter in model.named_parameters()}

    def tensor(self, name: str) -> torch.Tensor:
        """Return the noisy tensor *name*."""
        tensor = self._student_tensors[name]
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        generator = torch.Generator(tensor.device).manual_seed(seed)
        noisy: torch.Tensor = tensor + 0.002 * torch.randn(
            tensor.shape, generator=generator, device=tensor.device, dtype=tensor.dtype
        )
        return noisy


def random_llama(layers: int, width: int, device: torch.device) -> Any:
    """Return a bfloat16 model whose answers never end."""
    config = LlamaConfig(
        hidden_size=width, intermediate_size=width * 43 // 16, num_hidden_layers=layers,
        num_attention_heads=width // 128, num_key_value_heads=width // 128, vocab_size=32000,
        max_position_embeddings=4096, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    return model


def tokenizer_of(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer without an end token, trained on *texts*: it makes about as many tokens as a real one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = TEMPLATE
    return fast


def candidate(units: Sequence[Unit], seed: int) -> tuple[Unit, ...]:
    """Return a share of every unit's channels, drawn with *seed*."""
    chance = random.Random(seed)
    return tuple(cut(unit, sorted(chance.sample(range(unit.width), max(1, int(SHARE * unit.width))))) for unit in units)


def texts_of(name: str, count: int) -> list[str]:
    """Return *count* questions of one kind, from the repository's search split."""
    texts = [row["text"] for row in kept.read(PROMPTS / f"{name}.search.jsonl")]
    if len(texts) < count:
        raise SystemExit(f"{name}.search.jsonl has {len(texts)} questions; ask for no more with --questions.")
    return texts[:count]


def fuse(model: Any) -> None:
    """Compile the small parts of *model*'s layers."""
    for kind in {type(module) for module in model.modules()}:
        if kind.__name__.endswith(("RMSNorm", "MLP")):
            kind.forward = torch.compile(kind.forward)
    code = sys.modules[type(model).__module__]
    code.apply_rotary_pos_emb = torch.compile(code.apply_rotary_pos_emb)  # type: ignore[attr-defined]
