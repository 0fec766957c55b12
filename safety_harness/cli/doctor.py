"""Run ``safety-harness doctor``: say what will go wrong before an hour is spent."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from safety_harness.cli.common import Commands, Parser, add_choice, add_json, chosen, command, show
from safety_harness.registry.options import DEFAULT_REGISTRY
from safety_harness.text import counted_noun


def add_doctor(commands: Commands[Parser]) -> None:
    """Add the command ``doctor``."""
    parser = command(
        commands,
        "doctor",
        "say what will go wrong in a gated run before an hour is spent",
        examples=["", "--registry mine.toml --json"],
        more="Loads and fetches nothing. Exit codes: 0 nothing will break, 1 something will, 2 wrong usage or input.",
    )
    parser.set_defaults(run=_doctor)
    add_choice(parser)
    add_json(parser)
    parser.add_argument("--report-dir", type=Path, default=Path("reports"), help="folder of the reports to come")


def _doctor(options: argparse.Namespace) -> int:
    """Print what was found. What breaks a run comes first."""
    if not (options.registry or options.family or options.student or Path(DEFAULT_REGISTRY).is_file()):
        options.family = "tiny"  # the other embedded families are no plan of anybody's who names none
    students = chosen(options)
    # To measure the machine brings torch. Imported here, it leaves the other commands fast.
    from safety_harness.evaluation.findings import findings
    from safety_harness.evaluation.machine import measure

    machine = measure()
    found = sorted(findings(students, machine, options.report_dir), key=lambda finding: finding.level)
    breaking = sum(finding.level == "breaks" for finding in found)
    facts = {"machine": asdict(machine), "findings": list(map(asdict, found))}
    about = f"{counted_noun(len(students), 'student')}: "
    about += f"{breaking} will break, {len(found) - breaking} to know" if found else "nothing was found that goes wrong"
    show(options, facts, "\n".join([f"machine: {machine}", *map(str, found), about]))
    return 1 if breaking else 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
