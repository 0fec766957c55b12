"""Share what several commands take: which students they are about, and whether they print JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from safety_harness.errors import ConfigError, did_you_mean
from safety_harness.progress import Progress, subscribe, unsubscribe, words
from safety_harness.registry.load import Student, open_registry
from safety_harness.text import visible

Commands = argparse._SubParsersAction  # what `add_subparsers` returns; argparse has no public name for it
LATEST = Path("reports/latest/results.json")
WRONG_USAGE = 2
# Of processes, machines or students: with more of them, the arithmetic of a plan takes minutes.
MOST = 100_000


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, with the nearest name. Each command's is one too."""

    wrong_usage = WRONG_USAGE

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith((".", "?")) else "."
        self.exit(self.wrong_usage, f"{self.prog}: {visible(message)}{end} See {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse here what is not known, where the options of the command are."""
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            near = did_you_mean(rest[0].partition("=")[0], self._option_string_actions)
            self.error(f"unknown argument {rest[0]!r:.200}.{near}")
        return parsed, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            near = did_you_mean(str(value), names) or f" Known: {', '.join(names)}."
            raise argparse.ArgumentError(action, f"unknown value {value!r:.200}.{near}")


def command(
    commands: Commands[Parser],
    name: str,
    about: str,
    *,
    examples: Sequence[str],
    more: str = "",
    of: str = "",
) -> Parser:
    """Return the parser of a new command, whose help ends in *examples*. It may be one *of* another command."""
    called = f"safety-harness {of} {name}".replace("  ", " ")
    lines = "\n".join(f"  {called} {example}".rstrip() for example in examples)
    return commands.add_parser(
        name,
        help=about,
        description=textwrap.fill(f"{about[0].upper()}{about[1:]}. {more}".rstrip(), 80),
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_choice(parser: argparse._ActionsContainer) -> None:
    """Add the options that say which students a command is about."""
    parser.add_argument(
        "--registry",
        action="append",
        type=Path,
        default=[],
        help="registry file (TOML); repeatable (default: gate.toml here, or else the embedded families)",
    )
    parser.add_argument("--family", help="a family, or a group of families")
    parser.add_argument(
        "--student", action="append", default=[], help="a student (its name, or family/name); repeatable"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints facts instead of words."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def whole(text: str) -> int:
    """Return the number that *text* says. Raises ArgumentTypeError unless it is whole, and a count of things."""
    if not text.isdecimal() or len(text) > len(str(MOST)) or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number from 1 to {MOST}")
    return int(text)


def chosen(options: argparse.Namespace) -> tuple[Student, ...]:
    """Return the students that the command line chooses."""
    registry, _ = open_registry(options.registry, options.family)
    return registry.select(family=options.family, students=options.student)


def one_of(students: Sequence[Student]) -> Student:
    """Return the one student among *students*.

    Raises:
        ConfigError: there are several.
    """
    if len(students) > 1:
        names = [student.id for student in students[:5]] + (["…"] if len(students) > 5 else [])
        raise ConfigError(f"One student is needed, and {', '.join(names)} are chosen. Name it with --student.")
    return students[0]


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Say on a terminal how far long work is, in one line that goes when the work is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # only a terminal needs it

    with Console(stderr=True, highlight=False, markup=False).status("starting") as status:

        def draw(moment: Progress) -> None:
            left = "" if moment.rest is None else f", about {timedelta(seconds=round(moment.rest))} left"
            probes = (
                "" if moment.probes is None else f", {moment.probes} probes, {moment.refused}/{moment.asked} refused"
            )
            status.update(f"{moment.student} {words(moment)}{probes}{left}".strip())

        subscribe(draw)
        try:
            yield
        finally:
            unsubscribe(draw)


def show(options: argparse.Namespace, facts: Mapping[str, Any] | Sequence[Any], text: str) -> None:
    """Print the *facts* as JSON if asked for, otherwise the *text*."""
    print(json.dumps(facts, indent=1) if options.json else text)


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
