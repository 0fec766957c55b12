"""Names and shapes of tensors -> units, the smallest things that can be transplanted.

A unit is one role (``q k v o gate up down``) of one layer. Which tensors that is, an architecture's row in
``architectures.toml`` says; nothing here guesses from a tensor's name.
"""

from __future__ import annotations

import difflib
import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from safety_harness.errors import UnitError

Shape = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Unit:
    """One role of one layer: the tensors that move together."""

    layer: int
    role: str
    tensors: tuple[str, ...]
    parameters: int

    @property
    def id(self) -> str:
        """A short name, unique within a model: ``12.gate``."""
        return f"{self.layer}.{self.role}"


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps the tensors of a layer's roles."""

    layer: str
    roles: Mapping[str, tuple[str, ...]]

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
        name: Layout(entry["layer"], {role: tuple(names) for role, names in entry["roles"].items()})
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
        Unit(layer, role, names, sum(math.prod(shapes[name]) for name in names))
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


def share(units: Sequence[Unit], total_parameters: int) -> float:
    """The share of a model's parameters that *units* hold, 0..1."""
    return sum(unit.parameters for unit in units) / total_parameters
