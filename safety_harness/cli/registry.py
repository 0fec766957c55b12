"""Run ``safety-harness list`` and ``fetch``: what a registry names."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tabulate import tabulate

from safety_harness.cli.common import Commands, Parser, add_choice, add_json, chosen, command, show, watched
from safety_harness.files import CACHE_VARIABLE, explain_disk_errors


def add_registry(commands: Commands[Parser]) -> None:
    """Add the commands about what a registry names."""
    listing = command(
        commands, "list", "show the families and students of a registry", examples=["", "--registry mine.toml --json"]
    )
    listing.set_defaults(run=_list)
    fetch = command(
        commands,
        "fetch",
        "download and prepare models and questions, so that a run needs no network",
        examples=["--family tiny", "--registry mine.toml --to /media/stick/cache"],
        more=f"Later runs find them in the cache, ${CACHE_VARIABLE}.",
    )
    fetch.set_defaults(run=_fetch)
    fetch.add_argument(
        "--to", type=Path, help=f"folder to fetch into, for a machine without a network: set ${CACHE_VARIABLE} to it"
    )
    for parser in (listing, fetch):
        add_choice(parser)
        add_json(parser)


def _list(options: argparse.Namespace) -> int:
    """Print a table of the students."""
    headers = ("group", "student", "expected", "source")
    rows = [(student.family.group, student.id, student.spec.expected, str(student.spec)) for student in chosen(options)]
    show(options, [dict(zip(headers, row, strict=True)) for row in rows], tabulate(rows, headers))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    """Prepare every model and read every question set of the students."""
    students = chosen(options)
    if options.to:
        with explain_disk_errors(options.to):
            (options.to / "hub").mkdir(parents=True, exist_ok=True)
        os.environ[CACHE_VARIABLE] = str(options.to)
    # Models bring torch. Imported here, it leaves the other commands fast, and usable where it is not installed.
    from safety_harness.models.load import prepare
    from safety_harness.registry.splits import further_questions, load_questions

    fetched = []
    for number, student in enumerate(students, 1):
        with watched():
            further_questions(student.family, load_questions(student))
        for spec in student.models:
            with watched():
                folder = str(prepare(spec))
            fetched.append({"student": student.id, "model": str(spec), "folder": folder})
            if not options.json:
                print(f"[{number}/{len(students)}] {student.id}: {fetched[-1]['folder']}", flush=True)
        if student.spec.served and not options.json:
            print(f"{student.id}: is served by {student.spec.served}, so there are no weights to fetch")
    if options.json:
        show(options, fetched, "")
    elif options.to:
        also = ", the registry and what it names by path" if any(s.spec.path for s in students) else ""
        print(f"Take {options.to}{also} to the other machine, and set {CACHE_VARIABLE} to {options.to} there.")
    return 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
