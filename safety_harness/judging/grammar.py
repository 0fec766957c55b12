"""Read the grammar of refusing in one language: patterns by group and name, from grammar/LANGUAGE.toml."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
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

    @cached_property
    def _unpacked(self) -> Mapping[str, Sequence[tuple[str, Sequence[str], Callable[[str], object]]]]:
        return {
            group: [(name, rule.words, rule.compiled.search) for name, rule in rules.items()]
            for group, rules in self.rules.items()
        }

    def first(self, group: str, text: str) -> str | None:
        """Return the name of the first rule of *group* that fires on *text*, or None."""
        # As Pattern.search, which costs a call each time: most of a judge's time is spent here.
        for name, words, search in self._unpacked.get(group, ()):
            for word in words:
                if word in text:
                    if search(text):
                        return name
                    break
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
        f"{part}.{group}": {name: Pattern(_expand(source, words)) for name, source in _each(sources)}
        for part in ("opening", "answer")
        for group, sources in table[part].items()
    }
    return Grammar(int(str(table["opening_chars"])), rules)


def _each(sources: Mapping[str, str | list[str]]) -> Iterator[tuple[str, str]]:
    """Yield each pattern with its name. Of several under one name, each is tried on fewer texts than all as one."""
    for name, source in sources.items():
        for at, one in enumerate([source] if isinstance(source, str) else source, 1):
            yield name if at == 1 else f"{name} {at}", one


def _in_one_form(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_one_form(one) for one in value]
    if isinstance(value, dict):
        return {name: _in_one_form(one) for name, one in value.items()}
    return one_form(value) if isinstance(value, str) else value


def _expand(source: str, words: Mapping[str, str]) -> str:
    return re.sub(r"<([a-z_]+)>", lambda match: words[match[1]], source)
