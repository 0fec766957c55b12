"""The attacks of the package, from attacks.toml."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from safety_harness.attacks import rewrites
from safety_harness.attacks.attack import Attack, Misfit
from safety_harness.attacks.phrasing import Phrasing
from safety_harness.attacks.templates import OBJECT, QUESTION, VERSION, Rewrite, Template, rewritten
from safety_harness.conversation import Conversation, Role


def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("attacks.toml").read_text("utf-8"))


@functools.cache
def builtin_attacks() -> Mapping[str, Attack]:
    """Return the attacks of the package by name, in the order of their table."""
    table = _table()
    phrasing = Phrasing(table["phrasing"])
    changes: dict[str, Rewrite] = {
        "leet": rewrites.leet,
        "spaced": rewrites.spaced,
        "noisy": rewrites.noisy,
        "flipped": rewrites.flipped,
        "rot13": rewrites.rot13,
        "base64": rewrites.base64_text,
        "verb_phrase": phrasing.verb_phrase,
    }
    words = json.dumps(table["phrasing"])
    return {name: _attack(name, row, changes, phrasing, words) for name, row in table["attacks"].items()}


def _attack(
    name: str, row: Mapping[str, Any], changes: Mapping[str, Rewrite], phrasing: Phrasing, words: str
) -> Attack:
    """Return the attack of one *row*."""
    turns: list[tuple[Role, str]] = [("system", row["system"])] if "system" in row else []
    turns += [(role, text) for role, text in row.get("before", [])]
    turns.append(("user", row.get("user", QUESTION)))
    template = Template(tuple(turns), row.get("prefill", ""), row.get("rewrite", ""))
    named = OBJECT in template.prefill
    rewrite = changes[template.rewrite] if template.rewrite else None

    def transform(question: str, seed: int) -> Conversation | Misfit:
        asked = rewritten(question, rewrite, seed)
        wanted = phrasing.object(question) if named else ""
        if isinstance(asked, Misfit):
            return asked
        return wanted if isinstance(wanted, Misfit) else template.fill(asked, {"object": wanted})

    content = [VERSION, template.content, words if named or template.rewrite == "verb_phrase" else ""]
    return Attack(name, row["kind"], row["source"], transform, json.dumps(content), row.get("strong", False))
