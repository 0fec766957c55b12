"""What makes the many short passes of decoding cheaper, bit for bit the same: room in the cache, packed weights.

A pass of one token a row makes every layer copy all that its cache holds, to put one column after it, and every matrix
product lay its weights out anew for the processor's matrix unit. benchmarks/speed/decoding.py times both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Columns made ready at once: as many as a short answer has tokens.
ROOM = 48


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values, (rows, heads, tokens, width), with room for the tokens to come.

    Whatever else changes the keys leaves the room behind: the next update sees that they are not those that it made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self._held: tuple[torch.Tensor, torch.Tensor] | None = None
        self._made: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new columns after those that are there; what is returned holds all of them."""
        if torch.is_grad_enabled():  # a gradient needs what was there as it was
            found: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return found
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._held is None or self.keys is not self._made or self._held[0].shape[-2] < after:
            self._held = (
                self._with_room(self.keys, key_states, after),
                self._with_room(self.values, value_states, after),
            )
        held_keys, held_values = self._held
        held_keys[:, :, before:after] = key_states
        held_values[:, :, before:after] = value_states
        self.keys, self.values = held_keys[:, :, :after], held_values[:, :, :after]
        self._made = self.keys
        return self.keys, self.values

    def _with_room(self, there: torch.Tensor, new: torch.Tensor, needed: int) -> torch.Tensor:
        rows, heads, _, width = new.shape
        held = new.new_empty(rows, heads, needed + ROOM, width)
        if there.numel():
            held[:, :, : there.shape[-2]] = there
        return held


def preallocated_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this config; layers of other kinds, such as sliding windows, stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Packed:
    """The forward pass of a linear layer, whose weights are laid out once, on first use."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._weight: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._weight is None:
            rows = inputs.numel() // inputs.shape[-1]
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._layer.weight.detach(), rows)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._weight, self._layer.bias, "none", [], ""
        )
        return product


@contextlib.contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Run a block with the weights of *model*'s linear layers packed; they may not change meanwhile.

    Without effect where torch cannot: on a GPU, in another dtype than bfloat16, while gradients are taken.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _packable(module.weight)]
    with contextlib.ExitStack() as undo:
        for layer in layers:
            setattr(layer, "forward", _Packed(layer))  # noqa: B010 - of this layer alone, which its type does not allow
            undo.callback(delattr, layer, "forward")
        yield


def _packable(weight: torch.Tensor) -> bool:
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
