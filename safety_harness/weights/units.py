"""Units: the smallest things that can be transplanted, by name, in groups, and in parts.

A unit is one role (``q k v o gate up down``) of one layer, or some of its channels. Channels are attention channels or
MLP neurons: rows of q, k, v, gate and up, and columns of o and down. The layout of an architecture says where they lie
in a model's tensors (:mod:`safety_harness.weights.architectures`). Nothing here guesses from a tensor's name.

Of a unit with a rank, channels are components: terms of the singular value decomposition of what the teacher adds.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from safety_harness.errors import UnitError
from safety_harness.weights.ranges import ascending, numbers, ranges
from safety_harness.weights.ranges import count as count_of

Shape = tuple[int, ...]

# The roles of a layer's attention. All other roles are its MLP.
ATTENTION = frozenset("qkvo")

# 12.gate, 12.gate[3,40-43], or of components 12.gate~8[0,2]. No model has a layer or a channel of more digits.
_ID = re.compile(
    r"([0-9]{1,9}\.\w{1,99})(?:~([0-9]{1,9}))?(?:\[([0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*)\])?"
)


@dataclass(frozen=True, order=True)
class Places:
    """The indices of channels 0, 1, 2, … along a dimension, from ``offset`` on.

    A channel's number is written in ``digits``, slowest first: the number of values of each, and the distance between
    two of them. The rows of one projection are ``((rows, 1),)``. Heads that alternate with other heads take two digits.
    """

    digits: tuple[tuple[int, int], ...]
    offset: int = 0

    def __len__(self) -> int:
        return math.prod(count for count, _ in self.digits)

    def of(self, channels: Iterable[int]) -> tuple[int, ...]:
        """Return the indices of *channels*, in their order."""
        if len(self.digits) == 1:
            ((_, apart),) = self.digits
            return tuple(self.offset + channel * apart for channel in channels)
        return tuple(map(self._place, channels))

    def _place(self, channel: int) -> int:
        """Return the index of one channel."""
        place = self.offset
        for count, apart in reversed(self.digits):
            channel, digit = divmod(channel, count)
            place += digit * apart
        return place


@dataclass(frozen=True, order=True)
class Spot:
    """The channels of a unit in one tensor of a *shape*: their *places* along dimension *axis*.

    ``axis`` is -1 if the tensor belongs to no channel, as the bias of o or down does: it moves only with the whole
    unit. ``within`` are indices of leading dimensions that *shape* and *axis* leave out, as an expert's number.
    """

    name: str
    shape: Shape
    axis: int
    places: Places
    within: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the channels are the whole tensor, in their order."""
        return self.axis < 0 or (self.places.digits, self.places.offset) == (((self.shape[self.axis], 1),), 0)

    @property
    def each(self) -> int:
        """How many numbers one channel has."""
        return math.prod(self.shape) // self.shape[self.axis]


@dataclass(frozen=True, order=True)
class Part:
    """A unit's channels in one tensor of the checkpoint, and the place of these numbers in the loaded model."""

    disk: Spot
    memory: Spot

    @property
    def alike(self) -> bool:
        """Whether the tensor is laid out equally on disk and in memory, under any name."""
        return replace(self.disk, name=self.memory.name) == self.memory


