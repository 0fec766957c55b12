"""Make attacks of rows of a table: those of the package, from attacks.toml, and those that a registry brings."""

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
from safety_harness.errors import ConfigError


@functools.cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("attacks.toml").read_text("utf-8"))


@functools.cache
def _phrasing() -> Phrasing:
    return Phrasing(_table()["phrasing"])


@functools.cache
def _rewrites() -> Mapping[str, Rewrite]:
    return {
        "leet": rewrites.leet,
        "spaced": rewrites.spaced,
        "noisy": rewrites.noisy,
        "flipped": rewrites.flipped,
        "rot13": rewrites.rot13,
        "base64": rewrites.base64_text,
        "verb_phrase": _phrasing().verb_phrase,
    }


@functools.cache
def builtin_attacks() -> Mapping[str, Attack]:
    """Return the attacks of the package by name, in the order of their table."""
    return {name: row_attack(name, row) for name, row in _table()["attacks"].items()}


def row_attack(name: str, row: Mapping[str, Any]) -> Attack:
    """Return the attack of one *row*, whose keys attacks.toml explains.

    Raises:
        ConfigError: the question stands in none of its turns, or in several.
    """
    turns: list[tuple[Role, str]] = [("system", row["system"])] if row.get("system") else []
    turns += [(role, text) for role, text in row.get("before", [])]
    earlier = any(QUESTION in text for _, text in turns)
    if earlier and not row.get("user"):
        raise ConfigError(
            f"The attack {name!r}: {QUESTION} stands in an earlier turn. Say what the last turn is (`user`)."
        )
    turns.append(("user", row.get("user") or QUESTION))
    template = Template(tuple(turns), row.get("prefill") or "", row.get("rewrite") or "")
    if template.slots != 1:
        held = f"stands {template.slots} times" if template.slots else "stands nowhere"
        raise ConfigError(f"The attack {name!r}: {QUESTION} {held} in its turns. Write it once, where the question is.")
    if QUESTION in template.prefill or any(OBJECT in text for _, text in turns):
        raise ConfigError(f"The attack {name!r}: {QUESTION} is for a turn, and {OBJECT} for `prefill`. Exchange them.")
    named = OBJECT in template.prefill
    rewrite = _rewrites()[template.rewrite] if template.rewrite else None

    def transform(question: str, seed: int) -> Conversation | Misfit:
        asked = rewritten(question, rewrite, seed)
        wanted = _phrasing().object(question) if named else ""
        if isinstance(asked, Misfit):
            return asked
        return wanted if isinstance(wanted, Misfit) else template.fill(asked, {"object": wanted})

    words = json.dumps(_table()["phrasing"]) if named or template.rewrite == "verb_phrase" else ""
    content = json.dumps([VERSION, template.content, words])
    return Attack(name, row["kind"], row["source"], transform, content)
