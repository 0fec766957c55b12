"""Draw the tokens of answers at random: each by its question, its draw and its position, whatever else is asked."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from safety_harness.conversation import Asked, Decoding

Draw = Callable[[torch.Tensor], torch.Tensor]
"""Draws a token for each row and column of logits (rows, columns, vocabulary): their ids, of shape (rows, columns)."""

# Bits of a number. With one bit more, a number times the sum of all probabilities could be rounded up to that sum.
_BITS = 52


@dataclass(frozen=True)
class Sampling:
    """Draws the tokens of the rows of a batch at a ``temperature`` above 0, each row by its own seed.

    A token is drawn by the inverse of the distribution function: the probabilities stand in a row from 0 to 1, and one
    uniform number falls on the token. A hash of seed and position is that number. Nothing is drawn in turn, so a draft
    is compared at all of its positions at once. Gumbel noise would take a number for each token of the vocabulary: five
    to ten times as long.
    """

    temperature: float
    seeds: tuple[int, ...]
    """The seed of each row."""
    before: int = 0
    """How many tokens of each answer were drawn before its first one here."""

    @classmethod
    def of(cls, decoding: Decoding, questions: Sequence[Asked]) -> Self | None:
        """Return how the answers to *questions* are drawn; None if *decoding* is greedy."""
        if decoding.greedy:
            return None
        return cls(decoding.temperature, tuple(decoding.seed(question) for question in questions))

    def of_row(self, row: int) -> Self:
        """Return how the answer of one *row* is drawn."""
        return replace(self, seeds=(self.seeds[row],))

    def after(self, tokens: int) -> Self:
        """Return how answers go on that have this many *tokens*."""
        return replace(self, before=self.before + tokens)

    def at(self, places: Sequence[tuple[int, int]]) -> Draw:
        """Return what draws the next tokens of answers: each place is a row, and the tokens that its answer has."""
        return functools.partial(self._draw, places)

    def _draw(self, places: Sequence[tuple[int, int]], logits: torch.Tensor) -> torch.Tensor:
        """Draw the tokens of all columns, one column at a time: the probabilities take twice the memory of logits."""
        columns = []
        for column in range(logits.shape[1]):
            numbers = [uniform(self.seeds[row], self.before + there + column) for row, there in places]
            columns.append(drawn(logits[:, column], self.temperature, numbers))
        return torch.stack(columns, dim=1)


def uniform(seed: int, position: int) -> float:
    """Return the number, at least 0 and below 1, that draws the token at *position* of the answer of a *seed*."""
    digest = hashlib.sha256(f"{seed} {position}".encode()).digest()
    return math.ldexp(int.from_bytes(digest[:8], "big") >> (64 - _BITS), -_BITS)


def drawn(logits: torch.Tensor, temperature: float, numbers: Sequence[float]) -> torch.Tensor:
    """Return the token of each row of *logits* (rows, vocabulary) on which its number falls. One logit must be finite.

    All is computed in float64. The last bits of a float32 logit may depend on its batch. They move the borders between
    tokens by about a millionth, so another token comes out as rarely as another one becomes the likeliest.
    """
    scores = logits.double()
    scores -= scores.amax(-1, keepdim=True)  # first: divided by a tiny temperature, a logit may be infinite
    summed = scores.div_(temperature).softmax(-1).cumsum_(-1)
    targets = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None] * summed[:, -1:]
    # "right" passes over tokens of probability 0, also where the number is 0.
    tokens = torch.searchsorted(summed, targets, right=True)[:, 0]
    return tokens.clamp_(max=logits.shape[-1] - 1)  # a parallel sum may sink by a bit at its end
