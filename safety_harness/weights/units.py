"""Units: the smallest things that can be transplanted, by name, in groups, and in parts.

A unit is one role (``q k v o gate up down``) of one layer, or some of its channels: attention channels or MLP neurons,
which are rows of q, k, v, gate and up, and columns of o and down. Where they lie in a model's tensors, its layout
says (:mod:`safety_harness.weights.architectures`); nothing here guesses from a tensor's name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from safety_harness.errors import UnitError

Shape = tuple[int, ...]

# What of a layer is its attention; the other roles are its MLP.
ATTENTION = frozenset("qkvo")

# 12.gate, or 12.gate[3,40-43]
_ID = re.compile(r"(\d+\.\w+)(?:\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\])?")


@dataclass(frozen=True, order=True)
class Places:
    """Where channels 0, 1, 2, … lie along a dimension, counted from ``offset``.

    ``digits`` are those of a channel's number, slowest first: how many values each has, and how far apart these lie.
    The rows of one projection are ``((rows, 1),)``; heads that are interleaved with others have two digits.
    """

    digits: tuple[tuple[int, int], ...]
    offset: int = 0

    def __len__(self) -> int:
        return math.prod(count for count, _ in self.digits)

    def of(self, channels: Iterable[int]) -> tuple[int, ...]:
        """The indices of *channels*, in their order."""
        if len(self.digits) == 1:
            ((_, apart),) = self.digits
            return tuple(self.offset + channel * apart for channel in channels)
        return tuple(map(self._place, channels))

    def _place(self, channel: int) -> int:
        place = self.offset
        for count, apart in reversed(self.digits):
            channel, digit = divmod(channel, count)
            place += digit * apart
        return place


@dataclass(frozen=True, order=True)
class Spot:
    """The channels of a unit in one tensor of a *shape*: their *places* along dimension *axis*.

    ``axis`` is -1 where the tensor belongs to no channel (the bias of what writes to the residual stream): it moves
    with all of them only. ``within`` are indices of leading dimensions that *shape* and *axis* leave out: an expert's.
    """

    name: str
    shape: Shape
    axis: int
    places: Places
    within: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is all of the tensor, and its channels lie in their order."""
        return self.axis < 0 or (self.places.digits, self.places.offset) == (((self.shape[self.axis], 1),), 0)

    @property
    def each(self) -> int:
        """Numbers of one channel."""
        return math.prod(self.shape) // self.shape[self.axis]


@dataclass(frozen=True, order=True)
class Part:
    """A unit's channels in one tensor of the checkpoint, and where the loaded model has the same numbers."""

    disk: Spot
    memory: Spot

    @property
    def alike(self) -> bool:
        """Whether the tensor is the same on disk and in memory, whatever it is called."""
        disk, memory = self.disk, self.memory
        return (disk.shape, disk.axis, disk.places, disk.within) == (
            memory.shape,
            memory.axis,
            memory.places,
            memory.within,
        )


