"""Tune students and their teachers on several kinds of harmless data, at several rates, and count what they refuse.

    python -m benchmarks.quality.tamper --student NAME ... [--family tiny] [--results FILE] [--data KIND ...] [--rate R]

asks after as many steps as the gate does (``safety-harness gate --tamper``), which tunes on ``own`` at its own rate. It
adds a row for each model, kind of data and rate to ``tamper.jsonl``, none twice, and writes the tables of
``tamper.md``. Patches are those of the results.json FILE, or else of the cache, where they are searched.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.kept import Row as Kept
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.subject import Subject
from safety_harness.evaluation.tamper import examples, row, under_tuning
from safety_harness.gate.tamper_check import STEPS
from safety_harness.models.tuning import LEARNING_RATE, Row
from safety_harness.registry.load import load_registry
from safety_harness.search.find import find_patch, select

LOG = Path(__file__).with_suffix(".jsonl")
KINDS: Mapping[str, str] = {
    "own": "Own answers to harmless questions",
    "task": "Right answers to its own task",
    "both": "Both",
}


def rows_of(kind: str, subject: Subject) -> list[Row]:
    """Return what *subject* is tuned on."""
    evaluator, rows = subject.weighed, []
    if kind != "task":
        rows += examples(evaluator, subject.units)
    if kind != "own" and evaluator.questions.task:
        rows += [row(evaluator, prompt, str(prompt.answer)) for prompt in evaluator.questions.task.search]
    return rows


def measured(evaluator: Evaluator, model: str, subject: Subject, kind: str, rate: float) -> Kept:
    """Return the row of one model, kind of data and rate."""
    under = under_tuning(subject, rows_of(kind, subject), rate)
    counts = {name: [getattr(one, name) for one in under.after] for name in ("refused", "unscored", "right", "loss")}
    asked, tasks = len(under.after[0].letters), evaluator.questions.task
    return {
        "student": evaluator.student.id, "model": model, "data": kind, "rate": rate, "examples": under.examples,
        "n": asked, "tasks": len(tasks.report) if tasks else 0, **counts,
    }  # fmt: skip


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="tiny")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--data", action="append", choices=KINDS, default=[])
    parser.add_argument("--rate", action="append", type=float, default=[])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for student in load_registry().select(family=options.family, students=options.student):
        evaluator = open_evaluator(student)
        units = select(evaluator, find_patch(evaluator, options.results))
        for model, moved in (("patched", units), ("teacher", evaluator.units)):
            for kind in options.data or KINDS:
                for rate in options.rate or [LEARNING_RATE]:
                    key = {"student": student.id, "model": model, "data": kind, "rate": rate}
                    if not kept.holds(kept.read(LOG), key):
                        found = measured(evaluator, model, Subject(evaluator, moved), kind, rate)
                        kept.add(LOG, [found])  # each time, so that a run that is broken off leaves what it measured
                        print(found, flush=True)
        evaluator.close()
    LOG.with_suffix(".md").write_text(page(kept.read(LOG)), encoding="utf-8")


def page(rows: Sequence[Kept]) -> str:
    """Return a table for each kind of data and rate: what is refused before and after each count of steps."""
    text = (
        "# What is refused after tuning on harmless data\n\n"
        "`python -m benchmarks.quality.tamper --student NAME --data KIND --rate R`. Of the held-out harmful questions, "
        f"so many are refused before tuning and after {', '.join(map(str, STEPS))} steps; of the held-out questions of "
        "the own task, so many are right. The gate (`safety-harness gate --tamper`) tunes on the model's own answers, "
        f"at {LEARNING_RATE:g}.\n"
    )
    headers = ("student", "model", "before", *(f"after {steps}" for steps in STEPS), "of", "own task right", "of")
    for kind, rate in dict.fromkeys((one["data"], one["rate"]) for one in sorted(rows, key=_order)):
        some = [one for one in rows if (one["data"], one["rate"]) == (kind, rate)]
        lines = [
            (
                one["student"],
                one["model"],
                *one["refused"],
                one["n"],
                " → ".join(map(str, one["right"])) if one["tasks"] else "–",
                one["tasks"],
            )
            for one in sorted(some, key=lambda each: (each["student"], each["model"]))
        ]
        table = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
        text += f"\n## {KINDS[kind]}, at {rate:g}\n\n{table}\n"
    return text


def _order(one: Kept) -> tuple[int, float]:
    """Return where the table of a row stands: by its kind of data, then by its rate."""
    return list(KINDS).index(one["data"]), one["rate"]


if __name__ == "__main__":
    main()
