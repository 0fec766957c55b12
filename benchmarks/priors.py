"""Priors side by side: how well the channels that each calls likeliest restore refusal, before any search.

    PYTHONPATH=benchmarks python benchmarks/priors.py [--family smollm2] [--student json ...] [--data DIR]

Asks the oracle's questions, which the priors have not seen, with whole answers: refusals and unscored answers of the
harmful questions, refusals of the harmless ones, right answers to the student's own task. With ``--data DIR``, also
refusals of 128 harmless twins of AdvBench (``DIR/dapa/advbench_392_harmless_twins.csv``, the ones after the first 128,
which ``methods.py`` reports on). Writes ``benchmarks/priors.md``.

The margin of a question is log p(refusal) - log p(own answer's opening). The priors differ in what of a refusal counts,
in what a refusal of a harmless question costs and how much of that a channel earns which lowers it, and in where
gradients are taken: at the student and the fully moved student, or once more where the likeliest channels have moved.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from methods import random_channels, twins, under
from tabulate import tabulate

from safety_harness import prior
from safety_harness.bench import Bench, open_bench
from safety_harness.candidates import Channels
from safety_harness.judges import Verdict
from safety_harness.prior import PRIORS, Prior, Weights
from safety_harness.prompts import PromptSet
from safety_harness.registry import load_registry
from safety_harness.units import Unit

SHARES = (0.02, 0.03, 0.05)
"""Of the model's parameters."""
OPENING = Weights(((prior.OPENING, 1.0),), 0.0)
OTHER_TWINS = slice(128, 256)

Facts = Mapping[str, torch.Tensor]
"""Of each channel of a module: shape (channels,)."""


class Evidence:
    """Gains of *bench*'s channels over its prior's questions, taken where they are asked for."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._refusal = prior._usual_refusal(bench)
        self.harmful = bench.questions.prior.harmful.first(prior.QUESTIONS)
        self.harmless = bench.questions.prior.harmless.first(prior.HARMLESS_QUESTIONS)

    def of(self, prompts: PromptSet, weights: Weights, *moved: Sequence[Unit]) -> Facts:
        """Added up over the sets of units *moved*."""
        return prior._gains(self._bench, prompts, self._refusal, weights, moved)


def variants(bench: Bench) -> Iterator[tuple[str, Prior]]:
    """Every prior, by name."""
    evidence, ends = Evidence(bench), ((), bench.units)
    yield "norm of the difference", PRIORS["norm"]
    opening = evidence.of(evidence.harmful, OPENING, *ends)
    yield "the opening, harm alone", less(opening, opening, 0.0)
    gain = evidence.of(evidence.harmful, prior.HARMFUL, *ends)
    cost = evidence.of(evidence.harmless, prior.HARMLESS, *ends)
    yield "the whole, less harmless", less(gain, cost)
    there = prior._likeliest(bench, stacked(gain, cost))
    gain = added(gain, evidence.of(evidence.harmful, prior.HARMFUL, there))
    cost = added(cost, evidence.of(evidence.harmless, prior.HARMLESS, there))
    yield "**and where the likeliest have moved**", less(gain, cost)
    yield "the last, harmless ×1.2, no credit", less(gain, cost, 1.2, 0.0)
    yield "the last, harmless ×1.2, half credit", less(gain, cost, 1.2)
    yield "the last, no credit", less(gain, cost, credit=0.0)
    there = prior._likeliest(bench, stacked(gain, cost))
    gain = added(gain, evidence.of(evidence.harmful, prior.HARMFUL, there))
    cost = added(cost, evidence.of(evidence.harmless, prior.HARMLESS, there))
    yield "and once more", less(gain, cost)


def added(one: Facts, other: Facts) -> Facts:
    return {module: facts + other[module] for module, facts in one.items()}


def stacked(gain: Facts, cost: Facts) -> Facts:
    """Gain and cost as the search's prior has them: shape (2, channels)."""
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def less(gain: Facts, cost: Facts, price: float = prior.COST, credit: float = prior.CREDIT) -> Prior:
    """*gain* less *cost* as the search's prior has it, at another price or with another credit."""
    facts = stacked(gain, cost)
    return Prior(lambda _: facts, functools.partial(prior.worth, price=price, credit=credit))


def row(bench: Bench, units: Sequence[Unit], asked_beside: PromptSet | None) -> tuple[str, ...]:
    questions = bench.questions
    said = [answer.verdict for answer in bench.asked(units, questions.harmful.search)]
    harmless = [
        [answer.verdict for answer in bench.glimpsed(units, prompts)].count(Verdict.REFUSED)
        for prompts in (questions.harmless.search, asked_beside)
        if prompts
    ]
    share = sum(unit.parameters for unit in units) / bench.checkpoint.parameters
    task = sum(bench.right(units, questions.task.search)) if questions.task else 0
    counts = (said.count(Verdict.REFUSED), said.count(Verdict.UNSCORED), *harmless, task)
    return (f"{100 * share:.2f}", *map(str, counts))


def rows(bench: Bench, asked_beside: PromptSet | None) -> Iterator[tuple[str, ...]]:
    yield ("nothing", *row(bench, (), asked_beside))
    yield ("all of the teacher", *row(bench, bench.units, asked_beside))
    total, movable = bench.checkpoint.parameters, sum(unit.parameters for unit in bench.units)
    for share in SHARES:
        yield ("random channels", *row(bench, random_channels(bench, round(share * total)), asked_beside))
    for name, variant in variants(bench):
        with patch.dict(PRIORS, {"variant": variant}):
            ordered = Channels(under(bench, prior="variant"))
        for share in SHARES:
            yield (name, *row(bench, ordered.best(share * total / movable), asked_beside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    beside = twins(options.data, OTHER_TWINS) if options.data else None
    command = f"PYTHONPATH=benchmarks python benchmarks/priors.py --family {options.family}"
    command += " --data DIR" if options.data else ""
    parts = ["# Priors", f"`{command}{''.join(f' --student {name}' for name in options.student)}`"]
    for student in load_registry().select(family=options.family, students=options.student):
        bench = open_bench(student)
        asked = bench.questions
        headers = ("prior", "% parameters", f"refused of {len(asked.harmful.search)}", "unscored",
                   f"harmless refused of {len(asked.harmless.search)}",
                   *([f"twins refused of {len(beside)}"] if beside else []),
                   f"own task of {len(asked.task.search) if asked.task else 0}")  # fmt: skip
        found = []
        for line in rows(bench, beside):
            print(line, flush=True)
            found.append(line)
        parts += [f"## {student.id}", tabulate(found, headers, tablefmt="github", disable_numparse=True)]
    (Path(__file__).parent / "priors.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
