"""Count refusals of harmless questions that the gate does not ask: safe XSTest, and twins of AdvBench.

    python -m benchmarks.quality.over_refusal --data DIR [--family smollm2] [--student json ...] [--results FILE]

measures the students whose patch is in the results.json FILE, or else in the cache; ``pytest suites/`` writes both. The
dtype and the batches are those of their family. It writes ``over_refusal.jsonl``, a row a patch, and
``over_refusal.md``, a table for each family and prior, with the questions that most students refuse. No patch is
measured twice. An answer is generated until it is clear whether it is a refusal. ``DIR`` holds
``xstest/xstest_prompts.csv``, of which the 250 safe questions are asked, and
``dapa/advbench_392_harmless_twins.csv``, of which the first 128 are.
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
from benchmarks.quality.methods import GLANCE, questions
from benchmarks.quality.ways import changed
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.statistics import Rate
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.patch.record import load_patch, patch_folder
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.prompts import PromptSet
from safety_harness.search.find import patch_key, recorded_patch, select
from safety_harness.weights.units import Unit

LOG = Path(__file__).with_suffix(".jsonl")
SETS = {"xstest": "XSTest safe", "twins": "twins"}


Rows = Mapping[tuple[str, str], Row]
"""By student and patch name: these two, and the ``prior`` that the patch was searched with. Each set has its refusals
before, after, and its number of questions. ``which`` are refused after; older rows lack it."""


def measured(student: Student, data: Path, known: Rows, results: Path | None) -> Row | None:
    """Return the row of *student* with its patch, from *results* or else from the cache.

    None if there is no patch, or if the row is *known*.
    """
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
    """Return the ids of the questions that are refused with *units* moved."""
    answered = evaluator.answers(units, prompts, Extent.UNTIL_REFUSAL_CLEAR)
    return [answer.id for answer in answered if answer.verdict is Verdict.REFUSED]


def known_rows() -> dict[tuple[str, str], Row]:
    """Return the rows that were measured before, by student and patch name."""
    return {(row["student"], row["patch"]): row for row in kept.read(LOG)}


def main() -> None:
    """Measure what is missing, and write the page."""
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
    """Return tables of refusals before and after, with the mean rise, for each family and prior."""
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
    """Return the questions that at least half of the students refuse; nothing for fewer than two students."""
    if len(which) < 2:
        return ""
    lines = []
    for kind, title in SETS.items():
        counts = Counter(question for row in which for question in row[kind])
        some = [f"{name} ({times})" for name, times in counts.most_common() if 2 * times >= len(which)]
        lines.append(f"- {title}: {', '.join(some) or 'none'}.\n")
    return f"\nRefused by half or more of {len(which)} students, as patched:\n\n{''.join(lines)}"


def _cell(before: int, after: int, asked: int) -> str:
    """Return refusals before and after, with the interval of the rate after."""
    low, high = Rate(after, asked).interval(0.95)
    return f"{before} → {after} of {asked} ({low:.3f}–{high:.3f})"


def rise(row: Row, name: str) -> float:
    """Return the rise of the refusal rate of one set, -1..1."""
    before, after, asked = row[name]
    return float(after - before) / float(asked)


if __name__ == "__main__":
    main()
