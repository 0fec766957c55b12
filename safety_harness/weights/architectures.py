"""List the units of a checkpoint from its config and shapes, by its architecture's row in ``architectures.toml``."""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from safety_harness.errors import UnitError, did_you_mean
from safety_harness.weights.fused import SCHEMES, Config, places_of
from safety_harness.weights.names import misnaming
from safety_harness.weights.units import Part, Places, Shape, Spot, Unit, ranked

Beginnings = tuple[str, str]
"""The beginnings of a layer's tensor names on disk and in memory."""


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a role, as the row describes it."""

    name: str
    axis: int
    optional: bool
    fused: str | None
    memory: str | None
    memory_fused: str | None


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps the tensors of a layer's roles."""

    beginnings: tuple[str, ...]
    """What a layer's tensor names may begin with on disk."""
    memory: str
    """What they begin with in the loaded model."""
    roles: Mapping[str, tuple[tuple[_Tensor, ...], ...]]
    """The alternatives of each role, of which a layer has one, each with its tensors."""
    unasked: frozenset[str]
    """Roles that are no units unless they are asked for."""
    defaults: Config
    """Values that a config may leave out."""

    def beginning(self, shapes: Mapping[str, Shape]) -> str:
        """Return the one of ``beginnings`` that a checkpoint has, or the first if it has none."""
        for beginning in self.beginnings:
            if any(name.startswith(beginning.format(layer=0)) for name in shapes):
                return beginning
        return self.beginnings[0]

    def names(self, role: str) -> list[str]:
        """Return every name that a tensor of *role* may have in the first layer."""
        tensors = itertools.chain.from_iterable(self.roles[role])
        return [
            beginning.format(layer=0) + tensor.name.format(expert=0)
            for tensor in tensors
            for beginning in self.beginnings
        ]

    def parts(self, beginnings: Beginnings, role: str, config: Config, shapes: Mapping[str, Shape]) -> tuple[Part, ...]:
        """Return the parts of *role* in the layer with these *beginnings*, or none if the layer lacks the role."""
        for tensors in self.roles[role]:
            parts = [self._parts(beginnings, role, tensor, config, shapes) for tensor in tensors]
            required = [present for tensor, present in zip(tensors, parts, strict=True) if not tensor.optional]
            if all(required) and any(parts):
                return tuple(itertools.chain.from_iterable(parts))
        return ()

    def _parts(
        self, beginnings: Beginnings, role: str, tensor: _Tensor, config: Config, shapes: Mapping[str, Shape]
    ) -> tuple[Part, ...]:
        """Return the parts of one tensor of a row: one, or one for each expert, or none if the layer lacks it."""
        prefix, held = beginnings
        if "{expert}" not in tensor.name:
            name = prefix + tensor.name
            return (self._part(name, held, role, tensor, (), config, shapes),) if name in shapes else ()
        experts: list[Part] = []
        while (name := prefix + tensor.name.format(expert=len(experts))) in shapes:
            experts.append(self._part(name, held, role, tensor, (len(experts),), config, shapes))
        return tuple(experts)

    def _part(
        self,
        name: str,
        held: str,
        role: str,
        tensor: _Tensor,
        expert: tuple[int, ...],
        config: Config,
        shapes: Mapping[str, Shape],
    ) -> Part:
        """Return the part of one tensor of the checkpoint, *name*, whose names begin with *held* in memory."""
        shape = shapes[name]
        if tensor.axis < 0:
            places = Places(((1, 1),))
        else:
            places = places_of(tensor.fused, role, shape[tensor.axis], {**self.defaults, **config}, name)
        disk = Spot(name, shape, tensor.axis, places)
        if tensor.memory is None:
            return Part(disk, Spot(held + tensor.name, shape, tensor.axis, places))
        if tensor.memory_fused is None:
            return Part(disk, Spot(held + tensor.memory, shape, tensor.axis, places, expert))
        # In memory, one dimension is shared by roles that have tensors of their own on disk.
        size = shape[tensor.axis] * len(SCHEMES[tensor.memory_fused][0])
        wider = tuple(size if at == tensor.axis else length for at, length in enumerate(shape))
        shared = places_of(tensor.memory_fused, role, size, config, name)
        return Part(disk, Spot(held + tensor.memory, wider, tensor.axis, shared, expert))


@functools.cache
def layouts() -> Mapping[str, Layout]:
    """Return the layout of every known architecture, by model_type."""
    table = tomllib.loads(resources.files(__package__).joinpath("architectures.toml").read_text())
    return {model_type: _layout(table["layouts"], name) for model_type, name in table["architectures"].items()}


