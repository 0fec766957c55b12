"""The rows of a batch on their way through the model, pass after pass: what each has read, and what it says next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.errors import NotFinite
from safety_harness.models.decoding.cuda_graphs import GraphCache, Recording

# A pass of fewer rows is no faster: what takes its time is reading the weights.
FEWEST = 8


class DecodingBatch:
    """Rows that all begin with the *shared* tokens which *cache* holds; *room* columns are the most they will take.

    With *recordings*, passes of one token a row are played from them, but for the first, which reads the questions.
    """

    def __init__(
        self,
        model: Any,
        cache: DynamicCache,
        rows: int,
        shared: int,
        pad: int,
        recordings: GraphCache | None = None,
        room: int = 0,
    ) -> None:
        self._model = model
        self._cache: DynamicCache | None = cache
        self._seen = torch.ones(rows, shared, dtype=torch.int64, device=model.device)
        self._pad = pad
        self._recordings = recordings
        self._room = room
        self._questions_read = False
        self._playing: Recording | None = None
        self._batch = rows
        self._places = list(range(rows))
        """Of a recording's rows those that are ours."""

    @property
    def columns(self) -> int:
        """How many columns of the cache are taken; before anything is played."""
        return self._seen.shape[1]

    @property
    def cache(self) -> DynamicCache:
        """What the rows have read; before anything is played."""
        assert self._cache is not None
        return self._cache

    def read(self, unread: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """Every row reads its *unread* tokens and its guess: the likeliest token after the last unread one, and after
        each of the guess.

        Raises:
            NotFinite: a NaN or an infinity came out of the model.
        """
        single = self._questions_read and not any(guesses) and all(len(row) == 1 for row in unread)
        self._questions_read = True
        if self._recordings is not None and single:
            return self._play([row[0] for row in unread])
        tokens, fresh = pad_between(unread, guesses, self._pad, self._model.device)
        position = self._seen.sum(1, keepdim=True) + (fresh.cumsum(1) - 1).clamp(min=0)
        self._seen = torch.cat([self._seen, fresh], dim=1)
        return self._choose(tokens, position, max(map(len, guesses)) + 1)

    def reject(self, agreeing: Sequence[int], width: int) -> None:
        """Of the last *width* columns, which hold guesses, only the first so many of a row were right.

        A guess that was wrong stays in the cache, where nothing may look at it.
        """
        if width:
            device = self._seen.device
            right = torch.arange(width, device=device) < torch.tensor(agreeing, device=device)[:, None]
            self._seen[:, -width:] *= right

    def keep(self, going: Sequence[int]) -> None:
        """Go on with the rows at these places alone: an answer that has ended costs nothing more."""
        if self._playing is not None:
            self._places = [self._places[at] for at in going]
            return
        rest = torch.tensor(going, device=self._seen.device)
        self.cache.batch_select_indices(rest)
        self._seen = self._seen[rest]
        self._places = list(range(len(going)))

    def _choose(self, tokens: torch.Tensor, position: torch.Tensor, last: int) -> list[list[int]]:
        """The likeliest token after each of the *last* tokens of every row."""
        output = self._model(
            input_ids=tokens,
            attention_mask=self._seen,
            position_ids=position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=last,
        )
        # The first of the likeliest, as argmax would say, which takes six times as long in bfloat16 on a CPU. A NaN
        # anywhere is the largest.
        likeliest = output.logits.max(-1)
        if not bool(likeliest.values.isfinite().all()):
            raise NotFinite("A NaN or an infinity came out of the model.")
        chosen: list[list[int]] = likeliest.indices.tolist()
        return chosen

    def _play(self, tokens: Sequence[int]) -> list[list[int]]:
        """The same, from a recording of as many rows as are left, or of up to twice as many."""
        assert self._recordings is not None
        size = self._batch
        while size > FEWEST and len(tokens) <= size // 2:
            size //= 2
        playing = self._playing
        if playing is None or playing.rows != size:
            self._playing = self._recordings.of(size, self._room)
            self._playing.load(playing or self.cache, self._places, self._seen)
            self._places = list(range(len(tokens)))
            self._cache = None  # the recording has it
        assert self._playing is not None
        return [[token] for token in self._playing.play(self._places, tokens)]


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask of *rows*, both int64 of shape (rows, longest), padded on the left."""
    return pad_between(rows, [()] * len(rows), pad, device)


def pad_between(
    heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask of rows that each join a head, padded on its left, and a tail, padded on its right:
    both int64 of shape (rows, longest head + longest tail), with every tail beginning in the same column."""
    before, after = max(map(len, heads)), max(map(len, tails))
    tokens, mask = [], []
    for head, tail in zip(heads, tails, strict=True):
        left, right = before - len(head), after - len(tail)
        tokens.append([pad] * left + [*head, *tail] + [pad] * right)
        mask.append([0] * left + [1] * (len(head) + len(tail)) + [0] * right)
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
