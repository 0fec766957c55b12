"""Run the commands of ``safety-harness``: everything that is not a test run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from safety_harness import __version__
from safety_harness.cli.gate import add_gate
from safety_harness.cli.patch import add_patch
from safety_harness.cli.reduce import add_reduce
from safety_harness.cli.report import add_report
from safety_harness.errors import HarnessError
from safety_harness.registry.load import Registry, load_registry

_ABOUT = "Prepare a gate and ship its patch. Exit codes: 0 done, 1 the results say no, 2 wrong usage or input."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. This is the console script's entry point."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except HarnessError as error:
        print(f"safety-harness: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    program = argparse.ArgumentParser(prog="safety-harness", description=_ABOUT)
    program.add_argument("--version", action="version", version=__version__)
    commands = program.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="show the families and students of the registry")
    listing.set_defaults(run=_list)
    fetch = commands.add_parser("fetch", help="download and prepare a family's models and questions")
    fetch.add_argument("family", help="a family, or a group of families")
    fetch.set_defaults(run=_fetch)
    planned = commands.add_parser("plan", help="estimate disk, memory, probes and time without loading anything")
    planned.set_defaults(run=_plan)
    planned.add_argument("--family", help="a family, or a group of families (default: tiny)", default="tiny")
    planned.add_argument(
        "--tflops", type=_positive, default=400.0, help="matrix products of the device in TFLOP/s (default: 400)"
    )
    planned.add_argument(
        "--bandwidth", type=_positive, default=3000.0, help="memory bandwidth of the device in GB/s (default: 3000)"
    )
    for command in (listing, fetch, planned):
        command.add_argument(
            "--registry", action="append", type=Path, default=[], help="registry file (TOML); repeatable"
        )

    add_gate(commands)
    add_report(commands)
    add_patch(commands)
    add_reduce(commands)
    return program


def _positive(text: str) -> float:
    """Return the number that *text* says. Raises ArgumentTypeError unless it is finite and positive."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return number


def _registry(options: argparse.Namespace) -> Registry:
    """Read the registry files that were named, or the embedded ones."""
    return load_registry(*options.registry)


def _list(options: argparse.Namespace) -> int:
    """Print a table of the students."""
    rows = [
        (student.family.group, student.id, student.spec.expected, str(student.spec))
        for student in _registry(options).select()
    ]
    print(tabulate(rows, ("group", "student", "expected", "source")))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    """Prepare every model and read every question set of a family, so that a run needs no network."""
    students = _registry(options).select(family=options.family)
    # Models bring torch. Imported here, it leaves the other commands fast, and usable where it is not installed.
    from safety_harness.models.load import prepare
    from safety_harness.registry.splits import further_questions, load_questions

    for student in students:
        further_questions(student.family, load_questions(student))
        for spec in student.models:
            print(f"{student.id}: {prepare(spec)}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    """Print a table of what gating each student would need."""
    from safety_harness.evaluation.estimate import Device, plan

    device = Device(options.tflops * 1e12, options.bandwidth * 1e9)
    needs = [plan(student, device) for student in _registry(options).select(family=options.family)]
    rows = [
        (
            need.student,
            f"{need.parameters / 1e6:,.1f}",
            f"{need.movable / need.parameters:.0%}",
            f"{need.download / 2**30:.1f}",
            f"{need.memory / 2**30:.1f}",
            "–".join(map(str, need.probes)),
            "–".join(f"{seconds / 60:.1f}" for seconds in need.seconds),
        )
        for need in needs
    ]
    headers = ("student", "M parameters", "may move", "download GiB", "memory GiB", "probes", "minutes")
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 6)))
    device_text = f"For a device of {options.tflops:g} TFLOP/s and {options.bandwidth:g} GB/s"
    print(f"{device_text}. The sums: safety_harness/evaluation/estimate.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
