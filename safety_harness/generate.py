"""Batched greedy answers through the model's own chat template."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.errors import DataError

# Raised when decoding changes the last bits of its numbers, so that what was measured before is not taken for new.
DECODING = 2

# Sharing a common beginning costs one more call of the model; it must save this many tokens to be worth it.
WORTH_SHARING = 128


class Generator:
    """Answers questions greedily; order, batch size and padding are fixed, so that an answer is reproducible.

    bfloat16 answers depend on the batch they ran in, so the batch size is part of a measurement's identity.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        # A model that knows no end token answers to the limit.
        self._stop = torch.tensor(_stop_tokens(model, tokenizer), dtype=torch.int64, device=model.device)
        self._pad = int(tokenizer.pad_token_id or 0)  # masked wherever it stands, so any token will do

    def encode(self, question: str) -> list[int]:
        """The tokens of a question in the chat template, up to where the answer begins."""
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer(question)["input_ids"])
        return list(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
            )["input_ids"]
        )

    def answers(self, questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """One answer a question, in order.

        Raises:
            DataError: a question does not fit the model's context with its answer.
        """
        encoded = [self.encode(question) for question in questions]
        self._check_lengths(questions, encoded, max_new_tokens)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = [""] * len(encoded)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            for row, tokens in zip(rows, self._decode([encoded[i] for i in rows], max_new_tokens), strict=True):
                found[row] = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return found

    @torch.inference_mode()
    def _decode(self, rows: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        cache = DynamicCache(config=self.model.config)
        shared = self._shared(rows, max_new_tokens)
        tokens, mask = pad_left([row[shared:] for row in rows], self._pad, self.model.device)
        if shared:
            # What the chat template puts before every question goes through the model once, not once a row.
            self.model(input_ids=tokens.new_tensor([rows[0][:shared]]), past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(len(rows))
            mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
        position = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        alive = torch.arange(len(rows), device=tokens.device)
        found: list[list[int]] = [[] for _ in rows]
        for _ in range(max_new_tokens):
            output = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = output.logits[:, -1].argmax(-1)
            ended = torch.isin(chosen, self._stop)
            for row, token, over in zip(alive.tolist(), chosen.tolist(), ended.tolist(), strict=True):
                if not over:
                    found[row].append(token)
            if bool(ended.all()):
                break
            if bool(ended.any()):  # an answer that has ended costs nothing more
                going = (~ended).nonzero()[:, 0]
                cache.batch_select_indices(going)
                alive, chosen, mask, position = alive[going], chosen[going], mask[going], position[going]
            tokens, position = chosen[:, None], position[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(tokens), 1)], dim=1)
        return found

    def _shared(self, rows: Sequence[Sequence[int]], new: int) -> int:
        """Length of the tokens with which all *rows* begin, short of any row's last token; 0 when not worth it.

        Padding then stands between what is shared and the rest. A sliding window counts it as distance, so
        nothing is shared where a row could reach beyond the window.
        """
        shared = min(shared_beginning(rows), min(len(row) for row in rows) - 1)
        window = getattr(self.model.config, "sliding_window", None)
        beyond = window is not None and max(len(row) for row in rows) + new > window
        return 0 if beyond or shared * (len(rows) - 1) < WORTH_SHARING else shared

    def _check_lengths(self, questions: Sequence[str], encoded: Sequence[Sequence[int]], new: int) -> None:
        limit = int(getattr(self.model.config, "max_position_embeddings", 0) or 0)
        for question, tokens in zip(questions, encoded, strict=True):
            if limit and len(tokens) + new > limit:
                raise DataError(
                    f"A question of {len(tokens)} tokens and {new} for its answer exceed the model's context of "
                    f"{limit}: {question[:60]!r} … Shorten or remove it."
                )


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all *rows* (at least one) begin with."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return sum(1 for _ in alike)


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask of *rows*, both int64 of shape (rows, longest), padded on the left."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return tokens, mask


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(token for token in [tokenizer.eos_token_id, *found] if token is not None))
