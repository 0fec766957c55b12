"""What each layer made of a batch of questions, taken over where no layer below has changed.

Two candidates of a search differ in few layers. Below the lowest of them both read the same questions with the same
weights, so what came out of those layers, and the keys and values they put into the cache, is taken from the candidate
that was asked before: the same numbers, as long as the batch is the same. (Packed weights, decoding.py, are laid out
for as many rows as their first pass has, which taking over may make another; a product has the same bits for each.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from safety_harness.errors import SourceError
from safety_harness.models.decoding.malloc import for_readings

# Readings of a batch that are kept: the candidate that others are made of, the last one, and one more.
KEPT = 3

# Of each layer what is in it of another model: equal where the layer computes the same.
Inside = Sequence[Hashable]


@dataclass
class _Reading:
    """What went through each layer: what came out of it, and the keys and values that it put into the cache."""

    inside: tuple[Hashable, ...]
    out: list[Any] = field(default_factory=list)
    put: list[list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=list)

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds on to."""
        put = [tensor for puts in self.put for pair in puts for tensor in pair]
        return put + [tensor for out in self.out for tensor in _tensors(out)]


class Readings:
    """The last readings of *model*."""

    def __init__(self, model: Any) -> None:
        self._layers = list(layers_of(model))
        self.most = for_readings(sum(parameter.nbytes for parameter in model.parameters()))
        """Bytes that are kept, at most."""
        self._kept: dict[tuple[Hashable, ...], _Reading] = {}
        """By what was read, and with what inside; the least lately used first."""
        self.taken = 0
        """Layers that were not run since, over all readings."""

    def forget(self) -> bool:
        """Let go of all; whether there was any."""
        held = bool(self._kept)
        self._kept.clear()
        return held

    @contextlib.contextmanager
    def reading(self, what: Hashable, inside: Inside, cache: DynamicCache) -> Iterator[None]:
        """Run a block that calls the model once, with *cache*, to read *what*, with *inside* in its layers.

        ``what`` is all that decides what goes into the lowest layer.
        """
        own = tuple(inside)
        known, level = self._nearest(what, own)
        new = _Reading(own)
        with contextlib.ExitStack() as undo:
            undo.enter_context(_watched(cache, new))
            for at, layer in enumerate(self._layers):
                run = _again(known, at, cache) if known is not None and at < level else layer.forward
                setattr(layer, "forward", _noting(run, new))  # noqa: B010 - of this layer alone
                undo.callback(delattr, layer, "forward")
            yield
        self.taken += level
        self._keep((what, own), new)

    def _nearest(self, what: Hashable, inside: tuple[Hashable, ...]) -> tuple[_Reading | None, int]:
        """The reading of *what* that is the same up to the highest layer, and how many layers are."""
        best: tuple[Hashable, ...] | None = None
        most = 0
        for key, reading in self._kept.items():
            alike = _alike(reading.inside, inside) if key[0] == what else 0
            if alike and alike >= most:  # of several, the one used last
                best, most = key, alike
        if best is None:
            return None, 0
        self._kept[best] = found = self._kept.pop(best)
        return found, most

    def _keep(self, key: tuple[Hashable, ...], reading: _Reading) -> None:
        self._kept.pop(key, None)
        self._kept[key] = reading
        alike = [other for other in self._kept if other[0] == key[0]]
        if len(alike) > KEPT:
            del self._kept[alike[0]]
        while size(self._kept.values()) > self.most:
            del self._kept[next(iter(self._kept))]


def size(readings: Iterable[_Reading]) -> int:
    """Bytes that *readings* hold on to; what one took over of another counts once."""
    storages = (tensor.untyped_storage() for reading in readings for tensor in reading.tensors())
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _noting(run: Callable[..., Any], new: _Reading) -> Callable[..., Any]:
    """A layer's pass, noted."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        new.put.append([])
        found = run(*args, **kwargs)
        new.out.append(found)
        return found

    return forward


def _again(known: _Reading, at: int, cache: DynamicCache) -> Callable[..., Any]:
    """What a layer did in another reading."""

    def forward(*_: Any, **__: Any) -> Any:
        for keys, values in known.put[at]:
            cache.update(keys, values, at)
        return known.out[at]

    return forward


@contextlib.contextmanager
def _watched(cache: DynamicCache, new: _Reading) -> Iterator[None]:
    """Note what is put into *cache*."""
    update = cache.update

    def noted(keys: torch.Tensor, values: torch.Tensor, layer: int, *args: Any, **kwargs: Any) -> Any:
        new.put[-1].append((keys, values))
        return update(keys, values, layer, *args, **kwargs)

    setattr(cache, "update", noted)  # noqa: B010 - of this cache alone
    try:
        yield
    finally:
        delattr(cache, "update")


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of *model* that answer; of a multimodal one not those that see."""
    lists = [child for child in model.get_decoder().children() if isinstance(child, nn.ModuleList)]
    if not lists:
        raise SourceError(f"{type(model).__name__}: its decoder keeps its layers in no list. Use another architecture.")
    return lists[0]


def _alike(one: Inside, other: Inside) -> int:
    """How many layers from the lowest on have the same inside."""
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        if a != b:
            return at
    return len(one)


def _tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [tensor for part in found for tensor in _tensors(part)] if isinstance(found, (tuple, list)) else []
