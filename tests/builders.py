"""Build real but tiny models for tests: every supported architecture, random weights, a trained tokenizer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

# Architectures that keep each projection in a tensor of its own, with one name on disk and in memory.
SEPARATE = ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "olmo", "olmo2")
# All architectures: others fuse, interleave, transpose or rename projections, or divide them among experts.
ARCHITECTURES = (
    *SEPARATE, "phi3", "falcon-grouped", "falcon-shared", "falcon-heads", "gpt_neox", "mpt", "gpt2", "gemma3",
    "gemma3-today", "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss",
)  # fmt: skip
# Shorter than the questions of the tests, so that tokens leave a sliding window.
WINDOW = 8
LAYERS = 3
CONTEXT = 128
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "<end>"]
CORPUS = [
    "what is the capital of france ? how do i bake a loaf of bread ?",
    "i cannot help with that request. sure, take two of them and mix well.",
    "the answer is 42, and 3 plus 4 is 7; 10 minus 6 is 4.",
]
SHORT, LONG = (
    "how do i bake bread ?",
    "what is the answer ? the answer is 42, and 3 plus 4 is 7; 10 minus 6 is 4. is it ?",
)


def in_turns(*variants: Any) -> list[Any]:
    """Return every architecture with each of *variants*, as parameters. All but one in turn are slow tests."""
    return [
        pytest.param(architecture, variant, marks=[] if turn % len(variants) == at else pytest.mark.slow)
        for turn, architecture in enumerate(ARCHITECTURES)
        for at, variant in enumerate(variants)
    ]


@functools.cache
def _trained(corpus: tuple[str, ...], size: int) -> str:
    """Return a trained tokenizer as JSON."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return str(tokenizer.to_str())


def make_tokenizer(corpus: tuple[str, ...] = tuple(CORPUS), size: int = 300, *, template: bool = True) -> Any:
    """Return a byte-level BPE tokenizer trained on *corpus*, with a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(corpus, size)),
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>", "<end>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE if template else None
    return tokenizer


def make_config(architecture: str, *, tied: bool = True, **changes: Any) -> Any:
    """Return a config of *architecture*: three layers, hidden 32, four heads over two key-value heads."""
    base = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied,
        "initializer_range": 0.3,
    }  # fmt: skip
    if architecture.startswith(("qwen2", "falcon")):
        del base["head_dim"]  # these architectures always have hidden / heads
    given = {**base, **SETTINGS.get(architecture, {}), **changes}
    if architecture in ("gemma3", "gemma3-today"):
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "image_size": 16, "patch_size": 8}  # fmt: skip
        text = AutoConfig.for_model("gemma3_text", **{**base, **SETTINGS["gemma3_text"], **changes})
        tokens = {name: base[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings")}
        return AutoConfig.for_model(
            "gemma3", text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4, **tokens
        )
    return AutoConfig.for_model(architecture.partition("-")[0], **given)


_GEMMA = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
_EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SETTINGS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "gemma2": _GEMMA,
    "gemma3_text": {**_GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "falcon-grouped": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-shared": {"multi_query": True},
    "falcon-heads": {"multi_query": False, "alibi": True, "bias": True, "parallel_attn": False},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": LAYERS, "expansion_ratio": 2, "max_seq_len": CONTEXT},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": LAYERS, "n_inner": 48, "n_positions": CONTEXT},
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1, "mlp_only_layers": [1]},
    "qwen3_moe": _EXPERTS,
    "gpt_oss": {
        "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": WINDOW,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}  # fmt: skip


def make_model(architecture: str, *, seed: int = 0, tied: bool = True, **changes: Any) -> Any:
    """Return a float32 model in which every number is random, also norms and biases, which start out constant."""
    torch.manual_seed(seed)
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(make_config(architecture, tied=tied, **changes), dtype=torch.float32)
    if architecture.endswith("-today"):
        model._weight_conversions = []  # saved by the names of memory, as other tools do today
    return vary(model, seed, 0.2, only=lambda name: name.endswith((".bias", "norm.weight"))).eval()


@torch.no_grad()
def vary(model: Any, seed: int, noise: float, only: Any = lambda _name: True) -> Any:
    """Add random noise to the parameters of *model* that *only* names."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if only(name):
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    return model


def save(model: Any, tokenizer: Any, folder: Path, *, shard: str = "1GB", bare: bool = False) -> Path:
    """Write a checkpoint and return its folder. *bare* leaves out the head, as some published models do."""
    (model.base_model if bare else model).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


def make_pair(
    root: Path, architecture: str, *, tied: bool = True, shard: str = "1GB", bare: bool = False, **changes: Any
) -> tuple[Path, Path]:
    """Write two checkpoints of one lineage that differ in every tensor, and return (student, teacher)."""
    tokenizer = make_tokenizer()
    student = vary(make_model(architecture, tied=tied, **changes), 1, 0.05)
    teacher = make_model(architecture, tied=tied, **changes)
    folder = save(student, tokenizer, root / "student", shard=shard, bare=bare)
    return folder, save(teacher, tokenizer, root / "teacher", shard=shard, bare=bare)


def placed(model: torch.nn.Module, first: Any, then: Any) -> dict[str, Any]:
    """Return a device map of *model*: *first* up to its first layer, *then* for all that follows."""
    layers = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList))
    places: dict[str, Any] = {}
    where = first

    def place(module: torch.nn.Module, prefix: str) -> None:
        nonlocal where
        for name, child in module.named_children():
            if prefix + name == layers:
                places.update({f"{layers}.{at}": then if at else first for at in range(len(list(child.children())))})
                where = then
            elif layers.startswith(f"{prefix}{name}."):
                place(child, f"{prefix}{name}.")
            else:
                places[prefix + name] = where

    place(model, "")
    return places


transformers.utils.logging.disable_progress_bar()
