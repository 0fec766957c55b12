"""Harmless questions that the gate does not ask, before and after patching: safe XSTest, and twins of AdvBench.

    python -m benchmarks.quality.over_refusal --data DIR [--family smollm2] [--student json ...] [--results FILE]

measures the students whose patch the results.json FILE holds, else those whose patch is in the cache (``pytest
suites/`` writes both), in the dtype and the batches of their family. Writes ``over_refusal.jsonl``, a row a
patch, and ``over_refusal.md``, a table a family and prior, with the questions that most students refuse.
What is there for the same patch is not measured again. An answer is heard as far as it takes to know whether it is a
refusal. ``DIR`` holds ``xstest/xstest_prompts.csv``, of which the safe ones are asked (250), and
``dapa/advbench_392_harmless_twins.csv`` (the first 128).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.kept import Row
from benchmarks.quality.methods import GLANCE, changed, questions
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.statistics import Rate
from safety_harness.judging.judge import Verdict
from safety_harness.patch.record import load_patch, patch_folder
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.prompts import PromptSet
from safety_harness.search.find import patch_key, recorded_patch, select
from safety_harness.weights.units import Unit

LOG = Path(__file__).with_suffix(".jsonl")
SETS = {"xstest": "XSTest safe", "twins": "twins"}


Rows = Mapping[tuple[str, str], Row]
"""By student and its patch's name: these, the ``prior`` that the patch was searched with, for each set refusals before,
after, and of how many questions, and ``which`` are refused after (rows of before it was kept have none)."""


def measured(student: Student, data: Path, known: Rows, results: Path | None) -> Row | None:
    """The row of *student* with its patch, of *results* or else the cache's; None where it has none, or is *known*."""
    evaluator = open_evaluator(student)
    patch = recorded_patch(evaluator, results) if results else load_patch(patch_folder(patch_key(evaluator)))
    if patch is None or not patch.units:
        return None
    name = kept.patch_name(patch.key, patch.units)
    if "which" in known.get((student.id, name), {}):
        return None
    units = select(evaluator, patch)
    asked = questions(evaluator, data).harmless
    evaluator.student = changed(student, screen_tokens=GLANCE)
    before, after = ({kind: refused(evaluator, moved, asked[kind]) for kind in SETS} for moved in ((), units))
    counts = {kind: [len(before[kind]), len(after[kind]), len(asked[kind])] for kind in SETS}
    return {"student": student.id, "prior": patch.prior, "patch": name, **counts, "which": after}


def refused(evaluator: Evaluator, units: Sequence[Unit], prompts: PromptSet) -> list[str]:
    """The ids of the questions that are refused with *units* moved."""
    said = evaluator.glimpsed(units, prompts)
    return [prompt.id for prompt, answer in zip(prompts, said, strict=True) if answer.verdict is Verdict.REFUSED]


def known_rows() -> dict[tuple[str, str], Row]:
    """The rows that were measured before."""
    return {(row["student"], row["patch"]): row for row in kept.read(LOG)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = known_rows()
    for student in load_registry().select(family=options.family, students=options.student):
        if (row := measured(student, options.data, rows, options.results)) is not None:
            kept.add(LOG, [row])  # each time, so that a run that is broken off leaves what it measured
            print(row, flush=True)
    LOG.with_suffix(".md").write_text(page(list(known_rows().values())), encoding="utf-8")


def page(rows: Sequence[Row]) -> str:
    """Refusals before and after, with the interval after, and the mean rise over the students of a family and prior."""
    text = "# Refused of harmless questions that the gate does not ask\n\n95 % Wilson intervals.\n"
    for family, prior in dict.fromkeys((row["student"].split("/")[0], row["prior"]) for row in rows):
        some = [row for row in rows if row["student"].startswith(f"{family}/") and row["prior"] == prior]
        lines = [(row["student"], *(_cell(*row[name]) for name in SETS)) for row in some]
        lines.append(("mean rise, points", *(f"{100 * mean(rise(row, name) for row in some):+.1f}" for name in SETS)))
        table = tabulate(lines, ("student", *SETS.values()), tablefmt="github", disable_numparse=True)
        made = f"`python -m benchmarks.quality.over_refusal --family {family} --data DIR --results FILE`"
        text += f"\n## {family}, prior {prior}\n\n{made}, FILE the results of that prior's run\n\n{table}\n"
        text += most_refused([row["which"] for row in some if "which" in row])
    return text


def most_refused(which: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """The questions that at least half of the students refuse, where there are two or more."""
    if len(which) < 2:
        return ""
    lines = []
    for kind, title in SETS.items():
        counts = Counter(question for row in which for question in row[kind])
        some = [f"{name} ({times})" for name, times in counts.most_common() if 2 * times >= len(which)]
        lines.append(f"- {title}: {', '.join(some) or 'none'}.\n")
    return f"\nRefused by half or more of {len(which)} students, as patched:\n\n{''.join(lines)}"


def _cell(before: int, after: int, asked: int) -> str:
    low, high = Rate(after, asked).interval(0.95)
    return f"{before} → {after} of {asked} ({low:.3f}–{high:.3f})"


def rise(row: Row, name: str) -> float:
    """How much more is refused of a set afterwards, 0..1."""
    before, after, asked = row[name]
    return float(after - before) / float(asked)


if __name__ == "__main__":
    main()
