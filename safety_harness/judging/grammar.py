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

from safety_harness.judging.normal import one_form

_FOLDER = resources.files(__package__).joinpath("grammar")


@dataclass(frozen=True)
class Grammar:
    """What one language says no with. ``opening_chars`` is how far the patterns of [opening.*] look."""

    opening_chars: int
    patterns: Mapping[str, Mapping[str, re.Pattern[str]]]

    def first(self, group: str, text: str) -> str | None:
        """Return the name of the first rule of *group* that fires on *text*, or None."""
        return next((name for name, pattern in self.patterns.get(group, {}).items() if pattern.search(text)), None)

    def until(self, group: str, text: str) -> str | None:
        """Return *text* up to the end of what a rule of *group* finds in it, or None."""
        found = (pattern.search(text) for pattern in self.patterns.get(group, {}).values())
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
    patterns = {
        f"{part}.{group}": {name: re.compile(_expand(source, words)) for name, source in rules.items()}
        for part in ("opening", "answer")
        for group, rules in table[part].items()
    }
    return Grammar(int(str(table["opening_chars"])), patterns)


def _in_one_form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_one_form(one) for name, one in value.items()}
    return one_form(value) if isinstance(value, str) else value


def _expand(source: str, words: Mapping[str, str]) -> str:
    return re.sub(r"<([a-z_]+)>", lambda match: words[match[1]], source)
