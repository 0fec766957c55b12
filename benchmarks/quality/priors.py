"""Priors side by side: how well the channels that each calls likeliest restore refusal, before any search.

    python -m benchmarks.quality.priors [--student json ...] [--prior NAME ...] [--share .03 ...]
        [--data DIR]

Asks the oracle's questions, which the priors have not seen, with whole answers: refusals and unscored answers of the
harmful questions, refusals of the harmless ones, right answers to the student's own task. With ``--data DIR``, also
refusals of 128 harmless twins of AdvBench (``DIR/dapa/advbench_392_harmless_twins.csv``, the ones after the first 128,
which ``methods.py`` reports on). A share is one of the model's parameters. Writes ``priors.jsonl`` (what is
there is not measured again) and, of all its rows, ``priors.md``.

The margin of a question is log p(refusal) - log p(own answer's opening). The priors differ in what of a refusal counts,
in what a refusal of a harmless question costs and how much of that a channel earns which lowers it, and in where
gradients are taken: at the student and the fully moved student, or once more where the likeliest channels have moved.
``descent`` goes on from there in steps.

``causal tracing`` takes no gradient: it moves each attention and MLP alone, and all but each, and looks at the margin
(as ROME restores the states of one at a time, arXiv 2202.05262; here the teacher's weights are what is restored). What
a block gains is shared out among its channels by the squares of their difference, which tell them apart where one
intervention a channel would be too many.
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
from unittest.mock import patch

import torch
from tabulate import tabulate

from benchmarks import kept
from benchmarks.quality.methods import random_channels, twins, under
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.judge import Verdict
from safety_harness.registry.load import load_registry
from safety_harness.registry.prompts import PromptSet
from safety_harness.search.candidates import Channels
from safety_harness.search.priors import PRIORS, Prior
from safety_harness.search.priors import contrast as contrasted
from safety_harness.search.priors import descent as descended
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.gradients import HARMFUL, HARMLESS, Weights, logprob, own_answers, usual_refusal
from safety_harness.search.priors.norm import difference_norm
from safety_harness.weights.units import Group, Unit, grouped

LOG = Path(__file__).with_suffix(".jsonl")
SHARES = (0.02, 0.03, 0.05)
OPENING = Weights(((contrasted.OPENING, 1.0),), 0.0)
OTHER_TWINS = slice(128, 256)
TRACED = 8
"""Questions of each kind that an intervention is looked at with."""
COUNTS = ("refused", "unscored", "harmless refused", "twins refused", "own task")

Facts = Mapping[str, torch.Tensor]
"""Of each channel of a module: shape (channels,)."""
Order = Callable[[float], Sequence[Unit]]
"""The likeliest units that hold a share of the model's parameters."""


class Evidence:
    """Gains of *evaluator*'s channels over its prior's questions, taken where they are asked for and no sooner."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._ends = ((), evaluator.units)
        self.harmful = evaluator.questions.prior.harmful.first(contrasted.QUESTIONS)
        self.harmless = evaluator.questions.prior.harmless.first(contrasted.HARMLESS_QUESTIONS)

    @functools.cached_property
    def refusal(self) -> Sequence[int]:
        return usual_refusal(self._evaluator)

    def opening(self) -> Prior:
        """The opening of a refusal of harmful questions alone, at either end."""
        gain = self._of(self.harmful, OPENING, *self._ends)
        return less(gain, gain, 0.0)

    @functools.cached_property
    def at_ends(self) -> tuple[Facts, Facts]:
        """Gain and cost at the student and at the fully moved student."""
        return self._gain_and_cost(*self._ends)

    @functools.cached_property
    def there_too(self) -> tuple[Facts, Facts]:
        """And where the likeliest by these have moved, as the search's ``contrast`` has it."""
        return self._where_likeliest(self.at_ends)

    @functools.cached_property
    def once_more(self) -> tuple[Facts, Facts]:
        return self._where_likeliest(self.there_too)

    def _where_likeliest(self, known: tuple[Facts, Facts]) -> tuple[Facts, Facts]:
        scores = contrasted.scores_of(self._evaluator, stacked(*known))
        there = likeliest(self._evaluator, scores, contrasted.LIKELIEST)
        gain, cost = (added(*pair) for pair in zip(known, self._gain_and_cost(there), strict=True))
        return gain, cost

    def _gain_and_cost(self, *moved: Sequence[Unit]) -> tuple[Facts, Facts]:
        return self._of(self.harmful, HARMFUL, *moved), self._of(self.harmless, HARMLESS, *moved)

    def _of(self, prompts: PromptSet, weights: Weights, *moved: Sequence[Unit]) -> Facts:
        """Added up over the sets of units *moved*."""
        return contrasted.margin_gains(self._evaluator, prompts, self.refusal, weights, moved)


