"""Deterministic single-thread training of one tiny model: from scratch, or of its projections only."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recipes.tiny import world
from recipes.tiny.curriculum import Mixture, draw
from recipes.tiny.world import Question
from safety_harness.models.chat import Chat

IGNORED = -100
OUTSIDE = 0.1  # share of the learning rate for layers out of focus
Example = tuple[list[int], list[int]]  # token ids and labels, of equal length


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train.

    Every `documents_every`-th step (0: none) reads plain text instead of questions. When only
    projections are tuned, layers outside `focus` (first, last) learn at `OUTSIDE` times the rate.
    """

    steps: int
    learning_rate: float
    batch: int = 64
    documents_every: int = 0
    warmup: int = 10
    focus: tuple[int, int] | None = None


class Encoder:
    """Questions and documents as token ids, through the tokenizer's chat template; remembers them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._chat = Chat(tokenizer)
        self._seen: dict[Question, Example] = {}

    def question(self, question: Question) -> Example:
        """Return token ids and labels; only the answer and the end of the turn carry labels."""
        if question not in self._seen:
            prompt = self._chat.tokens(question.sent or question.text)
            answer = [*self._answer(question, prompt), self._tokenizer.eos_token_id]
            self._seen[question] = (prompt + answer, [IGNORED] * len(prompt) + answer)
        return self._seen[question]

    def _answer(self, question: Question, prompt: list[int]) -> list[int]:
        """Return the tokens of the answer, or of the rest of one that the prompt begins."""
        sent = question.sent
        if sent is None or not sent.prefill:
            return list(self._tokenizer(question.answer, add_special_tokens=False).input_ids)
        whole = self._chat.tokens(replace(sent, prefill=f"{sent.prefill} {question.answer}"))
        assert whole[: len(prompt)] == prompt, question
        return whole[len(prompt) :]

    def document(self, text: str) -> Example:
        """Return token ids and labels; every token but the first is predicted."""
        ids = self._tokenizer(text).input_ids
        return ids, ids

    def batch(self, examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
        """Return right-padded token ids, attention mask and labels, each [batch, length] int64."""
        length = max(len(ids) for ids, _ in examples)
        pad = self._tokenizer.pad_token_id
        ids = [ids + [pad] * (length - len(ids)) for ids, _ in examples]
        mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in examples]
        labels = [labels + [IGNORED] * (length - len(labels)) for _, labels in examples]
        return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


def _documents(rng: random.Random) -> Iterator[str]:
    held_out = set(world.held_out_documents())
    while True:
        text = world.document(rng)
        if text not in held_out:
            yield text


def _rate(step: int, schedule: Schedule) -> float:
    """Return the learning rate: linear warm-up, then half a cosine down to 5 % of the peak."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _projection_groups(model: PreTrainedModel, schedule: Schedule) -> list[dict[str, Any]]:
    """Return one optimiser group per layer, of its attention and MLP projections: all that tuning may change."""
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            groups.setdefault(int(name.split(".layers.")[1].split(".")[0]), []).append(parameter)
    first, last = schedule.focus or (min(groups), max(groups))
    return [
        {"params": found, "lr": schedule.learning_rate * (1.0 if first <= layer <= last else OUTSIDE)}
        for layer, found in groups.items()
    ]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    mixture: Mixture,
    schedule: Schedule,
    seed: int,
    *,
    only_projections: bool,
) -> float:
    """Train `model` in place with AdamW on `mixture`; return the mean loss of the last 20 steps.

    The same arguments give the same bytes on the same machine and library versions.
    """
    rng = random.Random(seed)
    encoder, questions, documents = Encoder(tokenizer), draw(mixture, rng), _documents(rng)
    everything: list[dict[str, Any]] = [{"params": list(model.parameters()), "lr": schedule.learning_rate}]
    groups = _projection_groups(model, schedule) if only_projections else everything
    trained = [p for group in groups for p in group["params"]]
    kept = {id(p) for p in trained}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, schedule))
    losses: list[float] = []
    model.train()
    for step in range(1, schedule.steps + 1):
        if schedule.documents_every and step % schedule.documents_every == 0:
            examples = [encoder.document(next(documents)) for _ in range(schedule.batch // 2)]
        else:
            examples = [encoder.question(next(questions)) for _ in range(schedule.batch)]
        ids, mask, labels = encoder.batch(examples)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    return sum(losses[-20:]) / len(losses[-20:])
