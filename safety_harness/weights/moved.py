"""What units move of each tensor: whole tensors, channels along one of their dimensions, or components."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from safety_harness.weights.units import Part, Unit


@dataclass(frozen=True)
class Moved:
    """What units move of one tensor of the checkpoint: ``indices`` along dimension ``axis``, ascending, or all of it.

    ``memory`` are the indices of these numbers in the loaded model, in the order of ``indices``. Empty means all.
    Where ``components`` move, every number changes: of the ``rank`` components of the teacher's, these are added.
    """

    part: Part
    axis: int
    indices: tuple[int, ...]
    memory: tuple[int, ...]
    components: tuple[int, ...] = ()
    rank: int = 0

    @property
    def name(self) -> str:
        """The tensor's name in the checkpoint."""
        return self.part.disk.name


def moved(units: Iterable[Unit]) -> tuple[Moved, ...]:
    """Return what *units* move of each tensor. Channels that several units share move once."""
    parts: dict[str, Part] = {}
    memory: dict[str, dict[int, int]] = {}
    whole: set[str] = set()
    components: dict[str, set[int]] = {}
    ranks: dict[str, int] = {}
    for unit in units:
        for part in unit.parts:
            name = part.disk.name
            parts[name] = part
            if unit.rank:
                whole.add(name)
                ranks[name] = unit.rank
                components.setdefault(name, set()).update(unit.channels or range(unit.rank))
            elif part.disk.whole and not unit.channels:
                whole.add(name)
            else:
                channels = unit.channels or range(unit.width)
                pairs = zip(part.disk.places.of(channels), part.memory.places.of(channels), strict=True)
                memory.setdefault(name, {}).update(pairs)
    return tuple(
        replace(
            _moved(part, {} if name in whole else memory[name]),
            components=tuple(sorted(components.get(name, ()))),
            rank=ranks.get(name, 0),
        )
        for name, part in parts.items()
    )


def changed(units: Iterable[Unit]) -> int:
    """Return how many numbers of the student change when whole tensors or components of *units* move."""
    return sum(math.prod(one.part.disk.shape) for one in moved(units))


def _moved(part: Part, memory: Mapping[int, int]) -> Moved:
    """Return what moves of one tensor, from a map of indices on disk to indices in memory. An empty map means all."""
    axis = part.disk.axis
    if not memory or len(memory) == part.disk.shape[axis]:
        everywhere = () if part.alike or part.memory.whole else part.memory.places.of(range(part.disk.shape[axis]))
        return Moved(part, max(axis, 0), (), everywhere)
    indices = tuple(sorted(memory))
    return Moved(part, axis, indices, tuple(memory[index] for index in indices))
