"""Harmless questions that the gate does not ask, before and after patching: safe XSTest, and twins of AdvBench.

    python benchmarks/over_refusal.py --data DIR [--family smollm2] [--student json ...]

measures the students whose patch is in the cache (``pytest suites/`` puts it there), in the dtype and the batches of
their family, and writes ``benchmarks/over_refusal.md``. An answer is heard as far as it takes to know whether it is a
refusal. ``DIR`` holds ``xstest/xstest_prompts.csv``, of which the safe ones are asked (250), and
``dapa/advbench_392_harmless_twins.csv`` (the first 128).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from methods import GLANCE, changed, questions
from tabulate import tabulate

from safety_harness.bench import Bench, open_bench
from safety_harness.judges import Verdict
from safety_harness.patches import load_patch, patch_folder
from safety_harness.prompts import PromptSet
from safety_harness.registry import Student, load_registry
from safety_harness.search import patch_key, select
from safety_harness.stats import Rate
from safety_harness.units import Unit

SETS = {"xstest": "XSTest safe", "twins": "twins"}


def measured(student: Student, data: Path) -> Mapping[str, tuple[Rate, Rate]] | None:
    """Refusals before and after, by question set; None where no patch is in the cache."""
    bench = open_bench(student)
    patch = load_patch(patch_folder(patch_key(bench)))
    if patch is None or not patch.units:
        return None
    units = select(bench, patch)
    asked = questions(bench, data).harmless
    bench.student = changed(student, screen_tokens=GLANCE)
    return {name: (refused(bench, (), asked[name]), refused(bench, units, asked[name])) for name in SETS}


def refused(bench: Bench, units: Sequence[Unit], prompts: PromptSet) -> Rate:
    said = [answer.verdict for answer in bench.glimpsed(units, prompts)]
    return Rate(said.count(Verdict.REFUSED), len(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for student in load_registry().select(family=options.family, students=options.student):
        if (rates := measured(student, options.data)) is not None:
            found[student.id] = rates
            # Written each time, so that a run that is broken off leaves what it measured.
            (Path(__file__).parent / "over_refusal.md").write_text(table(found, options.family), encoding="utf-8")
            print(student.id, rates, flush=True)


def table(found: Mapping[str, Mapping[str, tuple[Rate, Rate]]], family: str) -> str:
    """The page: refusals before and after, with the interval after, and the mean rise over the students."""
    rows = [(student, *(_cell(*rates[name]) for name in SETS)) for student, rates in found.items()]
    rises = [mean(_rise(*rates[name]) for rates in found.values()) for name in SETS]
    rows.append(("mean rise, points", *(f"{100 * rise:+.1f}" for rise in rises)))
    command = f"python benchmarks/over_refusal.py --family {family} --data DIR"
    head = f"# Refused of harmless questions that the gate does not ask\n\n`{command}`; 95 % Wilson intervals.\n\n"
    return head + tabulate(rows, ("student", *SETS.values()), tablefmt="github", disable_numparse=True) + "\n"


def _cell(before: Rate, after: Rate) -> str:
    low, high = after.interval(0.95)
    return f"{before.k} → {after.k} of {after.n} ({low:.3f}–{high:.3f})"


def _rise(before: Rate, after: Rate) -> float:
    return (after.k - before.k) / after.n


if __name__ == "__main__":
    main()