def _layout(table: Mapping[str, Any], name: str) -> Layout:
    """Return the layout *name* of a table, with the roles of the layout that it is ``like``."""
    entry = table[name]
    like = table[entry["like"]]["roles"] if "like" in entry else {}
    roles = {
        role: tuple(map(_alternative, tensors if isinstance(tensors[0], list) else [tensors]))
        for role, tensors in {**like, **entry.get("roles", {})}.items()
    }
    beginnings = entry["layer"] if isinstance(entry["layer"], list) else [entry["layer"]]
    return Layout(
        tuple(beginnings),
        entry.get("memory", beginnings[0]),
        roles,
        frozenset(entry.get("unasked", ())),
        entry.get("defaults", {}),
    )


def _alternative(tensors: Sequence[Mapping[str, Any]]) -> tuple[_Tensor, ...]:
    """Return the tensors of one alternative of a role."""
    return tuple(
        _Tensor(
            entry["name"].rstrip("?"),
            entry["axis"],
            entry["name"].endswith("?"),
            entry.get("fused"),
            entry.get("memory", {}).get("name"),
            entry.get("memory", {}).get("fused"),
        )
        for entry in tensors
    )


def layout_of(model_type: str) -> Layout:
    """Return the layout of an architecture.

    Raises:
        UnitError: the architecture has no row. The message lists the architectures that have one.
    """
    known = layouts()
    if model_type not in known:
        raise UnitError(
            f"Architecture {model_type!r} is not supported.{did_you_mean(model_type, known)} "
            f"Known: {', '.join(sorted(known))}. CONTRIBUTING.md says how to add one."
        )
    return known[model_type]


def enumerate_units(
    config: Config, shapes: Mapping[str, Shape], roles: Sequence[str] | None = None, rank: int = 0
) -> tuple[Unit, ...]:
    """Return every unit of a model, by layer and then in the architecture's order of roles.

    Args:
        config: the content of ``config.json``.
        shapes: the name and shape of every tensor on disk.
        roles: the roles to list. None means all roles of the architecture, without the routers of experts.
        rank: how many components of each matrix may move; 0 if channels do.

    Raises:
        UnitError: the architecture or a role is unknown, or a role matches no tensor of this model. Components cannot
            be taken of a unit.
    """
    model_type = str(config.get("model_type", ""))
    layout = layout_of(model_type)
    default_roles = tuple(role for role in layout.roles if role not in layout.unasked)
    wanted = default_roles if roles is None else tuple(dict.fromkeys(roles))
    if unknown := [role for role in wanted if role not in layout.roles]:
        raise UnitError(
            f"{model_type} has no role {unknown[0]!r}. Its roles are: {', '.join(layout.roles)}."
            + (" Its MLP has no gate; `up` is what comes nearest." if unknown[0] == "gate" else "")
        )
    sizes = answering(config)
    beginning = layout.beginning(shapes)
    units = [
        Unit(layer, role, parts)
        for layer in range(_layer_count(beginning, shapes))
        for role in wanted
        if (
            parts := layout.parts(
                (beginning.format(layer=layer), layout.memory.format(layer=layer)), role, sizes, shapes
            )
        )
    ]
    for role in wanted:
        if not any(unit.role == role for unit in units) and not (roles is None and _may_lack(layout, role)):
            if wrong := misnaming(shapes, layout.names(role)):
                raise UnitError(f"Tensors of this {model_type} {wrong}")
            sample = ", ".join(sorted(shapes)[:8]) or "no tensors at all"
            raise UnitError(
                f"Role {role!r} of {model_type} matches no tensor of this model, which holds {sample} … "
                f"Check the row of {model_type!r} in architectures.toml against the checkpoint."
            )
    return tuple(ranked(unit, rank) for unit in units) if rank else tuple(units)


def answering(config: Config) -> Config:
    """Return the part of a multimodal model's config that answers, or all of any other config."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def _may_lack(layout: Layout, role: str) -> bool:
    """Return whether a model of this layout may lack the role, because all of the role's tensors are optional."""
    return all(tensor.optional for tensors in layout.roles[role] for tensor in tensors)


def _layer_count(beginning: str, shapes: Mapping[str, Shape]) -> int:
    """Return how many layers have tensors."""
    pattern = re.compile(re.escape(beginning).replace(re.escape("{layer}"), r"(0|[1-9]\d{0,8})"))
    layers = {int(found[1]) for name in shapes if (found := pattern.match(name))}
    return next(count for count in range(len(layers) + 1) if count not in layers)
