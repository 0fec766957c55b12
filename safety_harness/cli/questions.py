"""Run ``safety-harness questions list`` and ``questions show``: which question sets there are, and what is in them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tabulate import tabulate

from safety_harness.cli.common import Commands, Parser, add_json, command
from safety_harness.errors import ConfigError, HarnessError, field_and_message
from safety_harness.registry.fetch import is_here
from safety_harness.registry.load import load_registry
from safety_harness.registry.named import KINDS, Kind, NamedSet, expand, sets, unknown
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.schema import Family
from safety_harness.registry.sources import PromptSource, SplitSpec
from safety_harness.registry.splits import read_source, read_split
from safety_harness.text import visible

_ABOUT = 'Sets that a registry may name, as in harmful = "advbench", and those that a registry has.'
# Words of `use` that a terminal of usual width still shows.
_WIDTH = 60


@dataclass(frozen=True)
class Listed:
    """One set, as it is listed: with its facts, and with its sources if they are known."""

    name: str
    kind: str
    facts: Mapping[str, Any]
    spec: SplitSpec | PromptSource | None
    near_duplicates: float | None = None

    @property
    def sources(self) -> tuple[PromptSource, ...]:
        """Every source of the set."""
        if isinstance(self.spec, SplitSpec):
            return (*self.spec.searched, self.spec.report)
        return (self.spec,) if self.spec else ()

    def parts(self) -> dict[str, PromptSet]:
        """Read the set, as a gate would: both sides of a split, or all of it."""
        from safety_harness.evaluation.preflight import fetch_named

        for source in self.sources:
            fetch_named(source)
        if isinstance(self.spec, SplitSpec):
            split = read_split(self.spec, 1.0 if self.kind == "task" else self.near_duplicates)
            return {"search": split.search, "held out": split.report}
        return {"all": read_source(self.spec)} if self.spec else {}


def add_questions(commands: Commands[Parser]) -> None:
    """Add the commands ``questions list`` and ``questions show``."""
    program = command(
        commands, "questions", "list question sets, or show one", examples=["list", "show advbench"], more=_ABOUT
    )
    inner = program.add_subparsers(required=True, metavar="COMMAND")
    listing = command(
        inner,
        "list",
        "list the question sets that a registry may name; needs no network",
        of="questions",
        examples=["--kind harmless"],
    )
    listing.set_defaults(run=_list)
    show_one = command(
        inner,
        "show",
        "show one question set: licence, source, sizes of both sides; fetches it if need be",
        of="questions",
        examples=["advbench", "xstest --path xstest_prompts.csv"],
    )
    show_one.set_defaults(run=_show)
    show_one.add_argument("name", help="name of a set; with --registry also FAMILY.harmful and the like")
    show_one.add_argument("--path", type=Path, help="your copy of the set, in upstream's own columns")
    show_one.add_argument("--texts", action="store_true", help="show the questions as well, some of which are harmful")
    for parser in (listing, show_one):
        parser.add_argument("--kind", choices=KINDS, help="only sets of this kind")
        parser.add_argument(
            "--registry", action="append", type=Path, default=[], help="also the sets of this registry; repeatable"
        )
        add_json(parser)


def _list(options: argparse.Namespace) -> int:
    """Print a table of the sets."""
    listed = _known(options)
    if options.json:
        print(json.dumps([_facts(one) for one in listed], indent=1))
        return 0
    rows = [
        [one.name, one.kind, *(one.facts[key] for key in ("questions", "licence", "from", "use"))] for one in listed
    ]
    headers = ("name", "kind", "number", "licence", "from", "what for")
    print(tabulate(rows, headers, disable_numparse=True, maxcolwidths=[None, None, None, None, 44, _WIDTH]))
    return 0


def _show(options: argparse.Namespace) -> int:
    """Print what is known about each set of a name.

    Raises:
        ConfigError: no set has this name.
    """
    known = _known(options)
    found = [one for one in known if one.name == options.name]
    if not found:
        raise ConfigError(unknown("question set", options.name, [one.name for one in known]))
    if options.path:
        found = [_in_copy(one, options.path) for one in found]
    shown = [_facts(one) | _contents(one, needed=options.texts or options.path, texts=options.texts) for one in found]
    if options.json:
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_lines(facts)) for facts in shown))
    return 0


def _known(options: argparse.Namespace) -> list[Listed]:
    """Return the named sets, and then those of the registries that are given."""
    known = [
        Listed(name, kind, _about(entry), _spec(kind, name) if entry.report or entry.source else None)
        for kind in KINDS
        for name, entry in sets(kind).items()
    ]
    for family in load_registry(*options.registry).families.values() if options.registry else ():
        known += _of_family(family)
    return [one for one in known if options.kind in (one.kind, None)]


def _of_family(family: Family) -> Iterator[Listed]:
    """Yield the sets of a family and of its students."""
    specs: dict[tuple[str, str], SplitSpec | PromptSource] = {
        ("harmful", "harmful"): family.harmful,
        ("harmless", "harmless"): family.harmless,
        ("text", "text"): family.text,
        **{(f"further.{name}", source.kind): source for name, source in family.further.items()},
        **{(f"must.{name}", source.kind): source for name, source in family.must.items()},
        **{(f"{name}.task", "task"): student.task for name, student in family.students.items() if student.task},
    }
    for (name, kind), spec in specs.items():
        listed = Listed(f"{family.name}.{name}", kind, {}, spec, family.near_duplicates)
        names = dict.fromkeys(map(_place, listed.sources))
        facts = {"questions": _number(listed), "licence": "", "from": ", ".join(names), "use": f"family {family.name}"}
        yield Listed(listed.name, kind, facts, spec, family.near_duplicates)


def _place(source: PromptSource) -> str:
    """Return where a source lies, in a few words."""
    return source.set or (source.path.name if source.path else str(source))


def _number(listed: Listed) -> int | str:
    """Return how many questions a registry's set has, as far as that is known without fetching any."""
    if not all(map(is_here, listed.sources)):
        return "?"
    try:
        return sum(map(len, listed.parts().values()))
    except HarnessError:  # the gate says what is wrong with it, and so does `show`
        return "?"


