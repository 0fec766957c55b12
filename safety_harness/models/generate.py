"""Batched greedy answers through the model's own chat template."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.errors import DataError, SourceError
from safety_harness.models.chat import Chat
from safety_harness.models.decoding.batch import DecodingBatch
from safety_harness.models.decoding.cuda_graphs import GraphCache, recordable
from safety_harness.models.decoding.drafts import Drafts
from safety_harness.models.decoding.kv_cache import packed_weights, preallocated_cache

# Raised when decoding changes the last bits of its numbers, so that what was measured before is not taken for new.
DECODING = 3

# Tokens of a guess that go through the model at once.
LONGEST_GUESS = 16

# Masked wherever it stands, so any token will do; the tokenizer's own may have no row among the embeddings.
PAD = 0

# Sharing a common beginning costs one more call of the model; it must save this many tokens to be worth it.
WORTH_SHARING = 128


@dataclass(frozen=True)
class Screen:
    """A look at an answer after so many *tokens*; it is broken off there unless what it says so far *goes_on*.

    Once more than *most* answers of a batch are broken off, so are the others, wherever they are.
    """

    tokens: int
    goes_on: Callable[[str], bool]
    most: int | None = None


class Generator:
    """Answers questions greedily; order, batch size and padding are fixed, so that an answer is reproducible.

    bfloat16 answers depend on the batch they ran in, so the batch size is part of a measurement's identity.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        """Of a multimodal model that of the part which answers."""
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer)
        self.batch_size = batch_size
        # A model that knows no end token answers to the limit.
        self._stop = frozenset(_stop_tokens(model, tokenizer))
        self._encoded: dict[str, list[int]] = {}
        # In bfloat16 an answer depends on how it was decoded, so there it may not depend on what was asked before.
        self._drafts = Drafts() if model.dtype == torch.float32 else None
        # Guesses make passes of many widths, and a recording is of one.
        able = self._drafts is None and model.device.type == "cuda" and recordable(model)
        self._recordings = GraphCache(model) if able else None

    def encode(self, question: str) -> list[int]:
        """The tokens of a question in the chat template, up to where the answer begins."""
        if question not in self._encoded:
            self._encoded[question] = self.chat.tokens(question)
        return self._encoded[question]

    @property
    def end(self) -> int | None:
        """The token with which the chat template ends an answer."""
        return self.chat.end(self._stop)

    def answers(
        self,
        questions: Sequence[str],
        max_new_tokens: int,
        screen: Screen | None = None,
    ) -> list[str]:
        """One answer a question, in order; with a *screen*, some are broken off there.

        Raises:
            DataError: a question does not fit the model's context with its answer.
            NotFinite: a NaN or an infinity came out of the model.
        """
        self.check_lengths(questions, max_new_tokens)
        encoded = [self.encode(question) for question in questions]
        left = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = [""] * len(encoded)
        spared = False
        while left:
            rows = left[: self.batch_size]
            try:
                with torch.inference_mode(), packed_weights(self.model):
                    decoded = self._decode([encoded[i] for i in rows], max_new_tokens, screen)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if not spared and self.forget():
                    spared = True  # what is kept for later took the room
                elif len(rows) == 1:
                    raise _short_of_memory("one question is answered", ", or lower `max_new_tokens`") from error
                else:
                    self._halve(len(rows))
                continue
            for row, tokens in zip(rows, decoded, strict=True):
                found[row] = self.chat.text(tokens)
            del left[: len(rows)]
        return found

    def _halve(self, rows: int) -> None:
        """Go on with smaller batches, and say so: in bfloat16 an answer depends on its batch."""
        self.batch_size = rows // 2
        warnings.warn(
            f"Out of memory with {rows} questions at once; going on with {self.batch_size}. Set `batch_size = "
            f"{self.batch_size}` in the registry, so that other runs ask alike.",
            stacklevel=2,
        )

    def _decode(
        self,
        rows: Sequence[Sequence[int]],
        max_new_tokens: int,
        screen: Screen | None = None,
    ) -> list[list[int]]:
        """Greedy tokens of each row. A pass reads what a row has not read yet and a guess at what follows; of the
        guess is kept what the model chooses itself, so that every pass gains at least one token."""
        shared = self._shared(rows, max_new_tokens)
        room = max(map(len, rows)) + max_new_tokens
        batch = DecodingBatch(
            self.model,
            self._read(rows, shared, self._recordings),
            len(rows),
            shared,
            PAD,
            self._recordings,
            room,
        )
        alive = list(range(len(rows)))
        broken_off = 0
        found: list[list[int]] = [[] for _ in rows]
        unread = [list(row[shared:]) for row in rows]
        while alive:
            guesses = self._guesses(
                [rows[i] for i in alive], [found[i] for i in alive], unread, batch.columns, max_new_tokens
            )
            chosen = batch.read(unread, guesses)
            kept = [agreed(guess, row) for guess, row in zip(guesses, chosen, strict=True)]
            going = []
            for at, (row, agreeing) in enumerate(zip(alive, kept, strict=True)):
                said = chosen[at][: agreeing + 1]
                ends = next((i for i, token in enumerate(said) if token in self._stop), None)
                before = len(found[row])
                found[row] += said[:ends]
                screened = screen is not None and before < screen.tokens <= len(found[row])
                if screen and screened and not screen.goes_on(self.chat.text(found[row][: screen.tokens])):
                    del found[row][screen.tokens :]
                    broken_off += 1
                elif ends is None and len(found[row]) < max_new_tokens:
                    going.append(at)
            batch.reject(kept, max(map(len, guesses)))
            if screen and screen.most is not None and broken_off > screen.most:
                break
            if going and len(going) < len(alive):
                batch.keep(going)
            alive = [alive[at] for at in going]
            unread = [found[row][-1:] for row in alive]
        if self._drafts is not None:
            for question, answer in zip(rows, found, strict=True):
                self._drafts.remember(question, answer)
        return found

    def _guesses(
        self,
        questions: Sequence[Sequence[int]],
        found: Sequence[Sequence[int]],
        unread: Sequence[Sequence[int]],
        columns: int,
        max_new_tokens: int,
    ) -> list[tuple[int, ...]]:
        """How each row may go on, no longer than half of the rows have a guess: the others are only padded.

        A wrong guess takes room in the cache, so there is none where a row could come to reach so far for it that
        room counts as distance.
        """
        if self._drafts is None:
            return [()] * len(questions)
        most = LONGEST_GUESS
        reach = padding_limit(self.config)
        if reach is not None:
            left = max_new_tokens - min(map(len, found))
            most = max(0, min(most, reach - columns - max(map(len, unread)) - left))
        guesses = [
            self._drafts.guess(question, answer, min(most, max_new_tokens - len(answer) - 1))
            for question, answer in zip(questions, found, strict=True)
        ]
        usual = sorted(map(len, guesses), reverse=True)[(len(guesses) - 1) // 2]
        return [guess[:usual] for guess in guesses]

    def _shared(self, rows: Sequence[Sequence[int]], new: int) -> int:
        """Length of the tokens with which all *rows* begin, short of any row's last token; 0 when not worth it.

        Padding then stands between what is shared and the rest, so nothing is shared where a row could reach so far
        that room counts as distance.
        """
        shared = min(shared_beginning(rows), min(len(row) for row in rows) - 1)
        reach = padding_limit(self.config)
        beyond = reach is not None and max(len(row) for row in rows) + new > reach
        return 0 if beyond or shared * (len(rows) - 1) < WORTH_SHARING else shared

    def begun(self, rows: Sequence[Sequence[int]], most: int) -> tuple[DynamicCache | None, int]:
        """A cache in which all *rows* have read what they share, up to *most* tokens, and how many these are.

        None and 0 where sharing is not worth a call of the model. Gradients flow through it.
        """
        shared = min(self._shared(rows, 0), most)
        return (self._read(rows, shared), shared) if shared > 0 else (None, 0)

    def _read(self, rows: Sequence[Sequence[int]], shared: int, recordings: GraphCache | None = None) -> DynamicCache:
        """What the chat template puts before every question goes through the model once, not once a row."""
        cache = preallocated_cache(self.model.config)
        if shared:
            beginning = rows[0][:shared]
            if recordings is not None:
                recordings.beginning(beginning).play(cache)
            else:
                tokens = torch.tensor([beginning], device=self.model.device)
                self.model(input_ids=tokens, past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(len(rows))
        return cache

    def forget(self) -> bool:
        """Let go of what is kept of earlier passes; whether there was any. Every question is read anew from now on."""
        return self._recordings is not None and self._recordings.forget()

    @property
    def context(self) -> int:
        """How many tokens the model reads at most; 0 where its config does not say."""
        return int(getattr(self.config, "max_position_embeddings", 0) or getattr(self.config, "max_seq_len", 0) or 0)

    def check_lengths(self, questions: Sequence[str], new: int) -> None:
        """Look whether each question fits the model's context with an answer of *new* tokens.

        Raises:
            DataError: one does not.
        """
        limit = self.context
        for question in questions:
            tokens = self.encode(question)
            if limit and len(tokens) + new > limit:
                raise DataError(
                    f"A question of {len(tokens)} tokens and {new} for its answer exceed the model's context of "
                    f"{limit}: {question[:60]!r} … Shorten or remove it."
                )


def _short_of_memory(meanwhile: str, otherwise: str = "") -> SourceError:
    """What the user is told when memory ends and there is nothing to halve."""
    return SourceError(
        f"Out of memory while {meanwhile}. Use fewer workers (-n), or raise `memory_gib` in the registry, by which -n "
        f"auto counts them{otherwise}."
    )


@contextlib.contextmanager
def enough_memory(meanwhile: str, otherwise: str = "") -> Iterator[None]:
    """Say what the user can do, where what is done within runs out of memory.

    Raises:
        SourceError: it does.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise _short_of_memory(meanwhile, otherwise) from error


def _out_of_memory(error: Exception) -> bool:
    """Whether torch, or Python, found no memory; on a CPU torch only says so, in words of the system's own."""
    said = ("can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in said)


def padding_limit(config: Any) -> int | None:
    """From how many tokens on a model takes unused room in its cache for distance: those of a sliding window, which
    counts columns; none for MPT, whose attention biases do; never (None) where positions are told to the model."""
    if config.model_type == "mpt":
        return 0
    return int(getattr(config, "sliding_window", None) or 0) or None


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all *rows* (at least one) begin with."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return sum(1 for _ in alike)


def agreed(guess: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens of *guess* the model chose itself, one after the other."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(guess, chosen, strict=False)))


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(token for token in [tokenizer.eos_token_id, *found] if token is not None))
