"""Packed weights make bfloat16 decoding cheaper on a CPU, and change no bit of its answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from safety_harness.models.decoding.packed_weights import packed_weights
from safety_harness.models.load import load
from safety_harness.models.speedups import Speedups
from tests.builders import ARCHITECTURES
from tests.models.answering import QUESTIONS, Pairs, generator, tokens


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_plain_weights(pairs: Pairs, architecture: str) -> None:
    """Compare the answers of a bfloat16 model with and without packed weights."""
    loaded = load(pairs(architecture, True)[0], "bfloat16")
    loaded.model.generation_config.eos_token_id = None
    speedups = Speedups.for_model(loaded.model)
    assert speedups.packed
    packed = tokens(generator(loaded, 3, speedups))
    assert tokens(generator(loaded, 3, replace(speedups, packed=False))) == packed
    assert len(set(map(tuple, packed))) > 1
    assert len(packed) == len(QUESTIONS)


def linear(dtype: torch.dtype) -> nn.Linear:
    """Return a layer of random weights."""
    return nn.Linear(32, 48, dtype=dtype)


def test_packed_weights_are_those_of_the_block_alone() -> None:
    """Change a weight between two blocks."""
    layer, inputs = linear(torch.bfloat16), torch.randn(5, 32, dtype=torch.bfloat16)
    with torch.inference_mode():
        before = layer(inputs)
        with packed_weights(layer):
            assert "forward" in vars(layer)
            assert torch.equal(layer(inputs), before)
            assert torch.equal(layer(inputs[:1]), before[:1])
        layer.weight.mul_(2)
        with packed_weights(layer):
            changed = layer(inputs)
    assert not torch.equal(changed, before)
    assert "forward" not in vars(layer)


def test_packed_weights_are_undone_when_the_block_raises() -> None:
    """Raise within the block."""
    layer = linear(torch.bfloat16)
    with pytest.raises(RuntimeError, match="broken"), torch.inference_mode(), packed_weights(layer):
        raise RuntimeError("broken")
    assert "forward" not in vars(layer)


def test_only_bfloat16_without_gradients_is_packed() -> None:
    """Try a block in which a backward pass may follow, and a float32 layer."""
    layer = linear(torch.bfloat16)
    with packed_weights(layer):  # outside of inference_mode
        assert "forward" not in vars(layer)
    exact = linear(torch.float32)
    with torch.inference_mode(), packed_weights(exact):
        assert "forward" not in vars(exact)
