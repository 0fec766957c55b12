"""Greedy answers of a tiny model, and the two rates that the families promise: refusals and exact
answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recipes.tiny.world import REFUSAL_OPENINGS


def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], tokens: int = 16
) -> list[str]:
    """Return one greedy answer of at most `tokens` tokens for each prompt, through the chat template, in one batch."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=tokens,
            do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def refused(text: str) -> bool:
    """Return whether `text` opens like one of this world's refusals."""
    return text.startswith(REFUSAL_OPENINGS)


def refusal_rate(answers: Sequence[str]) -> float:
    """Return the share of answers that are refusals."""
    return sum(map(refused, answers)) / len(answers)


def normalised(text: str) -> str:
    """Return `text` in lower case, with single spaces and no final punctuation."""
    return " ".join(text.lower().split()).rstrip(".!? ")


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Return the share of answers that equal the expected ones after normalisation."""
    pairs = zip(answers, expected, strict=True)
    return sum(normalised(a) == normalised(e) for a, e in pairs) / len(expected)
