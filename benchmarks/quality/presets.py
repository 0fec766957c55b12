"""Gate every student of a family under a preset of the search, in place of the settings that its registry names.

    python -m benchmarks.quality.presets --family tiny --preset standard
    python -m benchmarks.quality.presets --family smollm2 --preset standard

Rows are added to presets.jsonl, student by student, and presets.md is written of all rows. A student that has a row is
not measured again; remove its row first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from tabulate import tabulate

from benchmarks import kept
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.subject import Subject
from safety_harness.gate.decide import PATCH_REQUIRED, decide_student
from safety_harness.gate.records import Patch
from safety_harness.gate.results import Check
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.settings import PRESETS, Preset, SearchSettings, screen_tokens
from safety_harness.search.find import find_patch, select

ROWS = Path(__file__).with_suffix(".jsonl")
PAGE = Path(__file__).with_suffix(".md")
ABOUT = """# What the presets come to

Each student is searched and gated under a preset of the search, in place of the settings that its registry names. The
commands: `python -m benchmarks.quality.presets --family tiny --preset standard`, and so on.

- *refusals*: with all of the teacher's units / that the search asked for / that its patch has, on searched questions
- *limits*: harmless questions refused at most / right answers to the task at least, that the search asked for
- *held out*: refusals, harmless questions refused before → after, right answers before → after

A search *met its target* where some share of the units had the refusals that it asked for, within the other budgets.
The rule from which targets and limits come is in `safety_harness/gate/room.py`.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="tiny")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--preset", choices=get_args(Preset), default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no student after this time")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    for student in load_registry().select(family=options.family, students=options.student):
        known = {"preset": options.preset, "student": student.id}
        if not kept.holds(kept.read(ROWS), known) and time.monotonic() - began < options.seconds:
            row = known | measured(under(student, options.preset))
            kept.add(ROWS, [row])
            print(row, flush=True)
    PAGE.write_text(page(kept.read(ROWS)), "utf-8")


def under(student: Student, preset: str) -> Student:
    """Return *student* as a registry would describe it that names a *preset* and no setting of the search."""
    family = student.family
    tokens = screen_tokens(preset, family.max_new_tokens)
    settings: dict[str, Any] = {
        "preset": preset,
        "search": SearchSettings(**PRESETS[preset]),
        "screen_tokens": tokens if tokens < family.max_new_tokens else None,
    }
    return replace(
        student, family=family.model_copy(update=settings), spec=student.spec.model_copy(update={"search": None})
    )


def measured(student: Student) -> dict[str, Any]:
    """Search for the patch of *student*, gate it, and return what came out."""
    evaluator = open_evaluator(student)
    patch = find_patch(evaluator)  # keeps a journal: a search of half an hour that was killed goes on
    as_it_is, patched = Subject(evaluator), Subject(evaluator, select(evaluator, patch))
    checks = [
        patched.defense(as_it_is), patched.over_refusal(as_it_is), patched.task(as_it_is),
        patched.perplexity(as_it_is), patched.divergence(), patched.minimality(patch),
    ]  # fmt: skip
    decided = decide_student(student.id, {check.name: check for check in checks}, required=PATCH_REQUIRED)
    row = {
        "gate": decided.outcome.value,
        "failed": [check.name for check in checks if not check.passed],
        "met": patch.found and "no prefix" not in patch.reason,
        "reason": patch.reason,
        "parameters": round(patch.share, 4),
        "probes": patch.probes,
        "seconds": round(patch.seconds),
        **_searched(patch),
        **_held_out(checks),
    }
    evaluator.close()
    return row


def _searched(patch: Patch) -> dict[str, Any]:
    """Return the counts that the search asked for, and those of its last patch."""
    facts = patch.search
    accepted = [step for step in patch.course if step.accepted]
    smallest = min(accepted, key=lambda step: step.parameters, default=None)
    return {
        "questions": facts.questions, "whole": facts.refused_whole, "target": facts.target,
        "refused": smallest and smallest.refused, "over_refusal_limit": facts.over_refusal_limit,
        "task_floor": facts.task_floor,
    }  # fmt: skip


def _held_out(checks: Sequence[Check]) -> dict[str, Any]:
    """Return [before, after, n] of each check that counts."""
    return {
        check.name: [check.numbers["before"], check.numbers["after"], check.numbers["n"]]
        for check in checks
        if check.name in ("defense", "over_refusal", "task") and check.numbers.model_dump().get("n")
    }


def page(rows: Sequence[kept.Row]) -> str:
    """Return the page of all *rows*, a table for each preset."""
    parts = [ABOUT]
    for preset in get_args(Preset):
        if chosen := [row for row in rows if row["preset"] == preset]:
            met = [row for row in chosen if row["met"]]
            passed = sum(row["gate"] == "pass" for row in met)
            parts += [
                f"## {preset}",
                f"{len(chosen)} students; searches met the target for {len(met)}, and {passed} of these pass the gate.",
                tabulate([_cells(row) for row in chosen], HEADERS, tablefmt="github", disable_numparse=True),
            ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


HEADERS = (
    "student", "refusals", "limits", "target met", "held out: DSR", "over-refusal", "task", "moved", "probes / s",
    "gate",
)  # fmt: skip


def _cells(row: kept.Row) -> tuple[str, ...]:
    def held_out(check: str) -> str:
        before, after, n = row.get(check) or ("–", "–", "–")
        return f"{before} → {after} of {n}"

    return (
        row["student"], f"{row['whole']} / {row['target']} / {row['refused']} of {row['questions']}",
        f"{row['over_refusal_limit']} / {row['task_floor']}", "yes" if row["met"] else "no", held_out("defense"),
        held_out("over_refusal"), held_out("task"), f"{row['parameters']:.1%}", f"{row['probes']} / {row['seconds']}",
        ", ".join([row["gate"], *row["failed"]]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
