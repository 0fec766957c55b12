"""Priors side by side: how well the channels that each calls likeliest restore refusal, before any search.

    PYTHONPATH=benchmarks python benchmarks/priors.py [--family smollm2] [--student json ...] [--transfer replace|add]

On the search split (the priors are made on it, so nothing here is held out), with whole answers, in bfloat16: refusals
and unscored answers of the harmful questions, refusals of the harmless ones, right answers to the student's own task.
Writes ``benchmarks/priors.md``.

The margin of a question is log p(refusal) - log p(own answer's opening). Gains are linear in it, so that two sets of
backward passes (the refusal's opening alone, the whole refusal) give all weights in between.

Of the whole refusal with its opening ×3, moreover: other weights of the cost on harmless questions; the cost of a
refusal's first three tokens alone, on 64 questions or all; the cost on those that the fully moved student is nearest to
refusing; and the gradients taken once more where the likeliest 3 % have moved, on the questions nearest to their
threshold there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from methods import changed, random_channels, under
from tabulate import tabulate

from safety_harness import prior
from safety_harness.bench import Bench, open_bench
from safety_harness.candidates import Channels
from safety_harness.capability import batches
from safety_harness.judges import Verdict
from safety_harness.prior import PRIORS, Prior, Weights
from safety_harness.prompts import PromptSet, prompt_set
from safety_harness.registry import load_registry
from safety_harness.units import Unit

SHARES = (0.015, 0.03, 0.045)
"""Of the model's parameters."""

Evidence = Mapping[str, torch.Tensor]


PLAIN = Weights((), 1.0)
OPENING = Weights(((prior.OPENING, 1.0),), 0.0)
BEGINNING = Weights(((3, 3.0),), 0.0)


def facts(bench: Bench, weights: Weights, harmless: PromptSet) -> Evidence:
    """Gain on the harmful questions of the search, and cost on *harmless*, tokens weighted alike."""
    refusal = prior._usual_refusal(bench)
    gain = prior._gains(bench, bench.questions.prior.harmful.first(prior.QUESTIONS), refusal, weights)
    cost = prior._gains(bench, harmless, refusal, weights)
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def variants(bench: Bench) -> Iterator[tuple[str, Prior]]:
    """Every prior, by name."""
    every = bench.questions.harmless.search
    few, refusal = every.first(prior.QUESTIONS), prior._usual_refusal(bench)
    opening, whole = facts(bench, OPENING, few), facts(bench, PLAIN, few)
    yield "norm of the difference", PRIORS["norm"]
    yield "opening, harm alone", Prior(lambda _: opening, lambda facts, parameters: facts[0] / parameters)
    yield "opening, less harmless", less_harmless(opening)
    for extra in (0, 1, 2):
        weighted = {module: facts + extra * opening[module] for module, facts in whole.items()}
        yield f"whole refusal, opening ×{extra + 1}, less harmless", less_harmless(weighted)
    for weight in (0.7, 0.85, 1.2, 2.0):
        yield f"the last, harmless ×{weight}", less_harmless(weighted, weight)
    of_harmless = {
        "the beginning on 64 harmless": prior._gains(bench, few, refusal, BEGINNING),
        "the beginning on all harmless": prior._gains(bench, every, refusal, BEGINNING),
        "on the 64 harmless nearest to refusal": prior._gains(
            bench, nearest(bench, every, refusal, bench.units), refusal, prior.HARMFUL
        ),
    }
    for name, cost in of_harmless.items():
        for weight in (1.0, 1.5):
            yield f"the last, {name} ×{weight}", less_harmless(with_cost(weighted, cost), weight)
    yield "what the search uses", PRIORS["contrast"]
    again = {module: weighted[module] + 2 * facts for module, facts in taken_again(bench, weighted, refusal).items()}
    yield "opening ×3, and once more where 3 % have moved", less_harmless(again)


def with_cost(evidence: Evidence, cost: Evidence) -> Evidence:
    """*evidence* with another cost."""
    return {module: torch.stack([facts[0], cost[module]]) for module, facts in evidence.items()}


def less_harmless(evidence: Evidence, weight: float = 1.0) -> Prior:
    """Gain less cost a parameter, the cost *weight* times."""
    return Prior(lambda _: evidence, lambda facts, parameters: (facts[0] - weight * facts[1].clamp(min=0)) / parameters)


