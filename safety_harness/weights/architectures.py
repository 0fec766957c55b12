"""A checkpoint's config and shapes -> its units, by the row of its architecture in ``architectures.toml``."""

from __future__ import annotations

import difflib
import functools
import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from safety_harness.errors import UnitError
from safety_harness.weights.units import Part, Places, Shape, Spot, Unit

Config = Mapping[str, Any]
Beginnings = tuple[str, str]
"""How a layer's names begin on disk and in memory."""


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a role, as the row says it."""

    name: str
    axis: int
    optional: bool
    fused: str | None
    memory: str | None
    memory_fused: str | None


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps the tensors of a layer's roles; of a role's alternatives a layer has one.

    ``beginnings`` are what a layer's names may begin with on disk, ``memory`` what they begin with in the loaded model.
    """

    beginnings: tuple[str, ...]
    memory: str
    roles: Mapping[str, tuple[tuple[_Tensor, ...], ...]]
    unasked: frozenset[str]
    defaults: Config

    def beginning(self, shapes: Mapping[str, Shape]) -> str:
        """Which of the ``beginnings`` a checkpoint has; the usual one where it has none."""
        for beginning in self.beginnings:
            if any(name.startswith(beginning.format(layer=0)) for name in shapes):
                return beginning
        return self.beginnings[0]

    def parts(self, beginnings: Beginnings, role: str, config: Config, shapes: Mapping[str, Shape]) -> tuple[Part, ...]:
        """The parts of *role* in the layer whose names begin so; none where the layer lacks it."""
        for tensors in self.roles[role]:
            found = [self._parts(beginnings, role, tensor, config, shapes) for tensor in tensors]
            required = [parts for tensor, parts in zip(tensors, found, strict=True) if not tensor.optional]
            if all(required) and any(found):
                return tuple(itertools.chain.from_iterable(found))
        return ()

    def _parts(
        self, beginnings: Beginnings, role: str, tensor: _Tensor, config: Config, shapes: Mapping[str, Shape]
    ) -> tuple[Part, ...]:
        prefix, held = beginnings
        if "{expert}" not in tensor.name:
            name = prefix + tensor.name
            return (self._part(name, held, role, tensor, (), config, shapes),) if name in shapes else ()
        found: list[Part] = []
        while (name := prefix + tensor.name.format(expert=len(found))) in shapes:
            found.append(self._part(name, held, role, tensor, (len(found),), config, shapes))
        return tuple(found)

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
        shape = shapes[name]
        if tensor.axis < 0:
            places = Places(((1, 1),))
        else:
            places = _places(tensor.fused, role, shape[tensor.axis], {**self.defaults, **config}, name)
        disk = Spot(name, shape, tensor.axis, places)
        if tensor.memory is None:
            return Part(disk, Spot(held + tensor.name, shape, tensor.axis, places))
        if tensor.memory_fused is None:
            return Part(disk, Spot(held + tensor.memory, shape, tensor.axis, places, expert))
        # In memory the roles that lie apart on disk share a dimension.
        size = shape[tensor.axis] * len(SCHEMES[tensor.memory_fused][0])
        wider = tuple(size if at == tensor.axis else length for at, length in enumerate(shape))
        shared = _places(tensor.memory_fused, role, size, config, name)
        return Part(disk, Spot(held + tensor.memory, wider, tensor.axis, shared, expert))


def _stacked(size: int, role: str, config: Config) -> Places:
    """All of q, then all of k, then all of v, each head by head."""
    heads = int(config["num_attention_heads"])
    shared = int(config.get("num_key_value_heads") or heads)
    width = size // (heads + 2 * shared)
    start, count = {"q": (0, heads), "k": (heads, shared), "v": (heads + shared, shared)}[role]
    return Places(((count * width, 1),), start * width)


