"""Run a pattern only on texts that hold a word without which it cannot match: that spares most runs, which are slow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

# Python's own parser of patterns. It has no public name, and it knows every construct that `re` compiles.
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

Words: TypeAlias = frozenset[str] | None
"""Texts of which each match needs at least one in what is searched; None where there are none."""


class Pattern:
    """A pattern with the two methods of :class:`re.Pattern` that the rules use.

    It is read and compiled when a text first needs it: to compile the rules of all languages takes seconds.
    """

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern, self._flags = pattern, flags

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern itself."""
        return re.compile(self._pattern, self._flags)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Texts of which each match needs at least one in what is searched."""
        return literals(self._pattern, self._flags) or ("",)

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first match in *text*, or None."""
        return self.compiled.search(text) if any(map(text.__contains__, self.words)) else None

    def sub(self, by: str | Callable[[re.Match[str]], str], text: str) -> str:
        """Return *text* with each match replaced."""
        return self.compiled.sub(by, text) if any(map(text.__contains__, self.words)) else text


def literals(pattern: str, flags: int = 0) -> tuple[str, ...]:
    """Return texts of which at least one is in every text that *pattern* matches; nothing where none is known."""
    parsed = parser.parse(pattern, flags)
    if parsed.state.flags & re.IGNORECASE:
        return ()
    words = _of_sequence(parsed) or ()
    # "not" stands for "will not" as well.
    shortest = sorted(words, key=lambda word: (len(word), word))
    return tuple(word for at, word in enumerate(shortest) if not any(other in word for other in shortest[:at]))


def _of_sequence(items: Iterable[tuple[Any, Any]]) -> Words:
    """Return the texts of the part that says most: of parts that all have to match, each one will do."""
    found: list[Words] = []
    run = ""
    for op, value in items:
        if op is ops.LITERAL:
            run += chr(value)
            continue
        found.append(frozenset({run} if run else ()))
        run = ""
        found.append(_of_part(op, value))
    found.append(frozenset({run} if run else ()))
    return max(filter(None, found), key=_telling, default=None)


def _of_part(op: Any, value: Any) -> Words:
    if op is ops.SUBPATTERN:
        return _of_sequence(value[-1])
    if op is ops.BRANCH:
        return _of_any([_of_sequence(branch) for branch in value[1]])
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT) and value[0] > 0:
        return _of_sequence(value[2])
    if op is ops.ASSERT:
        return _of_sequence(value[1])
    if op is ops.IN and all(kind is ops.LITERAL for kind, _ in value):
        return frozenset(chr(code) for _, code in value)
    return None


def _of_any(branches: Sequence[Words]) -> Words:
    """Return the texts of all *branches*, of which any may match; None where one needs no text."""
    return frozenset().union(*(branch or () for branch in branches)) if all(branches) else None


def _telling(words: frozenset[str]) -> tuple[int, int]:
    return min(len(word.strip()) for word in words), -len(words)
