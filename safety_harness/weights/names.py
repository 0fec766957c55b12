"""Tell what a tensor's name says about it: a buffer that the model computes, or a name that a wrapper has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from safety_harness.weights.units import Shape

# Rotary frequencies, positions and causal masks. Older versions saved them, and no program reads them.
_COMPUTED = re.compile(
    r"(?:^|\.)(?:rotary_emb\.(?:original_)?inv_freq|position_ids|(?P<mask>(?:attn|attention)\.(?:masked_)?bias))$"
)


def is_computed(name: str, shape: Shape | None = None) -> bool:
    """Return whether a tensor is a buffer that every program computes itself, by its name and its *shape* if given."""
    found = _COMPUTED.search(name)
    if not found or shape is None or not found["mask"]:
        return bool(found)
    return shape == () or (len(shape) == 4 and shape[:2] == (1, 1))  # one value to fill in, or rows and columns


def misnaming(names: Iterable[str], expected: Iterable[str]) -> str:
    """Return in words which part of their names sets *names* apart from *expected* ones, or an empty text if none does.

    A part that is too many or too few is left by a wrapper: ``module.``, ``base_model.model.``, ``_orig_mod.``.
    """
    by_end: dict[str, list[str]] = {}
    for wanted in expected:
        by_end.setdefault(".".join(wanted.rsplit(".", 2)[-2:]), []).append(wanted)
    for name in names:
        for wanted in by_end.get(".".join(name.rsplit(".", 2)[-2:]), ()):
            if part := _surplus(name, wanted):
                return f"have {part!r} too many in their names ({name!r}, where {wanted!r} belongs)"
            if part := _surplus(wanted, name):
                return f"lack {part!r} in their names ({name!r}, where {wanted!r} belongs)"
    return ""


def _surplus(longer: str, shorter: str) -> str:
    """Return the parts that *longer* has more than *shorter*, which it is otherwise, or an empty text."""
    parts, rest = longer.split("."), shorter.split(".")
    for at in range(len(parts)):
        width = len(parts) - len(rest)
        if width > 0 and parts[:at] + parts[at + width :] == rest:
            return ".".join(parts[at : at + width]) + "."
    return ""
