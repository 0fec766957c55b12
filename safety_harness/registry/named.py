"""Name question sets: ``harmful = "advbench"`` in a registry stands for the tables of ``sets.toml``.

Everything here works on the tables of a registry file, before they are checked. What a name stands for is an ordinary
source, so nothing behind this module knows names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from safety_harness.errors import ConfigError, did_you_mean, first_fault
from safety_harness.reading import Reader
from safety_harness.registry.settings import Count, Settings

FILE = Path(__file__).with_name("sets.toml")
SIDES = ("search", "report")
Kind = Literal["harmful", "harmless", "text", "task"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What says where a set lies. A user who says it has a copy of the set.
PLACES = {"path", "hf", "pypi", "parts"}
# Anything else is a path: it has a folder or an ending.
_NAME = re.compile(r"[\w-]{1,100}")


class NamedSet(Settings):
    """One question set of the catalogue."""

    title: str
    licence: str
    url: str
    questions: Count
    use: str
    language: str = "english"
    search: str = ""
    report: str = ""
    source: Mapping[str, Any] = Field({})
    size: str = ""
    columns: Mapping[str, Any] = Field({})

    @property
    def origin(self) -> str:
        """Where it comes from, for a table."""
        if self.report:
            return "this package"
        if "pypi" in self.source:
            return f"PyPI, {self.source['pypi']} ({self.size})"
        return f"the hub, {self.source['hf']}, or your copy" if self.source else "your copy"

    def table(self, name: str, side: str) -> dict[str, Any]:
        """Return the source of one side, or of the whole set if nothing splits it yet.

        Raises:
            ValueError: the set is only in the user's hands.
        """
        if file := getattr(self, side) or self.report:
            return {"path": str((FILE.parent / file).resolve())}
        if not self.source:
            raise ValueError(
                f'the set {name!r} cannot be fetched. Get it from {self.url} and say where it is: {{ set = "{name}", '
                'path = "…" }'
            )
        return dict(self.source)


@functools.cache
def _catalogue() -> dict[str, dict[str, Any]]:
    """Return the tables of the catalogue."""
    return Reader(ConfigError).toml(FILE)


@functools.cache
def sets(kind: Kind) -> dict[str, NamedSet]:
    """Return the named sets of a kind, by name, the default first.

    Raises:
        ConfigError: the catalogue is damaged.
    """
    try:
        return {name: NamedSet.model_validate(table) for name, table in _catalogue()[kind].items()}
    except ValidationError as error:
        raise ConfigError(f"{FILE}: {first_fault(error)}.") from error


def download_size(name: str) -> str:
    """Return how much is downloaded for the set called *name*, for a message."""
    return next((entry.size for kind in KINDS for known, entry in sets(kind).items() if known == name), "")


def languages() -> dict[str, Path]:
    """Return a file of the package for each language in which sets are written."""
    return {name: (FILE.parent / file).resolve() for name, file in _catalogue()["languages"].items()}


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a *name* of this *kind* that is not among the *known* ones."""
    names = sorted(set(known))
    short = {candidate.rpartition("/")[2]: candidate for candidate in names}
    hint = did_you_mean(name, [*names, *short], short)
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def named_set(kind: Kind, name: str) -> NamedSet:
    """Return the set of this *kind* and *name*.

    Raises:
        ValueError: there is none; the message suggests the nearest one.
    """
    if name not in sets(kind):
        raise ValueError(f"{unknown(f'{kind} question set', name[:80], sets(kind))} A file has an ending, as .jsonl")
    return sets(kind)[name]


def expand(field: str, value: Any) -> Any:
    """Return what the key *field* of a family or a student stands for. What is no name and no source stays as it is.

    Raises:
        ValueError: a set is not known, or is only in the user's hands.
    """
    if field == "further":
        return _further(value)
    kind: Kind = next(kind for kind in KINDS if kind == field)
    return _source(kind, value, "report") if kind == "text" else _split(kind, value)


def _source(kind: Kind, value: Any, side: str) -> Any:
    """Return the table of a source that is a name, a path or a table."""
    if isinstance(value, str) and value:
        value = {"set": value} if _NAME.fullmatch(value) else {"path": value}
    if not isinstance(value, dict) or not isinstance(value.get("set"), str):
        return value
    entry = named_set(kind, value["set"])
    place = {} if value.keys() & PLACES else entry.table(value["set"], side)
    # A wheel holds the rows that are asked, and not always a table. Of a copy it is not known which rows it has.
    return place | ({} if "pypi" in place else dict(entry.columns)) | value


def _split(kind: Kind, value: Any) -> Any:
    """Return the tables of both sides. A source that says nothing of sides is split by hash."""
    if isinstance(value, dict) and value.keys() & {*SIDES, "also"}:
        also = value.get("also")
        more = {"also": [_source(kind, one, "search") for one in also]} if isinstance(also, list | tuple) else {}
        return value | {side: _source(kind, value[side], side) for side in SIDES if side in value} | more
    sides = {side: _source(kind, value, side) for side in SIDES}
    if not all(isinstance(source, dict) for source in sides.values()):
        return value
    if sides["search"].get("path") != sides["report"].get("path"):  # the package has a file for either side
        return sides
    return {side: {"part": side} | source for side, source in sides.items()}


def _further(value: Any) -> Any:
    """Return the tables of further sets, from a list of names or a table by name."""
    if isinstance(value, list | tuple):
        return {label: table for name in value for label, table in _by_kind(name)}
    if not isinstance(value, dict):
        return value
    return {name: _further_source(source) for name, source in value.items()}


def _by_kind(name: Any) -> list[tuple[str, Any]]:
    """Return the table of each kind that a set has. Of two, either is called by its kind as well."""
    if not isinstance(name, str):
        raise ValueError('a list of further sets holds names, as in ["harmbench"]. Sources go into a table')
    kinds = _kinds_of(name)
    return [
        (name if len(kinds) == 1 else f"{name}-{kind}", _source(kind, {"set": name}, "report") | {"kind": kind})
        for kind in kinds
    ]


def _further_source(value: Any) -> Any:
    """Return the table of one further set. The kind of a named set need not be said if it has but one."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        value = {"set": value}
    if not isinstance(value, dict) or not isinstance(value.get("set"), str):
        return value
    kinds = [kind for kind in _kinds_of(value["set"]) if value.get("kind") in (kind, None)]
    if len(kinds) != 1:
        known = " or ".join(f'"{kind}"' for kind in _kinds_of(value["set"]))
        raise ValueError(f"which questions of the set {value['set']!r} are meant? Say kind = {known}")
    return _source(kinds[0], value, "report") | {"kind": kinds[0]}


def _kinds_of(name: str) -> list[Kind]:
    """Return which kinds of questions that are refused or answered a set has.

    Raises:
        ValueError: the set is not known.
    """
    asked: tuple[Kind, ...] = ("harmful", "harmless")
    kinds = [kind for kind in asked if name in sets(kind)]
    if not kinds:
        known = [known for kind in asked for known in sets(kind)]
        raise ValueError(unknown("question set", name[:80], known))
    return kinds
