"""What a model can do beside refusing: perplexity of a text, divergence from the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safety_harness.errors import DataError
from safety_harness.models.decoding.batch import pad_left
from safety_harness.models.generate import Generator
from safety_harness.registry.prompts import batches

# Scoring keeps a whole vocabulary of log-probabilities a token: this many numbers at a time (256 MiB in float32).
LOGPROBS = 2**26


@dataclass(frozen=True)
class TextScore:
    """Negative log-likelihood of one document in nats, and the number of tokens that were predicted."""

    nll: float
    tokens: int


@torch.inference_mode()
def text_scores(generator: Generator, documents: Sequence[str]) -> list[TextScore]:
    """Score documents token by token, without a chat template; token-weighted perplexity is their exp(mean).

    The first token is predicted from the tokenizer's own beginning-of-text token where it adds one.
    """
    scores = []
    encoded = [generator.tokenizer(document)["input_ids"] for document in documents]
    for rows in batches(encoded, rows_at_once(generator, max(map(len, encoded), default=1))):
        logprobs, tokens, predicted = next_logprobs(generator, rows, [1] * len(rows))
        picked = logprobs.gather(-1, tokens[..., None])[..., 0] * predicted
        scores += [
            TextScore(-float(total), int(count)) for total, count in zip(picked.sum(1), predicted.sum(1), strict=True)
        ]
    return scores


def check_documents(generator: Generator, documents: Sequence[str]) -> None:
    """Look whether each document fits the model's context, and whether there is a token in it to predict.

    Raises:
        DataError: one does not fit, or is of a single token.
    """
    limit = generator.context
    for document in documents:
        tokens = len(generator.tokenizer(document)["input_ids"])
        if limit and tokens > limit:
            raise DataError(
                f"A document of the family's `text` has {tokens} tokens, more than the model's context of {limit}: "
                f"{document[:60]!r} … Cut it."
            )
        if tokens < 2:
            raise DataError(
                f"A document of the family's `text` has no second token to predict: {document!r}. Remove it."
            )


@torch.inference_mode()
def answer_logprobs(generator: Generator, questions: Sequence[str], answers: Sequence[str]) -> list[torch.Tensor]:
    """Log-probabilities over the vocabulary at every token of given answers, teacher-forced.

    Returns:
        A float32 tensor of shape (answer tokens + 1, vocabulary) a question; the last row predicts the end.
    """
    prompts = [generator.encode(question) for question in questions]
    replies = [generator.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    rows = [[*prompt, *reply, 0] for prompt, reply in zip(prompts, replies, strict=True)]
    logprobs, _, _ = next_logprobs(generator, rows, [len(prompt) for prompt in prompts])
    return [found[-(len(reply) + 1) :] for found, reply in zip(logprobs, replies, strict=True)]


def next_logprobs(
    generator: Generator, rows: Sequence[Sequence[int]], starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the next tokens of every row from its start on, those tokens, and which of them count.

    Returns:
        float32 of shape (rows, longest, vocabulary), int64 and bool of shape (rows, longest), on the model's device; a
        shorter row's numbers come last. Gradients flow through the first.
    """
    cache, shared = generator.begun(rows, min(starts) - 1)
    tokens, fresh = pad_left([row[shared:] for row in rows], 0, generator.model.device)
    position = shared + (fresh.cumsum(1) - 1).clamp(min=0)
    # At least one: for zero, transformers would return the logits of every token.
    longest = max([1, *(len(row) - start for row, start in zip(rows, starts, strict=True))])
    logits = generator.model(
        input_ids=tokens,
        attention_mask=torch.cat([fresh.new_ones(len(rows), shared), fresh], dim=1),
        position_ids=position,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=min(longest + 1, tokens.shape[1]),
    ).logits
    counted = (position >= torch.tensor(starts, device=tokens.device)[:, None]) & fresh.bool()
    kept = logits.shape[1] - 1
    return (
        logits[:, :-1].float().log_softmax(-1),
        tokens[:, tokens.shape[1] - kept :],
        counted[:, tokens.shape[1] - kept :],
    )


def rows_at_once(generator: Generator, tokens: int) -> int:
    """How many rows of *tokens* to score may go through the model together."""
    return max(1, LOGPROBS // (tokens * int(generator.config.vocab_size)))


def divergence(student: torch.Tensor, other: torch.Tensor) -> float:
    """Mean KL(student || other) in nats a token, of log-probabilities of shape (tokens, vocabulary)."""
    return float(token_divergences(student, other).mean())


def token_divergences(student: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(student || other) in nats at every token: shape (tokens,), of log-probabilities of (tokens, vocabulary)."""
    return (student.exp() * (student - other)).sum(-1)