def _about(entry: NamedSet) -> dict[str, Any]:
    """Return the facts about a named set."""
    about = entry.model_dump(include={"title", "licence", "url", "questions", "use"})
    return about | {"from": entry.origin}


def _spec(kind: Kind, value: Any) -> SplitSpec | PromptSource:
    """Return the sources of a named set."""
    table = expand(kind, value)
    return PromptSource.model_validate(table) if kind == "text" else SplitSpec.model_validate(table)


def _in_copy(listed: Listed, path: Path) -> Listed:
    """Return a named set as it is in the user's copy.

    Raises:
        ConfigError: no file can have its name.
    """
    kind = next(kind for kind in KINDS if kind == listed.kind)
    try:
        spec = _spec(kind, {"set": listed.name, "path": str(path.absolute())})
    except ValidationError as error:
        raise ConfigError(f"--path: {field_and_message(error)[1]}.") from error
    return Listed(listed.name, kind, listed.facts, spec)


def _facts(listed: Listed) -> dict[str, Any]:
    return {"name": listed.name, "kind": listed.kind, **listed.facts}


def _contents(listed: Listed, *, needed: bool, texts: bool) -> dict[str, Any]:
    """Return what is in a set: how many questions on each side, of which categories, and their texts if asked for.

    Raises:
        HarnessError: it cannot be read, and is *needed*.
    """
    try:
        parts = listed.parts()
    except HarnessError as error:
        if needed:
            raise
        return {"parts": f"not known: {error}"}
    if not parts:
        return {"parts": "not known before you name your copy: --path FILE"}
    categories = Counter(prompt.category for prompts in parts.values() for prompt in prompts if prompt.category)
    contents: dict[str, Any] = {
        "parts": {name: len(prompts) for name, prompts in parts.items()},
        "sha256": {name: prompts.sha256 for name, prompts in parts.items()},
        "categories": dict(categories.most_common()),
    }
    return contents | ({"texts": {name: prompts.texts for name, prompts in parts.items()}} if texts else {})


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts about a set, one a line, and its texts behind them."""
    for name, value in facts.items():
        if name == "texts":
            yield from (f"[{part}] {visible(text)}" for part, texts in value.items() for text in texts)
        elif isinstance(value, Mapping):
            text = ", ".join(f"{part} {visible(str(number))}" for part, number in value.items())
            yield f"{name + ':':12}{visible(text) or '-'}"
        else:
            yield f"{name + ':':12}{visible(str(value))}"


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
