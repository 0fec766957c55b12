"""Run ``safety-harness rules``: gate a change by the rules of the branch that it goes to."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from safety_harness.cli.common import Commands, Parser, add_json, command, show
from safety_harness.errors import ConfigError
from safety_harness.files import write_whole
from safety_harness.reading import shown
from safety_harness.registry.load import load_registry
from safety_harness.registry.rules import changes, ruled
from safety_harness.registry.tables import read_table
from safety_harness.registry.toml_text import document_text
from safety_harness.text import visible


def add_rules(commands: Commands[Parser]) -> None:
    """Add the command ``rules``."""
    parser = command(
        commands,
        "rules",
        "write the registry that gates a change: rules of the base branch, models of the change",
        examples=["base/gate.toml change/gate.toml --out gate.toml"],
        more="Prints each rule that the change would alter, on GitHub as an annotation. A merge makes it hold.",
    )
    parser.set_defaults(run=_rules)
    parser.add_argument("base", type=Path, help="the registry of the base branch")
    parser.add_argument("change", type=Path, help="the registry of the change")
    parser.add_argument("--out", type=Path, required=True, help="the registry to write")
    add_json(parser)


def _rules(options: argparse.Namespace) -> int:
    """Write the registry, and print what the change would alter."""
    from safety_harness.report.github import ACTIONS, annotation  # brings scipy

    change = read_table(options.change)
    if not options.base.parent.is_dir():  # a slip of the pen must not let a change rule itself
        raise ConfigError(f"{shown(options.base)}: its folder does not exist. Name the registry of the base branch.")
    if options.base.exists():
        base = read_table(options.base)
        found = changes(base, change)
        table = ruled(base, options.base.parent, change, options.change.parent)
    else:  # the change that brings the gate
        found = [f"{options.base}: not there. The rules are this change's own: read them before you merge."]
        table = ruled(change, options.change.parent, change, options.change.parent)
    write_whole(options.out, document_text(table))
    load_registry(options.out)  # what cannot be gated is said here, not by a run
    lines = [visible(line) for line in found]
    if os.environ.get(ACTIONS) and not options.json:
        lines = [annotation("warning", line) for line in found]
    show(options, {"out": str(options.out), "changes": found}, "\n".join([*lines, f"wrote {options.out}"]))
    return 0


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