def _thirds(size: int, role: str, _config: Config) -> Places:
    """All of q, then all of k, then all of v, all of one size."""
    return Places(((size // 3, 1),), "qkv".index(role) * (size // 3))


def _per_head(size: int, role: str, config: Config) -> Places:
    """Of each head its q, k and v."""
    heads = int(config["num_attention_heads"])
    width = size // (3 * heads)
    return Places(((heads, 3 * width), (width, 1)), "qkv".index(role) * width)


def _falcon(size: int, role: str, config: Config) -> Places:
    """Of each group of heads their q, then the k and v that they share; or one k and v for all; or as per head."""
    heads = int(config["num_attention_heads"])
    if not config["new_decoder_architecture"]:
        one = {**config, "num_key_value_heads": 1}
        return _stacked(size, role, one) if config["multi_query"] else _per_head(size, role, config)
    groups = int(config.get("num_kv_heads") or heads)
    each = heads // groups
    width = size // (groups * (each + 2))
    start, count = {"q": (0, each), "k": (each, 1), "v": (each + 1, 1)}[role]
    return Places(((groups, (each + 2) * width), (count * width, 1)), start * width)


def _halves(size: int, role: str, _config: Config) -> Places:
    """All of gate, then all of up."""
    return Places(((size // 2, 1),), ("gate", "up").index(role) * (size // 2))


def _alternating(size: int, role: str, _config: Config) -> Places:
    """Gate and up in turn."""
    return Places(((size // 2, 2),), ("gate", "up").index(role))


# How roles share a tensor: which, and where each one's channels lie along a dimension of a size.
SCHEMES: Mapping[str, tuple[tuple[str, ...], Callable[[int, str, Config], Places]]] = {
    "stacked": (("q", "k", "v"), _stacked),
    "thirds": (("q", "k", "v"), _thirds),
    "per-head": (("q", "k", "v"), _per_head),
    "falcon": (("q", "k", "v"), _falcon),
    "halves": (("gate", "up"), _halves),
    "alternating": (("gate", "up"), _alternating),
}


def _places(scheme: str | None, role: str, size: int, config: Config, name: str) -> Places:
    if scheme is None:
        return Places(((size, 1),))
    roles, places = SCHEMES[scheme]
    try:
        if sum(len(places(size, other, config)) for other in roles) == size:
            return places(size, role, config)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        pass
    raise UnitError(
        f"{name}: a dimension of {size} does not divide into {', '.join(roles)} as its config.json says (heads: "
        f"{config.get('num_attention_heads')}). Check the config against the checkpoint."
    )


@functools.cache
def layouts() -> Mapping[str, Layout]:
    """model_type -> layout, for every architecture that is known."""
    table = tomllib.loads(resources.files(__package__).joinpath("architectures.toml").read_text())
    return {model_type: _layout(table["layouts"], name) for model_type, name in table["architectures"].items()}


def _layout(table: Mapping[str, Any], name: str) -> Layout:
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
    config: Config, shapes: Mapping[str, Shape], roles: Sequence[str] | None = None
) -> tuple[Unit, ...]:
    """Every unit of a model, by layer and then in the architecture's order of roles.

    Args:
        config: what ``config.json`` holds.
        shapes: name -> shape of every tensor, as on disk.
        roles: the roles wanted; all that the architecture has, but for routers of experts, when None.

    Raises:
        UnitError: unknown architecture or role, or a role that matches no tensor of this model.
    """
    model_type = str(config.get("model_type", ""))
    layout = layout_of(model_type)
    usual = tuple(role for role in layout.roles if role not in layout.unasked)
    wanted = usual if roles is None else tuple(dict.fromkeys(roles))
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
            sample = ", ".join(sorted(shapes)[:8]) or "no tensors at all"
            raise UnitError(
                f"Role {role!r} of {model_type} matches no tensor of this model, which holds {sample} … "
                f"Check the row of {model_type!r} in architectures.toml against the checkpoint."
            )
    return tuple(units)


def answering(config: Config) -> Config:
    """Of a multimodal model's config the part that answers; of any other all of it."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def _may_lack(layout: Layout, role: str) -> bool:
    """Whether a model of this layout may be without the role: all of its tensors are optional."""
    return all(tensor.optional for tensors in layout.roles[role] for tensor in tensors)


def _layer_count(beginning: str, shapes: Mapping[str, Shape]) -> int:
    count = 0
    while any(name.startswith(beginning.format(layer=count)) for name in shapes):
        count += 1
    return count
