"""Weights of linear layers, laid out once a batch for the processor's bfloat16 instructions instead of once a pass.

This replaces ``forward`` of every linear layer for the length of a batch, and calls three private operators of torch.
It is kept because it pays: a probe of SmolLM2-135M takes 1.13 times as long without it on a processor with
AVX512-BF16, and 1.08 times on one with AMX (docs/speed.md). Answers are the same bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class _PackedForward:
    """The forward pass of a linear layer, whose weights are packed on first use."""

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
    """Run a block with the weights of *model*'s linear layers packed. The weights may not change within it.

    This has no effect on a GPU, in another dtype than bfloat16, and while gradients are taken.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _packable(module.weight)]
    with contextlib.ExitStack() as undo:
        for layer in layers:
            # A layer of a spread model has a forward of its own already, in which accelerate's hook lies.
            before = vars(layer).get("forward")
            setattr(layer, "forward", _PackedForward(layer))  # noqa: B010 - the type allows no method of one instance
            if before is None:
                undo.callback(delattr, layer, "forward")
            else:
                undo.callback(setattr, layer, "forward", before)
        yield


def _packable(weight: torch.Tensor) -> bool:
    """Return whether torch can pack *weight*, and no backward pass may follow."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
