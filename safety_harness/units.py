"""Names and shapes of tensors -> units, the smallest things that can be transplanted.

A unit is one role (``q k v o gate up down``) of one layer, or some of its channels: attention channels or MLP neurons,
which are rows of q, k, v, gate and up, and columns of o and down. Which tensors that is, an architecture's row in
``architectures.toml`` says; nothing here guesses from a tensor's name.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from safety_harness.errors import UnitError

Shape = tuple[int, ...]

# What of a layer is its attention; the other roles are its MLP.
ATTENTION = frozenset("qkvo")

# 12.gate, or 12.gate[3,40-43]
_ID = re.compile(r"(\d+\.\w+)(?:\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\])?")


@dataclass(frozen=True, order=True)
class Unit:
    """One role of one layer, or some of its channels: what moves together.

    ``channels`` lie along dimension ``axis`` of each of the tensors; empty means all of them, whatever they are.
    """

    layer: int
    role: str
    tensors: tuple[str, ...]
    parameters: int
    axis: int = 0
    channels: tuple[int, ...] = ()

    @property
    def module(self) -> str:
        """The layer and role that it is, or is a part of: ``12.gate``."""
        return f"{self.layer}.{self.role}"

    @property
    def id(self) -> str:
        """Unique within a model: ``12.gate``, or with its channels ``12.gate[3,40-43]``."""
        return f"{self.module}[{ranges(self.channels)}]" if self.channels else self.module


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
    """What units move of one tensor: all of it, or these *channels* of it, ascending, along dimension *axis*."""

    name: str
    axis: int
    channels: tuple[int, ...]


def moved(units: Iterable[Unit]) -> tuple[Moved, ...]:
    """What *units* move of each tensor, whatever of it they share."""
    axes: dict[str, int] = {}
    channels: dict[str, set[int]] = {}
    whole: set[str] = set()
    for unit in units:
        for name in unit.tensors:
            axes[name] = unit.axis
            channels.setdefault(name, set()).update(unit.channels)
            if not unit.channels:
                whole.add(name)
    return tuple(
        Moved(name, axis, () if name in whole else tuple(sorted(channels[name]))) for name, axis in axes.items()
    )


def group_id(group: Group) -> str:
    """The ids of a group's units: ``12.gate[3]+12.down[7,9]``."""
    return "+".join(unit.id for unit in group)


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps the tensors of a layer's roles."""

    layer: str
    roles: Mapping[str, tuple[str, ...]]
    channels: Mapping[str, int]

    def tensors(self, layer: int, role: str, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """The tensors of *role* in *layer* that the model has; empty where a required one is absent."""
        prefix = self.layer.format(layer=layer)
        names = [(prefix + name.rstrip("?"), name.endswith("?")) for name in self.roles[role]]
        if any(name not in shapes for name, optional in names if not optional):
            return ()
        return tuple(name for name, _ in names if name in shapes)


@functools.cache
def layouts() -> Mapping[str, Layout]:
    """model_type -> layout, for every architecture that is known."""
    table = tomllib.loads(resources.files("safety_harness").joinpath("architectures.toml").read_text())
    built = {
        name: Layout(entry["layer"], {role: tuple(names) for role, names in entry["roles"].items()}, entry["channels"])
        for name, entry in table["layouts"].items()
    }
    return {model_type: built[layout] for model_type, layout in table["architectures"].items()}


def layout_of(model_type: str) -> Layout:
    """The layout of an architecture.

    Raises:
        UnitError: the architecture has no row; the message lists those that have one.
    """
    known = layouts()
    if model_type not in known:
        hint = difflib.get_close_matches(model_type, known, n=1)
        raise UnitError(
            f"Architecture {model_type!r} is not supported"
            + (f" (did you mean {hint[0]!r}?)" if hint else "")
            + f". Known: {', '.join(sorted(known))}. CONTRIBUTING.md says how to add one."
        )
    return known[model_type]


def enumerate_units(
    model_type: str, shapes: Mapping[str, Shape], roles: Sequence[str] | None = None
) -> tuple[Unit, ...]:
    """Every unit of a model, by layer and then in the architecture's order of roles.

    Args:
        model_type: as in ``config.json``.
        shapes: name -> shape of every tensor, as on disk.
        roles: the roles wanted; all of the architecture's when None.

    Raises:
        UnitError: unknown architecture or role, or a role that matches no tensor of this model.
    """
    layout = layout_of(model_type)
    wanted = tuple(layout.roles) if roles is None else tuple(dict.fromkeys(roles))
    if unknown := [role for role in wanted if role not in layout.roles]:
        raise UnitError(f"{model_type} has no role {unknown[0]!r}. Its roles are: {', '.join(layout.roles)}.")
    units = [
        Unit(layer, role, names, sum(math.prod(shapes[name]) for name in names), layout.channels[role])
        for layer in range(_layer_count(layout, shapes))
        for role in wanted
        if (names := layout.tensors(layer, role, shapes))
    ]
    for role in wanted:
        if not any(unit.role == role for unit in units):
            sample = ", ".join(sorted(shapes)[:8]) or "no tensors at all"
            raise UnitError(
                f"Role {role!r} of {model_type} matches no tensor of this model, which holds {sample} … "
                f"Check the row of {model_type!r} in architectures.toml against the checkpoint."
            )
    return tuple(units)


def _layer_count(layout: Layout, shapes: Mapping[str, Shape]) -> int:
    count = 0
    while any(name.startswith(layout.layer.format(layer=count)) for name in shapes):
        count += 1
    return count


def width(unit: Unit, shapes: Mapping[str, Shape]) -> int:
    """How many channels the whole of a unit's module has."""
    return shapes[unit.tensors[0]][unit.axis]


def cut(unit: Unit, channels: Iterable[int], shapes: Mapping[str, Shape]) -> Unit:
    """The part of a whole *unit* that is these *channels* of it: the unit itself when they are all of them.

    A tensor without that dimension (the bias of a projection whose channels are columns) belongs to no channel, so
    it is no part of a cut unit.

    Raises:
        UnitError: no channel, or one that the unit does not have.
    """
    chosen = tuple(sorted(set(channels)))
    most = width(unit, shapes)
    if not chosen or chosen[0] < 0 or chosen[-1] >= most:
        raise UnitError(f"{unit.module} has the channels 0 to {most - 1}, not [{ranges(chosen)}].")
    if len(chosen) == most:
        return unit
    names = tuple(name for name in unit.tensors if len(shapes[name]) > unit.axis)
    parameters = len(chosen) * sum(math.prod(shapes[name]) // shapes[name][unit.axis] for name in names)
    return replace(unit, tensors=names, parameters=parameters, channels=chosen)


def named(identifiers: Iterable[str], whole: Sequence[Unit], shapes: Mapping[str, Shape]) -> tuple[Group, ...]:
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
        return cut(unit, numbers(parts[2]), shapes) if parts[2] else unit

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
