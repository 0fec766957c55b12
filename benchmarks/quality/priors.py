"""Compare priors: how well the channels that each calls likeliest restore refusal, before any search.

    python -m benchmarks.quality.priors [--student json ...] [--prior NAME ...] [--share 0.03 ...]
        [--data DIR]

asks the oracle's questions, which the priors have not seen, with whole answers. It counts refusals and unscored answers
of the harmful questions, refusals of the harmless ones, and right answers to the student's own task. With ``--data
DIR``, it also counts refusals of 128 harmless twins of AdvBench (``DIR/dapa/advbench_392_harmless_twins.csv``, after
the first 128, which ``methods.py`` reports on). A share is one of the model's parameters. It writes ``priors.jsonl``,
of which no row is measured twice, and ``priors.md``, of all rows.

The margin of a question is log p(refusal) - log p(opening of the student's own answer). The priors differ in what of a
refusal counts, in what a refusal of a harmless question costs, and in how much of that a channel earns which lowers it.
They also differ in where gradients are taken: at the student and the fully moved student, or again where the likeliest
channels have moved. ``descent`` goes on from there in steps.

``causal tracing`` takes no gradient: it moves each attention and MLP alone, and all but each, and measures the margin.
(ROME restores the states of one at a time, arXiv 2202.05262; here the teacher's weights are what is restored.) What a
block gains is shared out among its channels by the squares of their difference, because one intervention a channel
would be too many.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.quality.methods import random_channels, twins
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.registry.load import load_registry
from safety_harness.registry.prompts import PromptSet
from safety_harness.search.candidates import Channels
from safety_harness.search.priors import PRIORS, Importance, Prior, contrast, descent
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.gradients import HARMFUL, HARMLESS, Weights, logprob, own_answers, usual_refusal
from safety_harness.search.priors.norm import difference_norm
from safety_harness.weights.units import Group, Unit, grouped

LOG = Path(__file__).with_suffix(".jsonl")
SHARES = (0.02, 0.03, 0.05)
OPENING = Weights(((contrast.OPENING_TOKENS, 1.0),), 0.0)
OTHER_TWINS = slice(128, 256)
# Questions of each kind that an intervention is measured with.
TRACED_QUESTIONS = 8
COUNTS = ("refused", "unscored", "harmless refused", "twins refused", "own task")

Facts = Mapping[str, torch.Tensor]
"""One number for each channel of a module: shape (channels,)."""
Order = Callable[[float], Sequence[Unit]]
"""The likeliest units that hold a share of the model's parameters."""


class Gains:
    """Gains of *evaluator*'s channels over its prior's questions, each taken when it is needed first."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._ends = ((), evaluator.units)
        self.harmful = evaluator.questions.prior.harmful.first(contrast.HARMFUL_QUESTIONS)
        self.harmless = evaluator.questions.prior.harmless.first(contrast.HARMLESS_QUESTIONS)

    @functools.cached_property
    def refusal(self) -> Sequence[int]:
        """The tokens of the teacher's usual refusal."""
        return usual_refusal(self._evaluator)

    def opening(self) -> Prior:
        """Return the prior that sees the opening of refusals of harmful questions alone, at either end."""
        gain = self._of(self.harmful, OPENING, *self._ends)
        return less(gain, gain, 0.0)

    @functools.cached_property
    def at_ends(self) -> tuple[Facts, Facts]:
        """Gain and cost at the student and at the fully moved student."""
        return self._gain_and_cost(*self._ends)

    @functools.cached_property
    def there_too(self) -> tuple[Facts, Facts]:
        """The same, added to gain and cost where the likeliest channels have moved: the search's ``contrast``."""
        return self._where_likeliest(self.at_ends)

    @functools.cached_property
    def again(self) -> tuple[Facts, Facts]:
        """``there_too``, added to gain and cost where the channels that are likeliest by it have moved."""
        return self._where_likeliest(self.there_too)

    def _where_likeliest(self, known: tuple[Facts, Facts]) -> tuple[Facts, Facts]:
        """Return *known* gain and cost, with those added where the channels that are likeliest by them have moved."""
        scores = contrast.scores_of(self._evaluator, stacked(*known))
        there = likeliest(self._evaluator, scores, contrast.LIKELIEST_SHARE)
        gain, cost = (added(*pair) for pair in zip(known, self._gain_and_cost(there), strict=True))
        return gain, cost

    def _gain_and_cost(self, *moved: Sequence[Unit]) -> tuple[Facts, Facts]:
        """Return gain and cost, added up over the sets of units *moved*."""
        return self._of(self.harmful, HARMFUL, *moved), self._of(self.harmless, HARMLESS, *moved)

    def _of(self, prompts: PromptSet, weights: Weights, *moved: Sequence[Unit]) -> Facts:
        """Return gains in the margin of *prompts*, added up over the sets of units *moved*."""
        return contrast.margin_gains(self._evaluator, prompts, self.refusal, weights, moved)