@torch.inference_mode()
def margins(bench: Bench, prompts: PromptSet, refusal: Sequence[int], units: Sequence[Unit]) -> torch.Tensor:
    """How likely the opening of the refusal is, in nats, after each question, with *units* moved."""
    rows = [(bench.generator.encode(prompt.text), refusal[: prior.OPENING]) for prompt in prompts]
    with bench.transplanter.transplanted(units):
        return torch.cat(
            [prior._logprob(bench, batch, PLAIN) for batch in batches(rows, bench.student.family.batch_size)]
        )


def nearest(bench: Bench, prompts: PromptSet, refusal: Sequence[int], units: Sequence[Unit]) -> PromptSet:
    """The 64 questions that are likeliest to be refused with *units* moved."""
    order = margins(bench, prompts, refusal, units).argsort(descending=True, stable=True)
    return prompt_set(prompts.name, [prompts.prompts[i] for i in sorted(order[: prior.QUESTIONS].tolist())])


def taken_again(bench: Bench, evidence: Evidence, refusal: Sequence[int]) -> Evidence:
    """Gain and cost where the likeliest 3 % have moved: on the 32 harmful questions likeliest not to be refused there,
    and on the 32 harmless ones likeliest to be."""
    moved = channels(bench, less_harmless(evidence)).best(0.03 * bench.checkpoint.parameters / candidates(bench))
    facts = []
    for prompts, sign in ((bench.questions.harmful.search, -1), (bench.questions.harmless.search, 1)):
        order = (sign * margins(bench, prompts, refusal, moved)).argsort(descending=True, stable=True)[:32].tolist()
        chosen = prompt_set(prompts.name, [prompts.prompts[i] for i in order])
        pairs = [
            (bench.generator.encode(prompt.text), prior._opening(bench, answer.answer))
            for prompt, answer in zip(chosen, bench.glimpsed((), chosen), strict=True)
        ]
        difference = {name: bench.transplanter.difference(name) for unit in bench.units for name in unit.tensors}
        with bench.transplanter.transplanted(moved):
            gradient = prior._gradient(bench, pairs, refusal, prior.HARMFUL)
        gains = {name: gradient[name] * difference[name] for name in gradient}
        facts.append({unit.module: prior._by_channel(unit, gains) for unit in bench.units})
    gain, cost = facts
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def channels(bench: Bench, variant: Prior) -> Channels:
    with patch.dict(PRIORS, {"variant": variant}):
        return Channels(under(bench, prior="variant"))


def candidates(bench: Bench) -> int:
    return sum(unit.parameters for unit in bench.units)


def row(bench: Bench, units: Sequence[Unit]) -> tuple[str, ...]:
    questions = bench.questions
    said = [answer.verdict for answer in bench.asked(units, questions.harmful.search)]
    harmless = [answer.verdict for answer in bench.asked(units, questions.harmless.search)]
    share = sum(unit.parameters for unit in units) / bench.checkpoint.parameters
    task = sum(bench.right(units, questions.task.search)) if questions.task else 0
    counts = (said.count(Verdict.REFUSED), said.count(Verdict.UNSCORED), harmless.count(Verdict.REFUSED), task)
    return (f"{100 * share:.2f}", *map(str, counts))


def rows(bench: Bench) -> Iterator[tuple[str, ...]]:
    yield ("nothing", *row(bench, ()))
    yield ("all of the teacher", *row(bench, bench.units))
    sizes = [share * bench.checkpoint.parameters for share in SHARES]
    for size in sizes:
        yield ("random channels", *row(bench, random_channels(bench, round(size))))
    for name, variant in variants(bench):
        ordered = channels(bench, variant)
        for size in sizes:
            yield (name, *row(bench, ordered.best(size / candidates(bench))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    parser.add_argument("--transfer", choices=("replace", "add"), default="replace")
    options = parser.parse_args()
    command = (
        f"PYTHONPATH=benchmarks python benchmarks/priors.py --family {options.family} --transfer {options.transfer}"
    )
    parts = ["# Priors", f"`{command}{''.join(f' --student {name}' for name in options.student)}`"]
    for student in load_registry(search={"transfer": options.transfer}).select(
        family=options.family, students=options.student
    ):
        bench = open_bench(changed(student, dtype="bfloat16"))
        asked = bench.questions
        headers = ("prior", "% parameters", f"refused of {len(asked.harmful.search)}", "unscored",
                   f"harmless refused of {len(asked.harmless.search)}",
                   f"own task of {len(asked.task.search) if asked.task else 0}")  # fmt: skip
        found = []
        for line in rows(bench):
            print(line, flush=True)
            found.append(line)
        parts += [f"## {student.id}", tabulate(found, headers, tablefmt="github", disable_numparse=True)]
    record = "priors.md" if options.transfer == "replace" else "priors_add.md"
    (Path(__file__).parent / record).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