@dataclass(frozen=True, order=True)
class Unit:
    """One role of one layer, or some of its channels, which move together. Without ``channels`` it is whole.

    With a ``rank``, its channels are so many components of what the teacher adds.
    """

    layer: int
    role: str
    parts: tuple[Part, ...]
    channels: tuple[int, ...] = ()
    rank: int = 0

    @property
    def module(self) -> str:
        """The layer and role that the unit is, or is a part of: ``12.gate``."""
        return f"{self.layer}.{self.role}"

    @property
    def id(self) -> str:
        """The unit's name, unique within a model: ``12.gate``, or with its channels ``12.gate[3,40-43]``.

        Components are named with their rank: ``12.gate~8[0,2]`` are two of the eight largest.
        """
        whole = f"{self.module}~{self.rank}" if self.rank else self.module
        return f"{whole}[{ranges(self.channels)}]" if self.channels else whole

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors of the checkpoint that the unit lies in."""
        return tuple(part.disk.name for part in self.parts)

    @property
    def width(self) -> int:
        """How many channels the whole module has, or components."""
        return self.rank or len(self.parts[0].disk.places)

    @property
    def parameters(self) -> int:
        """How many numbers the unit moves. A component is its two singular vectors, a row's and a column's numbers."""
        count = len(self.channels) or self.width
        if self.rank:  # of many components, no more than there are numbers
            return sum(min(count * sum(part.disk.shape), math.prod(part.disk.shape)) for part in self.parts)
        return sum(part.disk.each * count if part.disk.axis >= 0 else math.prod(part.disk.shape) for part in self.parts)


Group = tuple[Unit, ...]
"""Units that a search keeps or drops together."""

# The key that units of one group share, by the value of the setting `together`.
_TOGETHER: Mapping[str, Callable[[Unit], object]] = {
    "module": lambda unit: unit.module,
    "block": lambda unit: (unit.layer, unit.role in ATTENTION),
    "layer": lambda unit: unit.layer,
}


def grouped(units: Iterable[Unit], together: str) -> tuple[Group, ...]:
    """Return *units* in groups: by ``module``, by ``block`` (attention or MLP of a layer) or by ``layer``."""
    groups: dict[object, list[Unit]] = {}
    for unit in units:
        groups.setdefault(_TOGETHER[together](unit), []).append(unit)
    return tuple(map(tuple, groups.values()))


def flat(groups: Iterable[Group]) -> tuple[Unit, ...]:
    """Return the units of *groups*, in order."""
    return tuple(itertools.chain.from_iterable(groups))


def group_id(group: Group) -> str:
    """Return the name of a group: the ids of its units, as ``12.gate[3]+12.down[7,9]``."""
    return "+".join(unit.id for unit in group)


def ranked(unit: Unit, rank: int) -> Unit:
    """Return a whole *unit* of which components move: at most *rank* of each of its matrices. Biases stay.

    Raises:
        UnitError: it shares a tensor with other units, or has no matrix.
    """
    matrices = tuple(part for part in unit.parts if len(part.disk.shape) > 1)
    if not matrices or any(len(part.disk.shape) > 2 or not part.disk.whole for part in matrices):
        raise UnitError(
            f"{unit.module}: components cannot be taken of it, because it is no whole matrix of the checkpoint. "
            'Search with grain = "channel".'
        )
    return replace(unit, parts=matrices, rank=min(rank, *(min(part.disk.shape) for part in matrices)))


def cut(unit: Unit, channels: Iterable[int]) -> Unit:
    """Return these *channels* of a whole *unit*, or the unit itself if they are all of its channels.

    A tensor that belongs to no channel is no part of a cut unit.

    Raises:
        UnitError: there is no channel, or one that the unit does not have.
    """
    chosen = tuple(sorted(set(channels)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= unit.width:
        raise UnitError(f"{unit.module} has the channels 0 to {unit.width - 1}, not [{ranges(chosen)}].")
    if len(chosen) == unit.width:
        return unit
    return replace(unit, parts=tuple(part for part in unit.parts if part.disk.axis >= 0), channels=chosen)


def named(identifiers: Iterable[str], whole: Sequence[Unit]) -> tuple[Group, ...]:
    """Return the groups with these ids, in their order. *whole* are the modules of the model.

    Raises:
        UnitError: an id is malformed, or names a module or a channel that the model lacks.
    """
    modules = {unit.module: unit for unit in whole}

    def unit_of(identifier: str) -> Unit:
        parts = _ID.fullmatch(identifier)
        if parts is None or parts[1] not in modules:
            raise UnitError(f"{identifier[:80]!r} is no unit of this model, whose modules are {', '.join(modules)}.")
        unit = modules[parts[1]]
        if (parts[2] or "") != str(unit.rank or ""):
            raise UnitError(
                f"{identifier[:80]!r} was searched with another `grain` or `rank`: here {unit.module} is {unit.id!r}. "
                "Set both as they were in that search."
            )
        if not parts[3]:
            return unit
        if not ascending(parts[3], unit.width):  # before they are listed: a run may have a billion numbers
            raise UnitError(
                f"{unit.module} has the channels 0 to {unit.width - 1}, not [{parts[3][:80]}], each once and in order."
            )
        return cut(unit, numbers(parts[3]))

    return tuple(tuple(map(unit_of, identifier.split("+"))) for identifier in identifiers)


def rank_of(identifier: str) -> int:
    """Return how many components a matrix had in the search of a group with this id; 0 if no components moved.

    A matrix of fewer rows or columns than the `rank` of that search had fewer, so the largest number counts.
    """
    every = map(_ID.fullmatch, identifier.split("+"))
    return max(int((parts and parts[2]) or 0) for parts in every)


def short(identifier: str) -> str:
    """Return a group's id for a reader: modules with their number of channels, as ``12.gate ×37``. Ids get long.

    Components are counted of their rank: ``12.gate ×2 of 8``.
    """
    return "+".join(map(_short, identifier.split("+")))


def _short(identifier: str) -> str:
    """Return a unit's id for a reader."""
    parts = _ID.fullmatch(identifier)
    if parts is None or not (parts[2] or parts[3]):
        return identifier
    counted = f"×{count_of(parts[3])}" if parts[3] else "×all"
    return f"{parts[1]} {counted} of {parts[2]}" if parts[2] else f"{parts[1]} {counted}"
