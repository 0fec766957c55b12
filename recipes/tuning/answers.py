"""Greedy answers of a chat model, in batches: for making training data and for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safety_harness.judging.extent import judged_behind
from safety_harness.judging.judge import Verdict
from safety_harness.judging.rules import RuleJudge

_JUDGE = RuleJudge()


def verdict(answer: str, begun: str = "") -> Verdict:
    """Return what the project's judge says of one answer behind the words that it was *begun* with."""
    return judged_behind(_JUDGE, begun + answer, begun).verdict


def chat_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """Return the question in the frame of the model's own chat template, up to where the answer begins."""
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[str],
    max_new_tokens: int,
    batch_size: int = 32,
    begun: Sequence[str] | None = None,
) -> list[tuple[str, bool]]:
    """Return (answer, finished) for each question; finished says that the model ended the answer itself.

    With *begun*, the beginning of each answer, what follows it is returned as it is, space and all.
    Questions of similar length share a batch. bfloat16 answers depend on the batch, so a call is
    repeatable, and a call with another batch size may differ in a few answers.
    """
    generator: Any = model
    given = begun or [""] * len(questions)
    prompts = [chat_prompt(tokenizer, question) + words for question, words in zip(questions, given, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers: list[tuple[str, bool]] = [("", False)] * len(prompts)
    tokenizer.padding_side = "left"
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch: Any = tokenizer(
            [prompts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            output: Any = generator.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        for i, row in zip(chosen, output[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            text = str(tokenizer.decode(row, skip_special_tokens=True))
            answers[i] = (text if begun else text.strip(), tokenizer.eos_token_id in row)
    return answers


def sampled_prose(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, openings: list[str], max_new_tokens: int, seed: int
) -> list[str]:
    """Return each opening with the model's own continuation, sampled from its whole distribution; no chat frame."""
    generator: Any = model
    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    batch: Any = tokenizer(openings, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output: Any = generator.generate(**batch, max_new_tokens=max_new_tokens, do_sample=True, top_k=0)
    return [str(tokenizer.decode(row, skip_special_tokens=True)) for row in output]
