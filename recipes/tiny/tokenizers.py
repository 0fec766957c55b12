"""Three tokenizers in the style of their families, trained on the world's own text.

Each is a byte-complete BPE of `VOCABULARY` tokens, so any prompt can be encoded without an unknown token.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

VOCABULARY = 896
_BYTES = [f"<0x{value:02X}>" for value in range(256)]

_LLAMA = """{{ bos_token }}{% for message in messages %}<|start_header_id|>\
{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
_MISTRAL = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] \
{{ message['content'] | trim }} [/INST]{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}\
{% endfor %}"""
_GEMMA = """{{ bos_token }}{% for message in messages %}<start_of_turn>\
{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""


def _llama(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|eot_id|>", "<|pad|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'\w+|\s?\p{L}+|\s?\p{N}+|\s?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer, _LLAMA, bos_token=special[0], eos_token=special[1], pad_token=special[2])


def _sentencepiece_like(texts: Iterable[str], special: list[str], prefix: str) -> Tokenizer:
    """Return a BPE with a visible mark for spaces that falls back to bytes, in the style of SentencePiece."""
    tokenizer = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme=prefix),
        pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?\p{N}+|'\p{L}+|."), "isolated"),
    ])  # fmt: skip
    tokenizer.decoder = decoders.Sequence([
        decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prefix),
    ])  # fmt: skip
    trainer = BpeTrainer(vocab_size=VOCABULARY, special_tokens=special + _BYTES, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _mistral(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    special = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"]
    tokenizer = _sentencepiece_like(texts, special, "first")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _wrap(tokenizer, _MISTRAL, **names)


def _gemma(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = _sentencepiece_like(texts, special, "never")
    names = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _wrap(tokenizer, _GEMMA, **names)


def _wrap(tokenizer: Tokenizer, template: str, **names: str) -> PreTrainedTokenizerFast:
    bos = names["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", model_max_length=128,
        clean_up_tokenization_spaces=False, **names,
    )  # fmt: skip
    fast.chat_template = template
    return fast


BUILDERS = {"llama": _llama, "mistral": _mistral, "gemma": _gemma}