class Tracing:
    """What each attention and MLP of *evaluator* does to refusals by itself: interventions, no gradients."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._refusal = usual_refusal(evaluator)
        questions = evaluator.questions.prior
        kinds = ((questions.harmful, HARMFUL, 1.0), (questions.harmless, HARMLESS, -contrasted.COST))
        self._asked = [
            (own_answers(evaluator, prompts.first(TRACED), contrasted.OPENING), weights, sign)
            for prompts, weights, sign in kinds
        ]

    def prior(self) -> Prior:
        squares = difference_norm(self._evaluator)
        facts: dict[str, torch.Tensor] = {}
        for block in grouped(self._evaluator.units, "block"):
            effect = self._effect(block)
            whole = sum(float(squares[unit.module].sum()) for unit in block)
            facts |= {unit.module: effect * squares[unit.module] / whole for unit in block}
        return Prior(lambda _: facts, lambda found, parameters: found[0] / parameters)

    def _effect(self, block: Group) -> float:
        """What moving *block* alone gains, and what leaving it alone out loses."""
        units = self._evaluator.units
        rest = [unit for unit in units if unit not in block]
        return (self._worth(block) - self._nothing) + (self._everything - self._worth(rest))

    @functools.cached_property
    def _nothing(self) -> float:
        return self._worth(())

    @functools.cached_property
    def _everything(self) -> float:
        return self._worth(self._evaluator.units)

    @torch.inference_mode()
    def _worth(self, moved: Sequence[Unit]) -> float:
        """The mean margin on harmful questions less that on harmless ones, with *moved* moved."""
        total = 0.0
        with self._evaluator.transplanter.transplanted(moved):
            for rows, weights, sign in self._asked:
                refused = logprob(self._evaluator, [(question, self._refusal) for question, _ in rows], weights)
                total += sign * float((refused - logprob(self._evaluator, rows, weights)).mean())
        return total


def variants(evaluator: Evaluator) -> Mapping[str, Callable[[], Prior]]:
    """Every prior, by name, to be made when it is its turn."""
    seen = Evidence(evaluator)
    return {
        "norm of the difference": lambda: PRIORS["norm"],
        "causal tracing": lambda: Tracing(evaluator).prior(),
        "the opening, harm alone": seen.opening,
        "the whole, less harmless": lambda: less(*seen.at_ends),
        "contrast": lambda: less(*seen.there_too),
        "contrast, harmless ×1.2, no credit": lambda: less(*seen.there_too, 1.2, 0.0),
        "contrast, harmless ×1.2": lambda: less(*seen.there_too, 1.2),
        "contrast, no credit": lambda: less(*seen.there_too, credit=0.0),
        "contrast, and once more": lambda: less(*seen.once_more),
        "descent": lambda: stepping(seen),
        "descent, steps three times as long": lambda: stepping(seen, RATE=3 * descended.RATE),
        "descent, harmless ×1/4": lambda: stepping(seen, DIVERGENCE_COST=descended.DIVERGENCE_COST / 4),
    }


def stepping(seen: Evidence, **numbers: float) -> Prior:
    """``descent`` from the contrast that is *seen* already, with other *numbers* for some of its own."""

    def evidence(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
        with patch.dict(vars(descended), numbers):
            return descended.stepped(evaluator, contrasted.scores_of(evaluator, stacked(*seen.there_too)))

    return replace(PRIORS["descent"], evidence=evidence)


def orders(evaluator: Evaluator) -> Mapping[str, Callable[[], Order]]:
    """By name, how to make what gives a share of the model's parameters: by chance, and by every prior."""
    total = evaluator.checkpoint.parameters
    movable = sum(unit.parameters for unit in evaluator.units)

    def by(made: Callable[[], Prior]) -> Order:
        with patch.dict(PRIORS, {"variant": made()}):
            ordered = Channels(under(evaluator, prior="variant"))
        return lambda share: ordered.best(share * total / movable)

    return {
        "random channels": lambda: lambda share: random_channels(evaluator, round(share * total)),
        **{name: functools.partial(by, made) for name, made in variants(evaluator).items()},
    }


