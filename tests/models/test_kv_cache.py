"""Room in the cache and packed weights change the cost of decoding, and no bit of what it says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

import safety_harness.models.generate
from safety_harness.models.decoding.kv_cache import ROOM, PreallocatedLayer, packed_weights, preallocated_cache
from safety_harness.models.generate import Generator
from safety_harness.models.load import load
from tests.builders import ARCHITECTURES, LONG, SHORT

Pairs = Callable[[str, bool], tuple[Path, Path]]
QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", "i"]
# More than one column past the room that is made at once.
NEW = ROOM + 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_a_plain_cache_and_plain_weights(
    pairs: Pairs, architecture: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(pairs(architecture, True)[0], dtype)
    loaded.model.generation_config.eos_token_id = None

    def answers() -> list[str]:
        return Generator(loaded.model, loaded.tokenizer, batch_size=3).answers(QUESTIONS, NEW)

    found = answers()
    monkeypatch.setattr(
        safety_harness.models.generate, "preallocated_cache", lambda config: DynamicCache(config=config)
    )
    monkeypatch.setattr(safety_harness.models.generate, "packed_weights", lambda _model: contextlib.nullcontext())
    assert answers() == found
    assert len(set(found)) > 1


class Copies(TorchDispatchMode):
    """Notes the sizes of what batched products are made of, copies of a weight for each row among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.numbers += [one.numel() for one in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradients", [True, False])
def test_reading_questions_takes_no_copy_of_the_vocabulary_for_each_row(pairs: Pairs, gradients: bool) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.requires_grad_(gradients)
    vocabulary = loaded.model.get_output_embeddings().weight.numel()
    # Under inference_mode the product is not taken apart in sight of a mode; without gradients it is the same one.
    with Copies() as copies, torch.no_grad():
        loaded.model(torch.arange(12).reshape(4, 3), logits_to_keep=1)
    assert max(copies.numbers, default=0) < vocabulary


def columns(count: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 3, count, 4)


def layer_pair(pairs: Pairs) -> tuple[Any, Any]:
    """A plain layer of a cache and a roomy one."""
    config = load(pairs("llama", True)[0], "float32").model.config
    plain, roomy = DynamicCache(config=config).layers[0], preallocated_cache(config).layers[0]
    assert type(roomy) is PreallocatedLayer
    return plain, roomy


CHANGES: dict[str, Callable[[Any], Any]] = {
    "rows taken out": lambda layer: layer.batch_select_indices(torch.tensor([1])),
    "rows repeated": lambda layer: layer.batch_repeat_interleave(2),
    "rows in another order": lambda layer: layer.reorder_cache(torch.tensor([1, 0])),
    "columns taken out": lambda layer: layer.crop(-2),
    "emptied": lambda layer: layer.reset(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_holds_what_a_plain_one_holds(pairs: Pairs, change: str) -> None:
    layers = layer_pair(pairs)
    rows = {"rows taken out": 1, "rows repeated": 4}.get(change, 2)
    with torch.inference_mode():
        for new in (columns(3), columns(1), columns(ROOM + 1), columns(1)):
            plain, roomy = ([*map(torch.clone, layer.update(new, -new))] for layer in layers)
            assert all(map(torch.equal, plain, roomy))
        for layer in layers:
            CHANGES[change](layer)
        new = columns(2, rows)
        plain, roomy = (layer.update(new, -new) for layer in layers)
        assert all(map(torch.equal, plain, roomy))
        assert layers[0].get_seq_length() == layers[1].get_seq_length()


def test_gradients_flow_through_a_roomy_layer(pairs: Pairs) -> None:
    _, roomy = layer_pair(pairs)
    first = columns(2).requires_grad_()
    roomy.update(first, first)
    keys, _ = roomy.update(columns(1), columns(1))
    keys.sum().backward()
    assert first.grad is not None
    assert bool((first.grad == 1).all())


def test_a_sliding_window_keeps_its_own_layers(pairs: Pairs) -> None:
    config = load(pairs("mistral", True)[0], "float32").model.config
    assert [type(layer) for layer in preallocated_cache(config).layers] == [
        type(layer) for layer in DynamicCache(config=config).layers
    ]


def linear(dtype: torch.dtype) -> nn.Linear:
    return nn.Linear(32, 48, dtype=dtype)


def test_packed_weights_are_those_of_the_block_alone() -> None:
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
    layer = linear(torch.bfloat16)
    with pytest.raises(RuntimeError, match="broken"), torch.inference_mode(), packed_weights(layer):
        raise RuntimeError("broken")
    assert "forward" not in vars(layer)


def test_weights_are_packed_in_bfloat16_and_without_gradients_alone() -> None:
    layer = linear(torch.bfloat16)
    with packed_weights(layer):  # outside of inference_mode, where a backward pass may follow
        assert "forward" not in vars(layer)
    exact = linear(torch.float32)
    with torch.inference_mode(), packed_weights(exact):
        assert "forward" not in vars(exact)
