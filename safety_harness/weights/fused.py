"""Say where the channels of a role lie in a tensor that several roles share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safety_harness.errors import UnitError
from safety_harness.weights.units import Places

Config = Mapping[str, Any]


def _stacked(size: int, role: str, config: Config) -> Places:
    """Place all of q, then all of k, then all of v, each head by head."""
    heads = int(config["num_attention_heads"])
    shared = int(config.get("num_key_value_heads") or heads)
    width = size // (heads + 2 * shared)
    start, count = {"q": (0, heads), "k": (heads, shared), "v": (heads + shared, shared)}[role]
    return Places(((count * width, 1),), start * width)


def _thirds(size: int, role: str, _config: Config) -> Places:
    """Place all of q, then all of k, then all of v, all of one size."""
    return Places(((size // 3, 1),), "qkv".index(role) * (size // 3))


def _per_head(size: int, role: str, config: Config) -> Places:
    """Place q, k and v of one head after another."""
    heads = int(config["num_attention_heads"])
    width = size // (3 * heads)
    return Places(((heads, 3 * width), (width, 1)), "qkv".index(role) * width)


def _falcon(size: int, role: str, config: Config) -> Places:
    """Place the q of each group of heads, then the k and v that they share.

    Older models have one k and v for all heads, or are laid out head by head.
    """
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
    """Place all of gate, then all of up."""
    return Places(((size // 2, 1),), ("gate", "up").index(role) * (size // 2))


def _alternating(size: int, role: str, _config: Config) -> Places:
    """Place gate and up in turn."""
    return Places(((size // 2, 2),), ("gate", "up").index(role))


# The ways in which roles share a tensor: the roles, and the places of a role's channels along a dimension of a size.
SCHEMES: Mapping[str, tuple[tuple[str, ...], Callable[[int, str, Config], Places]]] = {
    "stacked": (("q", "k", "v"), _stacked),
    "thirds": (("q", "k", "v"), _thirds),
    "per-head": (("q", "k", "v"), _per_head),
    "falcon": (("q", "k", "v"), _falcon),
    "halves": (("gate", "up"), _halves),
    "alternating": (("gate", "up"), _alternating),
}


def places_of(scheme: str | None, role: str, size: int, config: Config, name: str) -> Places:
    """Return the places of a role's channels along a dimension of tensor *name*, which has *size* indices.

    Raises:
        UnitError: the config does not divide the dimension.
    """
    if scheme is None:
        return Places(((size, 1),))
    roles, places = SCHEMES[scheme]
    try:
        if sum(len(places(size, each, config)) for each in roles) == size:
            return places(size, role, config)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        pass
    raise UnitError(
        f"{name}: a dimension of {size} does not divide into {', '.join(roles)} as its config.json says (heads: "
        f"{config.get('num_attention_heads')}). Check the config against the checkpoint."
    )
