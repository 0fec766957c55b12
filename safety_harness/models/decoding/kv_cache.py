"""A KV cache that is allocated ahead of its tokens.

With transformers' own cache, each pass of one token a row makes every layer copy all that its cache holds, to append
one column (benchmarks/speed/decoding.md). Answers are the same bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Columns that are allocated at a time: as many as a short answer has tokens.
PREALLOCATED_COLUMNS = 48


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values, (rows, heads, tokens, width), as views of larger tensors with columns to spare.

    Any other change of the keys ends the use of the larger tensors: the next update sees that it did not make them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self._allocated: tuple[torch.Tensor, torch.Tensor] | None = None
        self._view_of_keys: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns, and return the keys and values of all columns."""
        if torch.is_grad_enabled():  # a backward pass needs the earlier tensors unchanged
            appended: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return appended
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._allocated is None or self.keys is not self._view_of_keys or self._allocated[0].shape[-2] < after:
            self._allocated = (
                self._with_spare_columns(self.keys, key_states, after),
                self._with_spare_columns(self.values, value_states, after),
            )
        keys, values = self._allocated
        keys[:, :, before:after] = key_states
        values[:, :, before:after] = value_states
        self.keys, self.values = keys[:, :, :after], values[:, :, :after]
        self._view_of_keys = self.keys
        return self.keys, self.values

    def _with_spare_columns(self, present: torch.Tensor, new: torch.Tensor, columns: int) -> torch.Tensor:
        """Return a copy of *present* with room for *columns* columns and those to come."""
        rows, heads, _, width = new.shape
        allocated = new.new_empty(rows, heads, columns + PREALLOCATED_COLUMNS, width)
        if present.numel():
            allocated[:, :, : present.shape[-2]] = present
        return allocated


def preallocated_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model of this config. Layers of sliding windows and other kinds stay plain."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