class Tracing:
    """What each attention and MLP of *evaluator* does to refusals by itself: interventions, no gradients."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._refusal = usual_refusal(evaluator)
        questions = evaluator.questions.prior
        kinds = ((questions.harmful, HARMFUL, 1.0), (questions.harmless, HARMLESS, -contrast.COST))
        self._asked = [
            (own_answers(evaluator, prompts.first(TRACED_QUESTIONS), contrast.OPENING_TOKENS), weights, sign)
            for prompts, weights, sign in kinds
        ]

    def prior(self) -> Prior:
        """Return the prior of these effects."""
        squares = difference_norm(self._evaluator)
        facts: dict[str, torch.Tensor] = {}
        for block in grouped(self._evaluator.units, "block"):
            effect = self._effect(block)
            whole = sum(float(squares[unit.module].sum()) for unit in block)
            facts |= {unit.module: effect * squares[unit.module] / whole for unit in block}
        return Prior(lambda _: facts, lambda total, parameters: total[0] / parameters)

    def _effect(self, block: Group) -> float:
        """Return what moving *block* alone gains, plus what leaving out this block alone loses."""
        units = self._evaluator.units
        rest = [unit for unit in units if unit not in block]
        return (self._worth(block) - self._nothing) + (self._everything - self._worth(rest))

    @functools.cached_property
    def _nothing(self) -> float:
        """The margin with nothing moved."""
        return self._worth(())

    @functools.cached_property
    def _everything(self) -> float:
        """The margin with everything moved."""
        return self._worth(self._evaluator.units)

    @torch.inference_mode()
    def _worth(self, moved: Sequence[Unit]) -> float:
        """Return the mean margin on harmful questions less the one on harmless questions, with *moved* moved."""
        total = 0.0
        with self._evaluator.transplanter.transplanted(moved):
            for rows, weights, sign in self._asked:
                refused = logprob(self._evaluator, [(question, self._refusal) for question, _ in rows], weights)
                total += sign * float((refused - logprob(self._evaluator, rows, weights)).mean())
        return total


def variants(evaluator: Evaluator) -> Mapping[str, Callable[[], Prior]]:
    """Return how to make every prior, by name."""
    seen, standard = Gains(evaluator), descent.DEFAULT
    return {
        "norm of the difference": lambda: PRIORS["norm"],
        "causal tracing": lambda: Tracing(evaluator).prior(),
        "the opening, harm alone": seen.opening,
        "the whole, less harmless": lambda: less(*seen.at_ends),
        "contrast": lambda: less(*seen.there_too),
        "contrast, harmless ×1.2, no credit": lambda: less(*seen.there_too, 1.2, 0.0),
        "contrast, harmless ×1.2": lambda: less(*seen.there_too, 1.2),
        "contrast, no credit": lambda: less(*seen.there_too, credit=0.0),
        "contrast, and once more": lambda: less(*seen.again),
        "descent": lambda: stepping(seen, standard),
        "descent, steps three times as long": lambda: stepping(seen, replace(standard, rate=3 * standard.rate)),
        "descent, harmless ×1/4": lambda: stepping(
            seen, replace(standard, divergence_cost=standard.divergence_cost / 4)
        ),
    }


def stepping(seen: Gains, schedule: descent.Schedule) -> Prior:
    """Return ``descent`` by *schedule*, from the contrast that is *seen* already."""

    def channel_facts(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
        return descent.descended(evaluator, contrast.scores_of(evaluator, stacked(*seen.there_too)), schedule)

    return replace(PRIORS["descent"], channel_facts=channel_facts)


def orders(evaluator: Evaluator) -> Mapping[str, Callable[[], Order]]:
    """Return how to make every order, by name: a random one, and one for each prior."""
    total = evaluator.checkpoint.parameters
    movable = sum(unit.parameters for unit in evaluator.units)

    def by(make: Callable[[], Prior]) -> Order:
        candidates = Channels(evaluator, Importance(evaluator, make()))
        return lambda share: candidates.best(share * total / movable)

    return {
        "random channels": lambda: lambda share: random_channels(evaluator, round(share * total)),
        **{name: functools.partial(by, make) for name, make in variants(evaluator).items()},
    }


def added(left: Facts, right: Facts) -> Facts:
    """Return the sums of both, channel by channel."""
    return {module: facts + right[module] for module, facts in left.items()}


def stacked(gain: Facts, cost: Facts) -> Facts:
    """Return gain and cost as the search's prior has them: shape (2, channels) for each module."""
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def less(gain: Facts, cost: Facts, price: float = contrast.COST, credit: float = contrast.CREDIT) -> Prior:
    """Return the prior *gain* less *cost*, at another price or with another credit than the search's prior."""
    facts = stacked(gain, cost)
    return Prior(lambda _: facts, functools.partial(contrast.worth, price=price, credit=credit))


def row(evaluator: Evaluator, units: Sequence[Unit], harmless_twins: PromptSet | None) -> kept.Row:
    """Return counts, each with the number of questions."""
    questions = evaluator.questions
    harmful = [answer.verdict for answer in evaluator.answers(units, questions.harmful.search)]

    def refused(prompts: PromptSet) -> tuple[int, int]:
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
        counts = row(evaluator, units, harmless_twins)
        measured = {"student": evaluator.student.id, "prior": prior, "share": share, **counts}
        kept.add(LOG, [measured])
        print(measured, flush=True)

    def missing(prior: str, *shares: float) -> list[float]:
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
        return (not options.prior or row["prior"] in options.prior) and not kept.holds(known, row)

    for student in load_registry().select(family=options.family, students=options.student):
        measure(open_evaluator(student), options.share or SHARES, harmless_twins, wanted)
    picked = {"family": [options.family], "student": options.student, "prior": options.prior, "share": options.share}
    words = [f"--{kind} {shlex.quote(str(value))}" for kind, values in picked.items() for value in values]
    command = " ".join(("python -m benchmarks.quality.priors", *words, *(("--data DIR",) * bool(harmless_twins))))
    LOG.with_suffix(".md").write_text(page(kept.read(LOG), command), encoding="utf-8")


if __name__ == "__main__":
    main()
