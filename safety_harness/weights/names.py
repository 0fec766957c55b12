"""Tell what a tensor's name says about it: a buffer that the model computes, or a name that a wrapper has changed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from safety_harness.weights.units import Shape

# Rotary frequencies, positions and causal masks. Older versions saved them, and no program reads them.
_COMPUTED = re.compile(
    r"(?:^|\.)(?:rotary_emb\.(?:original_)?inv_freq|position_ids|(?P<mask>(?:attn|attention)\.(?:masked_)?bias))$"
)

# What peft puts between a module and its weights while an adapter is on it.
_ADAPTERS = ("base_layer.", "original_module.", "modules_to_save.")
UNMERGED = "Merge the adapter into the model, or save it as an adapter of its own."
_RENAME = "Save the model without a wrapper (and with its head), or rename the tensors."


def is_computed(name: str, shape: Shape | None = None) -> bool:
    """Return whether a tensor is a buffer that every program computes itself, by its name and its *shape* if given."""
    found = _COMPUTED.search(name)
    if not found or shape is None or not found["mask"]:
        return bool(found)
    return shape == () or (len(shape) == 4 and shape[:2] == (1, 1))  # one value to fill in, or rows and columns


def misnaming(names: Iterable[str], expected: Iterable[str]) -> str:
    """Return in words how *names* differ from *expected* ones by a part, and what to do; an empty text if none does.

    A part that is too many or too few is left by a wrapper: ``module.``, ``base_model.model.``, ``_orig_mod.``.
    """
    by_end: dict[str, list[str]] = {}
    for wanted in expected:
        by_end.setdefault(_end(wanted), []).append(wanted)
    for name in names:
        for wanted in by_end.get(_end(name), ()):
            where = f"({name!r}, where {wanted!r} belongs)"
            if part := _surplus(name, wanted):
                if part.startswith(_ADAPTERS):
                    return f"hold an adapter that was never merged {where}. {UNMERGED}"
                return f"have {part!r} too many in their names {where}. {_RENAME}"
            if part := _surplus(wanted, name):
                return f"lack {part!r} in their names {where}. {_RENAME}"
    return ""


def _end(name: str) -> str:
    """Return the last part of a name, which a wrapper leaves as it is."""
    return name.rpartition(".")[2]


def _surplus(longer: str, shorter: str) -> str:
    """Return the parts that *longer* has more than *shorter*, which it is otherwise, or an empty text."""
    parts, rest = longer.split("."), shorter.split(".")
    width = len(parts) - len(rest)
    same = len(list(itertools.takewhile(bool, map(str.__eq__, parts, rest)))) if width > 0 else 0
    return ".".join(parts[same : same + width]) + "." if width > 0 and parts[same + width :] == rest[same:] else ""
