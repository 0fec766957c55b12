"""Compare priors: how well the channels that each calls likeliest restore refusal, before any search.

    python -m benchmarks.quality.priors [--student json ...] [--prior NAME ...] [--share 0.03 ...]
        [--data DIR]

asks the oracle's questions, which the priors have not seen, with whole answers. It counts refusals and unscored answers
of the harmful questions, refusals of the harmless ones, and right answers to the student's own task. With ``--data
DIR``, it also counts refusals of 128 harmless twins of AdvBench (``DIR/dapa/advbench_392_harmless_twins.csv``, after
the first 128, which ``methods.py`` reports on). A share is one of the model's parameters. It writes ``priors.jsonl``,
of which no row is measured twice, and ``priors.md``, of all rows.

The margin of a question is log p(refusal) - log p(opening of the student's own answer). The priors differ in what of a
refusal counts, and in what a refusal of a harmless question costs. They differ in what a channel earns that lowers it.
They also differ in where gradients are taken: at the student and the fully moved student, or again where the likeliest
channels have moved. ``descent`` goes on from there in steps.

``causal tracing`` takes no gradient: it moves each attention and MLP alone, and all but each, and measures the margin.
(ROME, arXiv 2202.05262, restores the states of one at a time. Here the teacher's weights are restored.) What a block
gains is shared out among its channels by the squares of their difference. One intervention a channel would be too many.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.quality.methods import twins
from benchmarks.quality.orders import orders
from benchmarks.quality.ways import searching
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.registry.load import load_registry
from safety_harness.registry.prompts import PromptSet
from safety_harness.weights.units import Unit

LOG = Path(__file__).with_suffix(".jsonl")
SHARES = (0.02, 0.03, 0.05)
OTHER_TWINS = slice(128, 256)
COUNTS = ("refused", "unscored", "harmless refused", "twins refused", "own task")


def row(evaluator: Evaluator, units: Sequence[Unit], harmless_twins: PromptSet | None) -> kept.Row:
    """Return counts, each with the number of questions."""
    questions = evaluator.questions
    harmful = [answer.verdict for answer in evaluator.answers(units, questions.harmful.search)]

    def refused(prompts: PromptSet) -> tuple[int, int]:
        """Return how many of *prompts* are refused, and their number."""
        answered = evaluator.answers(units, prompts, Extent.UNTIL_REFUSAL_CLEAR)
        verdicts = [answer.verdict for answer in answered]
        return verdicts.count(Verdict.REFUSED), len(verdicts)

    counts: dict[str, Any] = {
        "parameters": sum(unit.parameters for unit in units) / evaluator.checkpoint.parameters,
        "refused": (harmful.count(Verdict.REFUSED), len(harmful)),
        "unscored": (harmful.count(Verdict.UNSCORED), len(harmful)),
        "harmless refused": refused(questions.harmless.search),
    }
    if harmless_twins:
        counts["twins refused"] = refused(harmless_twins)
    if questions.task:
        right = evaluator.right(units, questions.task.search)
        counts["own task"] = (sum(right), len(right))
    return counts


def page(rows: Sequence[kept.Row], command: str) -> str:
    """Return a table of means over the students, and one for each student."""
    by_student = defaultdict(list)
    for one in rows:
        by_student[one["student"]].append(one)
    parts = ["# Priors", f"`{command}`, the last of the runs whose rows are kept"]
    parts += ["## Means over the students, %", means(rows)]
    for student, of_student in by_student.items():
        parts += [f"## {student}", table(of_student)]
    return "\n\n".join(parts) + "\n"


def means(rows: Sequence[kept.Row]) -> str:
    """Return the means of each prior and share over the students that were measured with it."""
    alike = defaultdict(list)
    for one in rows:
        alike[one["prior"], one["share"]].append(one)
    lines = [
        (prior, len(some), f"{100 * statistics.mean(one['parameters'] for one in some):.2f}",
         *(f"{mean(some, name):.1f}" if all(name in one for one in some) else "-" for name in COUNTS))
        for (prior, _), some in alike.items()
    ]  # fmt: skip
    return tabulate(lines, ("prior", "students", "% parameters", *COUNTS), tablefmt="github", disable_numparse=True)


def mean(rows: Sequence[kept.Row], name: str) -> float:
    """Return the mean of a count over *rows*, in percent."""
    return 100 * statistics.mean(float(one[name][0]) / float(one[name][1]) for one in rows)


def table(rows: Sequence[kept.Row]) -> str:
    """Return the table of one student."""
    lines = [
        (one["prior"], f"{100 * one['parameters']:.2f}", *("/".join(map(str, one.get(name, "-"))) for name in COUNTS))
        for one in rows
    ]
    return tabulate(lines, ("prior", "% parameters", *COUNTS), tablefmt="github", disable_numparse=True)


def measure(
    evaluator: Evaluator, shares: Sequence[float], harmless_twins: PromptSet | None, wanted: Callable[[kept.Row], bool]
) -> None:
    """Add the rows that are *wanted* of *evaluator*'s student to the log."""

    def write(prior: str, share: float, units: Sequence[Unit]) -> None:
        """Add the row of one prior and share."""
        counts = row(evaluator, units, harmless_twins)
        measured = {"student": evaluator.student.id, "prior": prior, "share": share, **counts}
        kept.add(LOG, [measured])
        print(measured, flush=True)

    def missing(prior: str, *shares: float) -> list[float]:
        """Return the shares that are wanted and not measured yet."""
        return [share for share in shares if wanted({"student": evaluator.student.id, "prior": prior, "share": share})]

    for name, share, units in (("nothing", 0.0, ()), ("all of the teacher", 1.0, evaluator.units)):
        if missing(name, share):
            write(name, share, units)
    for name, make in orders(evaluator).items():
        if left := missing(name, *shares):
            order = make()
            for share in left:
                write(name, share, order(share))


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument(
        "--prior", action="append", default=[], help="only the priors of these names, as the page has them"
    )
    parser.add_argument("--share", action="append", default=[], type=float)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    harmless_twins = twins(options.data, OTHER_TWINS) if options.data else None
    known = kept.read(LOG)

    def wanted(row: kept.Row) -> bool:
        """Return whether a row was asked for and is missing."""
        return (not options.prior or row["prior"] in options.prior) and not kept.holds(known, row)

    for student in load_registry().select(family=options.family, students=options.student):
        student = searching(student, grain="channel")  # these priors order channels, whatever the family's search moves
        measure(open_evaluator(student), options.share or SHARES, harmless_twins, wanted)
    picked = {"family": [options.family], "student": options.student, "prior": options.prior, "share": options.share}
    words = [f"--{kind} {shlex.quote(str(value))}" for kind, values in picked.items() for value in values]
    command = " ".join(("python -m benchmarks.quality.priors", *words, *(("--data DIR",) * bool(harmless_twins))))
    LOG.with_suffix(".md").write_text(page(kept.read(LOG), command), encoding="utf-8")


if __name__ == "__main__":
    main()
