"""Read the grammar of refusing in one language: patterns by group and name, from grammar/LANGUAGE.toml."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from safety_harness.judging.literals import Pattern
from safety_harness.judging.normal import one_form

_FOLDER = resources.files(__package__).joinpath("grammar")


@dataclass(frozen=True)
class Grammar:
    """What one language says no with. ``opening_chars`` is how far the patterns of [opening.*] look."""

    opening_chars: int
    rules: Mapping[str, Mapping[str, Pattern]]

    def first(self, group: str, text: str) -> str | None:
        """Return the name of the first rule of *group* that fires on *text*, or None."""
        has = text.__contains__
        # As Pattern.search, which costs a call each time: most of a judge's time is spent here.
        for name, rule in self.rules.get(group, {}).items():
            if any(map(has, rule.words)) and rule.compiled.search(text):
                return name
        return None

    def without(self, group: str, text: str) -> str:
        """Return *text* with all that the rules of *group* find in it taken out."""
        for rule in self.rules.get(group, {}).values():
            text = rule.sub(" ", text)
        return text

    def until(self, group: str, text: str) -> str | None:
        """Return *text* up to the end of what a rule of *group* finds in it, or None."""
        found = (rule.search(text) for rule in self.rules.get(group, {}).values())
        return next((text[: match.end()] for match in found if match), None)


@cache
def grammars() -> Mapping[str, Grammar]:
    """Return the grammar of each language that the judge reads, by its ISO 639-1 code."""
    return {name: _compiled(tomllib.loads(raw.decode("utf-8"))) for name, raw in _files().items()}


@cache
def fingerprint(version: str) -> str:
    """Return the digest of a *version* and of each byte of every grammar, comments too, with either end of line."""
    digest = hashlib.sha256(version.encode())
    for name, raw in _files().items():
        digest.update(f"{name}\0".encode() + raw.replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


@cache
def _files() -> Mapping[str, bytes]:
    found = (file for file in _FOLDER.iterdir() if file.name.endswith(".toml"))
    return {file.name.removesuffix(".toml"): file.read_bytes() for file in sorted(found, key=lambda file: file.name)}


def _compiled(table: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Grammar:
    """Compile the patterns of a file. A later word, or a pattern, names an earlier word as <word>."""
    # Answers are matched in this form, in which some letters of other scripts are two.
    table = _in_one_form(table)
    words: dict[str, str] = {}
    for word, source in table["words"].items():
        words[word] = _expand(str(source), words)
    rules = {
        f"{part}.{group}": {name: Pattern(_expand(source, words)) for name, source in sources.items()}
        for part in ("opening", "answer")
        for group, sources in table[part].items()
    }
    return Grammar(int(str(table["opening_chars"])), rules)


def _in_one_form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_one_form(one) for name, one in value.items()}
    return one_form(value) if isinstance(value, str) else value


def _expand(source: str, words: Mapping[str, str]) -> str:
    return re.sub(r"<([a-z_]+)>", lambda match: words[match[1]], source)