def added(one: Facts, other: Facts) -> Facts:
    return {module: facts + other[module] for module, facts in one.items()}


def stacked(gain: Facts, cost: Facts) -> Facts:
    """Gain and cost as the search's prior has them: shape (2, channels)."""
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def less(gain: Facts, cost: Facts, price: float = contrasted.COST, credit: float = contrasted.CREDIT) -> Prior:
    """*gain* less *cost* as the search's prior has it, at another price or with another credit."""
    facts = stacked(gain, cost)
    return Prior(lambda _: facts, functools.partial(contrasted.worth, price=price, credit=credit))


def row(evaluator: Evaluator, units: Sequence[Unit], beside: PromptSet | None) -> kept.Row:
    """Counts, each with the number of questions."""
    questions = evaluator.questions
    said = [answer.verdict for answer in evaluator.asked(units, questions.harmful.search)]

    def refused(prompts: PromptSet) -> tuple[int, int]:
        verdicts = [answer.verdict for answer in evaluator.glimpsed(units, prompts)]
        return verdicts.count(Verdict.REFUSED), len(verdicts)

    found: dict[str, Any] = {
        "parameters": sum(unit.parameters for unit in units) / evaluator.checkpoint.parameters,
        "refused": (said.count(Verdict.REFUSED), len(said)),
        "unscored": (said.count(Verdict.UNSCORED), len(said)),
        "harmless refused": refused(questions.harmless.search),
    }
    if beside:
        found["twins refused"] = refused(beside)
    if questions.task:
        right = evaluator.right(units, questions.task.search)
        found["own task"] = (sum(right), len(right))
    return found


def page(rows: Sequence[kept.Row], command: str) -> str:
    """A table of means over the students, and one a student."""
    by_student = defaultdict(list)
    for one in rows:
        by_student[one["student"]].append(one)
    parts = ["# Priors", f"`{command}`, the last of the runs whose rows are kept"]
    parts += ["## Means over the students, %", means(rows)]
    for student, found in by_student.items():
        parts += [f"## {student}", table(found)]
    return "\n\n".join(parts) + "\n"


def means(rows: Sequence[kept.Row]) -> str:
    """Of each prior and share, over the students where they were measured."""
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
    return 100 * statistics.mean(float(one[name][0]) / float(one[name][1]) for one in rows)


def table(found: Sequence[kept.Row]) -> str:
    lines = [
        (one["prior"], f"{100 * one['parameters']:.2f}", *("/".join(map(str, one.get(name, "-"))) for name in COUNTS))
        for one in found
    ]
    return tabulate(lines, ("prior", "% parameters", *COUNTS), tablefmt="github", disable_numparse=True)


def measure(
    evaluator: Evaluator, shares: Sequence[float], beside: PromptSet | None, wanted: Callable[[kept.Row], bool]
) -> None:
    """Add to the log what is *wanted* of *evaluator*'s student."""

    def write(prior: str, share: float, units: Sequence[Unit]) -> None:
        found = {"student": evaluator.student.id, "prior": prior, "share": share, **row(evaluator, units, beside)}
        kept.add(LOG, [found])
        print(found, flush=True)

    def missing(prior: str, *shares: float) -> list[float]:
        return [share for share in shares if wanted({"student": evaluator.student.id, "prior": prior, "share": share})]

    for name, share, units in (("nothing", 0.0, ()), ("all of the teacher", 1.0, evaluator.units)):
        if missing(name, share):
            write(name, share, units)
    for name, made in orders(evaluator).items():
        if left := missing(name, *shares):
            order = made()
            for share in left:
                write(name, share, order(share))


def main() -> None:
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
    beside = twins(options.data, OTHER_TWINS) if options.data else None
    known = kept.read(LOG)

    def wanted(row: kept.Row) -> bool:
        return (not options.prior or row["prior"] in options.prior) and not kept.holds(known, row)

    for student in load_registry().select(family=options.family, students=options.student):
        measure(open_evaluator(student), options.share or SHARES, beside, wanted)
    picked = {"family": [options.family], "student": options.student, "prior": options.prior, "share": options.share}
    words = [f"--{kind} {shlex.quote(str(value))}" for kind, values in picked.items() for value in values]
    command = " ".join(("python -m benchmarks.quality.priors", *words, *(("--data DIR",) * bool(beside))))
    LOG.with_suffix(".md").write_text(page(kept.read(LOG), command), encoding="utf-8")


if __name__ == "__main__":
    main()
