"""Score given text: its perplexity under a model, and how far a model diverges from the student on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from safety_harness.conversation import Asked
from safety_harness.errors import DataError
from safety_harness.models.decoding.batch import pad_left
from safety_harness.models.decoding.lengths import rotary_switch, sides
from safety_harness.models.generate import Generator
from safety_harness.progress import counted
from safety_harness.registry.prompts import batches

# Scoring keeps log-probabilities of the whole vocabulary at every token: up to this many (256 MiB in float32).
MAX_LOGPROBS_AT_ONCE = 2**26


@dataclass(frozen=True)
class TextScore:
    """The negative log-likelihood of one document in nats, and the number of tokens that were predicted."""

    nll: float
    tokens: int


@torch.inference_mode()
def text_scores(generator: Generator, documents: Sequence[str]) -> list[TextScore]:
    """Return the score of each document, read without a chat template.

    Perplexity is exp(sum of nll / sum of tokens). A document's first token is predicted only if the tokenizer puts a
    beginning-of-text token before it.
    """
    scores = []
    encoded = [generator.encode_text(document) for document in documents]
    together = batches(encoded, rows_at_once(generator, max(map(len, encoded), default=1)))
    for rows in counted("reading prose", together, len(together)):
        logprobs, tokens, predicted = next_logprobs(generator, rows, [1] * len(rows))
        picked = logprobs.gather(-1, tokens[..., None])[..., 0] * predicted
        scores += [
            TextScore(-float(total), int(count)) for total, count in zip(picked.sum(1), predicted.sum(1), strict=True)
        ]
    return scores


def check_documents(generator: Generator, documents: Sequence[str]) -> None:
    """Check that each document fits the model's context and has a token to predict.

    Raises:
        DataError: a document does not fit, or has fewer than two tokens.
    """
    limit = generator.context
    for document in documents:
        tokens = len(generator.encode_text(document))
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
def answer_logprobs(generator: Generator, questions: Sequence[Asked], answers: Sequence[str]) -> list[torch.Tensor]:
    """Return log-probabilities over the vocabulary at every token of given answers, teacher-forced.

    Of an answer that a conversation begins, these are the tokens behind its beginning.

    Returns:
        One float32 tensor of shape (answer tokens + 1, vocabulary) a question. Its last row predicts the end.
    """
    prompts = [generator.encode(question) for question in questions]
    generated = [a.removeprefix(generator.chat.begun(q)) for q, a in zip(questions, answers, strict=True)]
    replies = [generator.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in generated]
    rows = [[*prompt, *reply, 0] for prompt, reply in zip(prompts, replies, strict=True)]
    logprobs, _, _ = next_logprobs(generator, rows, [len(prompt) for prompt in prompts])
    return [row[-(len(reply) + 1) :] for row, reply in zip(logprobs, replies, strict=True)]


def next_logprobs(
    generator: Generator, rows: Sequence[Sequence[int]], starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of every row's tokens from its start on, these tokens, and a mask of what counts.

    Returns:
        A float32 tensor of shape (rows, longest, vocabulary), an int64 and a bool tensor of shape (rows, longest), on
        the model's device. The numbers of a shorter row come last. Gradients flow through the first tensor.
    """
    parts = list(sides(rows, rotary_switch(generator.config)))
    if len(parts) > 1:
        return _stitched(
            [_next_logprobs(generator, [rows[i] for i in part], [starts[i] for i in part]) for part in parts], parts
        )
    return _next_logprobs(generator, rows, starts)


Scored = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _stitched(scored: Sequence[Scored], parts: Sequence[Sequence[int]]) -> Scored:
    """Return what was scored in *parts*, whose places are given, as one batch: rows in order, padded on the left."""
    longest = max(tokens.shape[1] for _, tokens, _ in scored)
    order = torch.tensor([place for part in parts for place in part]).argsort().to(scored[0][0].device)

    def whole(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([pad(one, (0, 0) * (one.dim() - 2) + (longest - one.shape[1], 0)) for one in tensors])[order]

    logprobs, tokens, counted = zip(*scored, strict=True)
    return whole(logprobs), whole(tokens), whole(counted)


def _next_logprobs(generator: Generator, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> Scored:
    """Do the work of :func:`next_logprobs` for rows that may share a pass."""
    cache, shared = generator.prefill_shared(rows, min(starts) - 1)
    tokens, fresh = pad_left([row[shared:] for row in rows], generator.model.device)
    position = shared + (fresh.cumsum(1) - 1).clamp(min=0)
    # At least one, because transformers returns the logits of every token for zero.
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
    """Return how many rows, each with *tokens* tokens to score, may go through the model together."""
    return max(1, MAX_LOGPROBS_AT_ONCE // (tokens * int(generator.config.vocab_size)))


def divergence(student: torch.Tensor, patched: torch.Tensor) -> float:
    """Return the mean KL(student || patched) in nats a token, of log-probabilities of shape (tokens, vocabulary)."""
    return float(token_divergences(student, patched).mean())


def token_divergences(student: torch.Tensor, patched: torch.Tensor) -> torch.Tensor:
    """Return KL(student || patched) in nats at every token, of log-probabilities of shape (tokens, vocabulary)."""
    return (student.exp() * (student - patched)).sum(-1)
