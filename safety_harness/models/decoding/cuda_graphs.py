"""A pass of one token a row, recorded on a GPU once and played again.

A pass through 32 layers starts some thousand kernels. At one token a row each takes the GPU a few microseconds and
Python as many to start, so that most of the time the GPU waits: benchmarks/speed/large_model.py times both. Played from
a recording (a CUDA graph), they follow one another. A recording holds addresses, so it is of so many rows and columns,
and of weights where they lie; units that are written over in place leave it valid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import StaticLayer

from safety_harness.errors import NotFinite

# Columns come in multiples of this, so that batches of about one length share a recording.
COLUMNS = 64
# Bytes that recordings may take beside any model.
LEAST_KEPT = 2**31
# Beginnings that are kept; a template has one, and so has every batch that shares more than it.
KEPT = 8


class Recording:
    """One pass of one token a row over *rows* rows and up to *columns* columns, in memory of its own.

    Where there is nothing to record with, on a CPU, the pass is made anew each time.
    """

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        device = model.device
        self.rows = rows
        self._model = model
        self._cache = StaticCache(config=model.config, max_cache_len=columns)
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._seen = torch.ones(rows, columns, dtype=torch.int64, device=device)
        self._column = torch.zeros(1, dtype=torch.int64, device=device)
        self._said = torch.zeros(rows, 2, dtype=torch.int64, device=device)
        """Of each row the likeliest token, and whether its logit is finite."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pass()  # libraries take their workspace in a first pass, which can't be recorded
        if device.type == "cuda":
            self._graph = self._record()

    @property
    def size(self) -> int:
        """Bytes of its keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._cache.layers)

    def load(self, memory: DynamicCache | Recording, places: Sequence[int], seen: torch.Tensor | None = None) -> None:
        """Take over the rows at *places* of what was read so far; what is left of the rows repeats the first of them.

        ``seen`` (rows, columns read) tells which columns of a cache count; another recording knows its own.
        """
        if isinstance(memory, Recording):
            memory, seen = memory._cache, memory._seen[:, : int(memory._column)]
        assert seen is not None
        length = seen.shape[1]
        rows = torch.tensor([*places, *[places[0]] * (self.rows - len(places))], device=seen.device)
        for mine, theirs in zip(self._cache.layers, memory.layers, strict=True):
            for own, other in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
                own[:, :, :length] = other[:, :, :length][rows]
                own[:, :, length:] = 0  # not seen, but a NaN that an earlier batch left there would be felt
            mine.cumulative_length.fill_(length)
        self._column.fill_(length)
        self._seen.zero_()
        self._seen[:, :length] = seen[rows]
        self._position.copy_(self._seen.sum(1, keepdim=True))

    def play(self, places: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Give the rows at *places* their next tokens: the likeliest token after each.

        The other rows go on by themselves, which nobody looks at.

        Raises:
            NotFinite: a NaN or an infinity came out of the model.
        """
        device = self._tokens.device
        at = torch.tensor(places, device=device)
        self._tokens[at, 0] = torch.tensor(tokens, device=device)
        if self._graph is None:
            self._pass()
        else:
            self._graph.replay()
        found: list[list[int]] = self._said.tolist()
        if not all(found[place][1] for place in places):
            raise NotFinite("A NaN or an infinity came out of the model.")
        return [found[place][0] for place in places]

    def _pass(self) -> None:
        self._seen.index_fill_(1, self._column, 1)
        logits = self._model(
            input_ids=self._tokens,
            attention_mask=self._seen,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        likeliest = logits.max(-1)
        self._said.copy_(torch.cat([likeliest.indices, likeliest.values.isfinite()], dim=1))
        self._position.add_(1)
        self._column.add_(1)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._pass()
        return graph


class Beginning:
    """The pass of one row over the *tokens* with which all questions begin."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        self._model = model
        self._tokens = torch.tensor([tokens], device=model.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._cache = self._pass()
        if model.device.type == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._cache = self._pass()

    def play(self, into: DynamicCache) -> None:
        """Put the keys and values of that row into an empty cache."""
        if self._graph is None:
            self._cache = self._pass()
        else:
            self._graph.replay()
        for theirs, mine in zip(into.layers, self._cache.layers, strict=True):
            theirs.update(mine.keys, mine.values)

    def _pass(self) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=self._tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache


class GraphCache:
    """The recordings of a model, made when first asked for, and anew when its weights have come to lie elsewhere.

    Together they hold no more bytes of keys and values than the model has, or two gibibytes where that is more; those
    asked for last are kept.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.most = max(LEAST_KEPT, sum(parameter.nbytes for parameter in model.parameters()))
        self._made: dict[tuple[int, ...], Recording] = {}
        self._beginnings: dict[tuple[int, ...], Beginning] = {}
        self._where: list[int] = []

    def of(self, rows: int, columns: int) -> Recording:
        """One for so many rows and at least so many columns."""
        self._look_where()
        shape = rows, -(-columns // COLUMNS) * COLUMNS
        found = self._made.pop(shape, None)
        self._made[shape] = found = found or Recording(self._model, *shape)
        while len(self._made) > 1 and sum(one.size for one in self._made.values()) > self.most:
            del self._made[next(iter(self._made))]
        return found

    def beginning(self, tokens: Sequence[int]) -> Beginning:
        """One of reading these *tokens*."""
        self._look_where()
        found = self._beginnings.pop(tuple(tokens), None)
        self._beginnings[tuple(tokens)] = found = found or Beginning(self._model, tokens)
        if len(self._beginnings) > KEPT:
            del self._beginnings[next(iter(self._beginnings))]
        return found

    def forget(self) -> bool:
        """Let go of all; whether there was any."""
        held = bool(self._made or self._beginnings)
        self._made.clear()
        self._beginnings.clear()
        return held

    def _look_where(self) -> None:
        numbers = itertools.chain(self._model.parameters(), self._model.buffers())
        where = [tensor.data_ptr() for tensor in numbers]
        if where != self._where:
            self.forget()
            self._where = where


def recordable(model: Any) -> bool:
    """Whether a pass of *model* can be recorded.

    Every layer must keep all columns, and which numbers run through which weights may not be decided by the numbers, as
    it is among experts. Whether its code moves anything between CPU and GPU on the way, nobody tells: it is tried.
    """
    config = model.config.get_text_config()
    layers = StaticCache(config=model.config, max_cache_len=1).layers
    experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts"))
    if experts or config.model_type == "mpt" or any(type(layer) is not StaticLayer for layer in layers):
        return False
    try:
        with torch.inference_mode():
            Recording(model, 1, COLUMNS)
    except RuntimeError:  # also where there is no room for one
        return False
    return True