@dataclass(frozen=True, order=True)
class Unit:
    """One role of one layer, or some of its channels: what moves together. No ``channels`` are all of them."""

    layer: int
    role: str
    parts: tuple[Part, ...]
    channels: tuple[int, ...] = ()

    @property
    def module(self) -> str:
        """The layer and role that it is, or is a part of: ``12.gate``."""
        return f"{self.layer}.{self.role}"

    @property
    def id(self) -> str:
        """Unique within a model: ``12.gate``, or with its channels ``12.gate[3,40-43]``."""
        return f"{self.module}[{ranges(self.channels)}]" if self.channels else self.module

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors of the checkpoint that it lies in."""
        return tuple(part.disk.name for part in self.parts)

    @property
    def width(self) -> int:
        """How many channels the whole of its module has."""
        return len(self.parts[0].disk.places)

    @property
    def parameters(self) -> int:
        """How many numbers it moves."""
        count = len(self.channels) or self.width
        return sum(part.disk.each * count if part.disk.axis >= 0 else math.prod(part.disk.shape) for part in self.parts)


Group = tuple[Unit, ...]
"""Units that a search takes or leaves together."""

# What makes units of one group, by the name of a setting.
_TOGETHER: Mapping[str, Callable[[Unit], object]] = {
    "module": lambda unit: unit.module,
    "block": lambda unit: (unit.layer, unit.role in ATTENTION),
    "layer": lambda unit: unit.layer,
}


def grouped(units: Iterable[Unit], together: str) -> tuple[Group, ...]:
    """*units*, in order, those of a ``module``, a ``block`` (attention or MLP of a layer) or a ``layer`` together."""
    groups: dict[object, list[Unit]] = {}
    for unit in units:
        groups.setdefault(_TOGETHER[together](unit), []).append(unit)
    return tuple(map(tuple, groups.values()))


def flat(groups: Iterable[Group]) -> tuple[Unit, ...]:
    """The units of *groups*, in order."""
    return tuple(itertools.chain.from_iterable(groups))


@dataclass(frozen=True)
class Moved:
    """What units move of one tensor of the checkpoint: all of it, or these ``indices`` of it along dimension ``axis``,
    ascending. ``memory`` are the indices of the same numbers in the loaded model, in the same order, or all."""

    part: Part
    axis: int
    indices: tuple[int, ...]
    memory: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.part.disk.name


def moved(units: Iterable[Unit]) -> tuple[Moved, ...]:
    """What *units* move of each tensor, whatever of it they share."""
    parts: dict[str, Part] = {}
    memory: dict[str, dict[int, int]] = {}
    whole: set[str] = set()
    for unit in units:
        for part in unit.parts:
            name = part.disk.name
            parts[name] = part
            if part.disk.whole and not unit.channels:
                whole.add(name)
            else:
                channels = unit.channels or range(unit.width)
                pairs = zip(part.disk.places.of(channels), part.memory.places.of(channels), strict=True)
                memory.setdefault(name, {}).update(pairs)
    return tuple(_moved(part, {} if name in whole else memory[name]) for name, part in parts.items())


def _moved(part: Part, memory: Mapping[int, int]) -> Moved:
    axis = part.disk.axis
    if not memory or len(memory) == part.disk.shape[axis]:
        everywhere = () if part.alike or part.memory.whole else part.memory.places.of(range(part.disk.shape[axis]))
        return Moved(part, max(axis, 0), (), everywhere)
    indices = tuple(sorted(memory))
    return Moved(part, axis, indices, tuple(memory[index] for index in indices))


def group_id(group: Group) -> str:
    """The ids of a group's units: ``12.gate[3]+12.down[7,9]``."""
    return "+".join(unit.id for unit in group)


def cut(unit: Unit, channels: Iterable[int]) -> Unit:
    """The part of a whole *unit* that is these *channels* of it: the unit itself when they are all of them.

    A tensor that belongs to no channel is no part of a cut unit.

    Raises:
        UnitError: no channel, or one that the unit does not have.
    """
    chosen = tuple(sorted(set(channels)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= unit.width:
        raise UnitError(f"{unit.module} has the channels 0 to {unit.width - 1}, not [{ranges(chosen)}].")
    if len(chosen) == unit.width:
        return unit
    return replace(unit, parts=tuple(part for part in unit.parts if part.disk.axis >= 0), channels=chosen)


def named(identifiers: Iterable[str], whole: Sequence[Unit]) -> tuple[Group, ...]:
    """The groups with these ids, in their order; *whole* are the modules of the model.

    Raises:
        UnitError: an id is none, or names a module or a channel that the model lacks.
    """
    modules = {unit.module: unit for unit in whole}

    def unit_of(identifier: str) -> Unit:
        parts = _ID.fullmatch(identifier)
        if parts is None or parts[1] not in modules:
            raise UnitError(f"{identifier!r} is no unit of this model, whose modules are {', '.join(modules)}.")
        unit = modules[parts[1]]
        return cut(unit, numbers(parts[2])) if parts[2] else unit

    return tuple(tuple(map(unit_of, identifier.split("+"))) for identifier in identifiers)


def short(identifier: str) -> str:
    """A group's id for a reader: modules and the number of their channels, ``12.gate ×37``; ids themselves get long."""
    return "+".join(map(_short, identifier.split("+")))


def _short(identifier: str) -> str:
    parts = _ID.fullmatch(identifier)
    return f"{parts[1]} ×{sum(1 for _ in numbers(parts[2]))}" if parts and parts[2] else identifier


def ranges(channels: Sequence[int]) -> str:
    """Ascending numbers in short: ``3,40-43``."""
    alike = itertools.groupby(enumerate(channels), key=lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(members) for _, members in alike)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def runs(text: str) -> Iterable[tuple[int, int]]:
    """First and last of each run of numbers in what :func:`ranges` made."""
    for run in text.split(","):
        first, _, last = run.partition("-")
        yield int(first), int(last or first)


def numbers(text: str) -> Iterable[int]:
    """The numbers of which :func:`ranges` made *text*."""
    for first, last in runs(text):
        yield from range(first, last + 1)
