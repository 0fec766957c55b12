"""A preallocated cache makes decoding cheaper, and changes no bit of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from safety_harness.models.decoding.kv_cache import PREALLOCATED_COLUMNS, PreallocatedLayer, preallocated_cache
from safety_harness.models.load import load
from safety_harness.models.speedups import Speedups
from tests.builders import LONG, SHORT, in_turns
from tests.models.answering import Pairs, generator, tokens

QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", "i"]
# More than one column past those that are allocated at once.
NEW = PREALLOCATED_COLUMNS + 2


@pytest.mark.parametrize(("architecture", "dtype"), in_turns("float32", "bfloat16"))
def test_answers_are_those_of_a_plain_cache(pairs: Pairs, architecture: str, dtype: str) -> None:
    """Compare answers that are longer than the columns that are allocated at once."""
    loaded = load(pairs(architecture, True)[0], dtype)
    loaded.model.generation_config.eos_token_id = None
    speedups = Speedups.for_model(loaded.model)
    assert speedups.preallocated
    preallocated = tokens(generator(loaded, 3, replace(speedups, drafts=None)), QUESTIONS, NEW)
    plain = replace(speedups, drafts=None, preallocated=False)
    assert tokens(generator(loaded, 3, plain), QUESTIONS, NEW) == preallocated
    assert len(set(map(tuple, preallocated))) > 1


class Copies(TorchDispatchMode):
    """Notes the sizes of the factors of batched products. A copy of a weight for each row is one of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.numbers += [one.numel() for one in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradients", [True, False])
def test_no_copy_of_the_vocabulary_is_made_for_each_row(pairs: Pairs, gradients: bool) -> None:
    """Look at the factors of all products while questions are read."""
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.requires_grad_(gradients)
    vocabulary = loaded.model.get_output_embeddings().weight.numel()
    # A dispatch mode sees no parts of a product under inference_mode. Under no_grad, torch makes the same product.
    with Copies() as copies, torch.no_grad():
        loaded.model(torch.arange(12).reshape(4, 3), logits_to_keep=1)
    assert max(copies.numbers, default=0) < vocabulary


def columns(count: int, rows: int = 2) -> torch.Tensor:
    """Return random keys or values of *count* tokens."""
    return torch.randn(rows, 3, count, 4)


def layer_pair(pairs: Pairs) -> tuple[Any, Any]:
    """Return a plain layer of a cache and a preallocated one."""
    config = load(pairs("llama", True)[0], "float32").model.config
    plain, preallocated = DynamicCache(config=config).layers[0], preallocated_cache(config).layers[0]
    assert type(preallocated) is PreallocatedLayer
    return plain, preallocated


CHANGES: dict[str, Callable[[Any], Any]] = {
    "rows taken out": lambda layer: layer.batch_select_indices(torch.tensor([1])),
    "rows repeated": lambda layer: layer.batch_repeat_interleave(2),
    "rows in another order": lambda layer: layer.reorder_cache(torch.tensor([1, 0])),
    "columns taken out": lambda layer: layer.crop(-2),
    "emptied": lambda layer: layer.reset(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_holds_what_a_plain_one_holds(pairs: Pairs, change: str) -> None:
    """Append columns, change both layers, and append again."""
    layers = layer_pair(pairs)
    rows = {"rows taken out": 1, "rows repeated": 4}.get(change, 2)
    with torch.inference_mode():
        for new in (columns(3), columns(1), columns(PREALLOCATED_COLUMNS + 1), columns(1)):
            plain, preallocated = ([*map(torch.clone, layer.update(new, -new))] for layer in layers)
            assert all(map(torch.equal, plain, preallocated))
        for layer in layers:
            CHANGES[change](layer)
        new = columns(2, rows)
        plain, preallocated = (layer.update(new, -new) for layer in layers)
        assert all(map(torch.equal, plain, preallocated))
        assert layers[0].get_seq_length() == layers[1].get_seq_length()


def test_gradients_flow_through_a_preallocated_layer(pairs: Pairs) -> None:
    """Take the gradient of earlier columns after an update."""
    _, preallocated = layer_pair(pairs)
    first = columns(2).requires_grad_()
    preallocated.update(first, first)
    keys, _ = preallocated.update(columns(1), columns(1))
    keys.sum().backward()
    assert first.grad is not None
    assert bool((first.grad == 1).all())


def test_a_sliding_window_keeps_its_own_layers(pairs: Pairs) -> None:
    """Compare the kinds of layers with those of transformers."""
    config = load(pairs("mistral", True)[0], "float32").model.config
    assert [type(layer) for layer in preallocated_cache(config).layers] == [
        type(layer) for layer in DynamicCache(config=config).layers
    ]
