"""The rows of one batch on their way through the model, pass after pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.errors import NotFinite
from safety_harness.models.decoding.cuda_graphs import DecodeGraph, GraphCache
from safety_harness.models.decoding.sampling import Draw

# A pass of fewer rows is no faster: reading the weights takes its time.
MIN_GRAPH_ROWS = 8

# Padding is masked wherever it stands, so any token will do. A tokenizer's own may have no row among the embeddings.
PAD = 0


class DecodingBatch:
    """Rows of token ids that go through the model together, and the KV cache of what they have read.

    All rows begin with the *shared* tokens that *cache* holds. With *graphs*, each pass that reads one token a row is
    replayed from a CUDA graph of up to *columns* columns. The first pass is not: it reads the questions.
    """

    def __init__(
        self,
        model: Any,
        cache: DynamicCache,
        rows: int,
        shared: int,
        graphs: GraphCache | None = None,
        columns: int = 0,
    ) -> None:
        self._model = model
        self._cache: DynamicCache | None = cache
        self._mask = torch.ones(rows, shared, dtype=torch.int64, device=model.device)
        """Which columns of the cache each row may attend to: shape (rows, columns read)."""
        self._graphs = graphs
        self._graph_columns = columns
        self._graph: DecodeGraph | None = None
        self._questions_read = False
        self._rows = rows
        self._places = list(range(rows))
        """The places of the remaining rows in the graph, or in the cache."""

    @property
    def columns(self) -> int:
        """How many columns of the cache are taken, as long as no graph was replayed."""
        return self._mask.shape[1]

    @property
    def cache(self) -> DynamicCache:
        """What the rows have read, as long as no graph was replayed."""
        assert self._cache is not None
        return self._cache

    def read(
        self, unread: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]], draw: Draw | None = None
    ) -> list[list[int]]:
        """Read the *unread* tokens and the draft of every row.

        Returns the likeliest token after the last unread token of a row, then the one after each token of its draft.
        With *draw*, each of these tokens is drawn, and there must be no graphs: they give the likeliest tokens.

        Raises:
            NotFinite: the model computed a NaN or an infinity.
        """
        single = self._questions_read and not any(drafts) and all(len(row) == 1 for row in unread)
        self._questions_read = True
        if self._graphs is not None and single:
            return self._replay(self._graphs, [row[0] for row in unread])
        tokens, fresh = pad_between(unread, drafts, self._model.device)
        position = self._mask.sum(1, keepdim=True) + (fresh.cumsum(1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, fresh], dim=1)
        return self._choose(tokens, position, max(map(len, drafts)) + 1, draw)

    def reject(self, accepted: Sequence[int], width: int) -> None:
        """Mask rejected draft tokens: of the last *width* columns, each row keeps its first *accepted* ones.

        The numbers of a rejected token stay in the cache, where nothing attends to them.
        """
        if width:
            device = self._mask.device
            right = torch.arange(width, device=device) < torch.tensor(accepted, device=device)[:, None]
            self._mask[:, -width:] *= right

    def keep(self, going: Sequence[int]) -> None:
        """Drop all rows but those at the places *going*, so that an answer that has ended costs nothing more."""
        if self._graph is not None:  # its number of rows is fixed, so the other rows go on unread
            self._places = [self._places[at] for at in going]
            return
        rest = torch.tensor(going, device=self._mask.device)
        for layer in self.cache.layers:  # of a spread model, each on the device of its own part
            layer.batch_select_indices(rest.to(getattr(layer, "device", None) or rest.device))
        self._mask = self._mask[rest]
        self._places = list(range(len(going)))

    def _choose(self, tokens: torch.Tensor, position: torch.Tensor, last: int, draw: Draw | None) -> list[list[int]]:
        """Return the likeliest token after each of the *last* tokens of every row, or the one that is drawn there."""
        output = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=last,
        )
        # max gives the first of the likeliest, as argmax does, which takes six times as long in bfloat16 on a CPU.
        # A NaN anywhere is the largest.
        likeliest = output.logits.max(-1)
        if not bool(likeliest.values.isfinite().all()):
            raise NotFinite("A NaN or an infinity came out of the model.")
        chosen: list[list[int]] = (likeliest.indices if draw is None else draw(output.logits)).tolist()
        return chosen

    def _replay(self, graphs: GraphCache, tokens: Sequence[int]) -> list[list[int]]:
        """Return the likeliest token after each row's one token, from a graph of at most twice the remaining rows."""
        rows = self._rows
        while rows > MIN_GRAPH_ROWS and len(tokens) <= rows // 2:
            rows //= 2
        graph = self._graph
        if graph is None or graph.rows != rows:
            wider, graph = graph, graphs.decode_graph(rows, self._graph_columns)
            graph.load(wider or self.cache, self._places, self._mask)
            self._places = list(range(len(tokens)))
            self._graph = graph
            self._cache = None  # the graph has a copy
        return [[token] for token in graph.replay(self._places, tokens)]


def pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and attention mask of *rows*, both int64 of shape (rows, longest), padded on the left."""
    return pad_between(rows, [()] * len(rows), device)


def pad_between(
    heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and attention mask of rows that each join a head and a tail.

    A head is padded on its left and a tail on its right, so that every tail begins in the same column. Both tensors
    are int64 of shape (rows, longest head + longest tail).
    """
    before, after = max(map(len, heads)), max(map(len, tails))
    tokens, mask = [], []
    for head, tail in zip(heads, tails, strict=True):
        left, right = before - len(head), after - len(tail)
        tokens.append([PAD] * left + [*head, *tail] + [PAD] * right)
        mask.append([0] * left + [1] * (len(head) + len(tail)) + [0] * right)
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
