"""CUDA graphs: passes that are captured on a GPU once and replayed.

A pass through 32 layers starts some thousand kernels. At one token a row, each kernel takes the GPU a few microseconds,
and Python as long to start. Most of the time the GPU waits: benchmarks/speed/large_model.py times both ways. Replayed
from a graph, the kernels follow one another. A graph holds addresses, so it is of one number of rows and columns, and
of weights where they lie. Units that are written over in place leave it valid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import StaticLayer

from safety_harness.errors import NotFinite

# A graph's columns are a multiple of this, so that batches of about one length share a graph.
COLUMNS_PER_STEP = 64
# Bytes of keys and values that graphs may hold next to any model, however small it is.
MIN_GRAPH_BYTES = 2**31
# A chat template gives one prefix, and so does each batch whose questions begin alike beyond it.
KEPT_PREFIX_GRAPHS = 8


class DecodeGraph:
    """One pass of one token a row over *rows* rows and up to *columns* columns, with a KV cache of its own.

    On a CPU, where nothing can be captured, every replay runs the pass again.
    """

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        device = model.device
        self.rows = rows
        self.cache = StaticCache(config=model.config, max_cache_len=columns)
        """The keys and values of all rows and columns."""
        self._model = model
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._mask = torch.ones(rows, columns, dtype=torch.int64, device=device)
        self._column = torch.zeros(1, dtype=torch.int64, device=device)
        self._chosen = torch.zeros(rows, 2, dtype=torch.int64, device=device)
        """The likeliest token of each row, and whether its logit is finite."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pass()  # libraries allocate their workspace in the first pass, which can't be captured
        if device.type == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._pass()

    @property
    def captured(self) -> bool:
        """Whether there is a CUDA graph to replay."""
        return self._graph is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def load(self, source: DynamicCache | DecodeGraph, places: Sequence[int], mask: torch.Tensor | None = None) -> None:
        """Copy the rows at *places* of *source*. Further rows of this graph repeat the first of these.

        ``mask`` (rows, columns read) says which columns of a cache may be attended to. A graph has its own.
        """
        if isinstance(source, DecodeGraph):
            source, mask = source.cache, source._mask[:, : int(source._column)]
        assert mask is not None
        length = mask.shape[1]
        rows = torch.tensor([*places, *[places[0]] * (self.rows - len(places))], device=mask.device)
        for target_layer, source_layer in zip(self.cache.layers, source.layers, strict=True):
            for target, numbers in (
                (target_layer.keys, source_layer.keys),
                (target_layer.values, source_layer.values),
            ):
                target[:, :, :length] = numbers[:, :, :length][rows.to(numbers.device)]
                # These columns are masked, but a NaN that an earlier batch left there would still spread.
                target[:, :, length:] = 0
            target_layer.cumulative_length.fill_(length)
        self._column.fill_(length)
        self._mask.zero_()
        self._mask[:, :length] = mask[rows]
        self._position.copy_(self._mask.sum(1, keepdim=True))

    def replay(self, places: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Read one token in each row at *places*, and return the likeliest token after each.

        The remaining rows read whatever token stands there, and nothing depends on them.

        Raises:
            NotFinite: the model computed a NaN or an infinity.
        """
        device = self._tokens.device
        at = torch.tensor(places, device=device)
        self._tokens[at, 0] = torch.tensor(tokens, device=device)
        if self._graph is None:
            self._pass()
        else:
            self._graph.replay()
        chosen: list[list[int]] = self._chosen.tolist()
        if not all(chosen[place][1] for place in places):
            raise NotFinite("A NaN or an infinity came out of the model.")
        return [chosen[place][0] for place in places]

    def _pass(self) -> None:
        """Run one pass, in tensors that keep their addresses."""
        self._mask.index_fill_(1, self._column, 1)
        logits = self._model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        likeliest = logits.max(-1)
        self._chosen.copy_(torch.cat([likeliest.indices, likeliest.values.isfinite()], dim=1))
        self._position.add_(1)
        self._column.add_(1)


class PrefixGraph:
    """The pass of one row over the *tokens* with which all questions of a batch begin."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        self._model = model
        self._tokens = torch.tensor([tokens], device=model.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._cache = self._pass()
        if model.device.type == "cuda":
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._cache = self._pass()

    def replay(self, into: DynamicCache) -> None:
        """Put the keys and values of the row into an empty cache."""
        if self._graph is None:
            self._cache = self._pass()
        else:
            self._graph.replay()
        for target, source in zip(into.layers, self._cache.layers, strict=True):
            target.update(source.keys, source.values)

    def _pass(self) -> DynamicCache:
        """Run the pass, and return its keys and values."""
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=self._tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache


class GraphCache:
    """The graphs of a model: captured when first needed, and again once the model's weights lie elsewhere.

    Together the decode graphs hold at most ``max_bytes`` of keys and values: as many bytes as the model has, or two
    gibibytes for a smaller model. Those that were needed last are kept.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.max_bytes = max(MIN_GRAPH_BYTES, sum(parameter.nbytes for parameter in model.parameters()))
        self.decode_graphs: dict[tuple[int, int], DecodeGraph] = {}
        """(rows, columns) -> graph, the one that was needed last at the end."""
        self.prefix_graphs: dict[tuple[int, ...], PrefixGraph] = {}
        """Tokens -> graph, the one that was needed last at the end."""
        self._addresses: list[int] = []

    def decode_graph(self, rows: int, columns: int) -> DecodeGraph:
        """Return a graph of *rows* rows and at least *columns* columns."""
        self._forget_moved_weights()
        shape = rows, -(-columns // COLUMNS_PER_STEP) * COLUMNS_PER_STEP
        graph = self.decode_graphs.pop(shape, None) or DecodeGraph(self._model, *shape)
        self.decode_graphs[shape] = graph
        while len(self.decode_graphs) > 1 and sum(one.nbytes for one in self.decode_graphs.values()) > self.max_bytes:
            del self.decode_graphs[next(iter(self.decode_graphs))]
        return graph

    def prefix_graph(self, tokens: Sequence[int]) -> PrefixGraph:
        """Return a graph of reading *tokens*."""
        self._forget_moved_weights()
        prefix = tuple(tokens)
        graph = self.prefix_graphs.pop(prefix, None) or PrefixGraph(self._model, prefix)
        self.prefix_graphs[prefix] = graph
        if len(self.prefix_graphs) > KEPT_PREFIX_GRAPHS:
            del self.prefix_graphs[next(iter(self.prefix_graphs))]
        return graph

    def forget(self) -> bool:
        """Drop all graphs, and return whether there were any."""
        held = bool(self.decode_graphs or self.prefix_graphs)
        self.decode_graphs.clear()
        self.prefix_graphs.clear()
        return held

    def _forget_moved_weights(self) -> None:
        """Drop all graphs if any weight lies at another address than they know."""
        tensors = itertools.chain(self._model.parameters(), self._model.buffers())
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses != self._addresses:
            self.forget()
            self._addresses = addresses


def capturable(model: Any) -> bool:
    """Return whether a pass of *model* can be captured.

    Every layer must keep all columns of its cache. Numbers may not decide which weights they meet, as they do among
    experts. Nothing says whether the model's code copies between CPU and GPU on the way, so one capture is tried.
    """
    config = model.config.get_text_config()
    layers = StaticCache(config=model.config, max_cache_len=1).layers
    experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts"))
    if experts or config.model_type == "mpt" or any(type(layer) is not StaticLayer for layer in layers):
        return False
    try:
        with torch.inference_mode():
            DecodeGraph(model, 1, COLUMNS_PER_STEP)
    except RuntimeError:  # a copy between CPU and GPU, or no memory for a graph
        return False
    return True
