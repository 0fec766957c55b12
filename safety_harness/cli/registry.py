"""Run ``safety-harness list, fetch, plan``: what a registry names, and what gating it needs."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import asdict
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
    planned = command(
        commands,
        "plan",
        "estimate disk, memory, probes and time without loading anything",
        examples=["--registry mine.toml", "--family tiny --tflops 1 --bandwidth 20"],
    )
    planned.set_defaults(run=_plan)
    planned.add_argument(
        "--tflops", type=_positive, default=400.0, help="matrix products of the device in TFLOP/s (default: 400)"
    )
    planned.add_argument(
        "--bandwidth", type=_positive, default=3000.0, help="memory bandwidth of the device in GB/s (default: 3000)"
    )
    for parser in (listing, fetch, planned):
        add_choice(parser)
        add_json(parser)


def _positive(text: str) -> float:
    """Return the number that *text* says. Raises ArgumentTypeError unless it is finite and positive."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return number


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


def _plan(options: argparse.Namespace) -> int:
    """Print a table of what gating each student would need."""
    from safety_harness.evaluation.estimate import Device, plan

    device = Device(options.tflops * 1e12, options.bandwidth * 1e9)
    students = chosen(options)
    needs = [plan(student, device) for student in students if student.patchable]
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
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 6))
    device_text = f"For a device of {options.tflops:g} TFLOP/s and {options.bandwidth:g} GB/s"
    why = {s.id: f"served by {s.spec.served}" if s.spec.served else "gated as it is; no teacher" for s in students}
    unplanned = [f"{s.id}: {why[s.id]}, so no search to plan" for s in students if not s.patchable]
    planned = [table, f"{device_text}. The sums: safety_harness/evaluation/estimate.py"] if needs else []
    lines = [*planned, *unplanned]
    show(options, list(map(asdict, needs)), "\n".join(lines))
    return 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
