"""Priors side by side: how well the channels that each calls likeliest restore refusal, before any search.

    PYTHONPATH=benchmarks python benchmarks/priors.py [--family smollm2] [--student json ...]

On the search split (the priors are made on it, so nothing here is held out), with whole answers, in bfloat16: refusals
and unscored answers of the harmful questions, refusals of the harmless ones, right answers to the student's own task.
Writes ``benchmarks/priors.md``.

The margin of a question is log p(refusal) - log p(own answer's opening). Gains are linear in it, so that two sets of
backward passes (the refusal's opening alone, the whole refusal) give all weights in between.
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
from safety_harness.judges import Verdict
from safety_harness.prior import PRIORS, Prior, contrast
from safety_harness.registry import load_registry
from safety_harness.units import Unit

SHARES = (0.015, 0.03, 0.045)
"""Of the model's parameters."""

Evidence = Mapping[str, torch.Tensor]


def evidences(bench: Bench) -> tuple[Evidence, Evidence]:
    """Gain and cost of the refusal's opening alone, and of the whole refusal, every token once."""
    usual = prior._usual_refusal
    with patch.object(prior, "OPENING_WEIGHT", 1.0):
        with patch.object(prior, "_usual_refusal", lambda bench: usual(bench)[: prior.OPENING]):
            opening = contrast(bench)
        return opening, contrast(bench)


def variants(bench: Bench) -> Iterator[tuple[str, Prior]]:
    """Every prior, by name."""
    opening, whole = evidences(bench)
    less_harmless = PRIORS["contrast"].score
    yield "norm of the difference", PRIORS["norm"]
    yield "opening, harm alone", Prior(lambda _: opening, lambda facts, parameters: facts[0] / parameters)
    yield "opening, less harmless", Prior(lambda _: opening, less_harmless)
    for extra in (0, 1, 2):
        weighted = {module: facts + extra * opening[module] for module, facts in whole.items()}
        name = f"whole refusal, opening ×{extra + 1}, less harmless"
        yield name, Prior(lambda _, found=weighted: found, less_harmless)


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
    candidates = sum(unit.parameters for unit in bench.units)
    sizes = [share * bench.checkpoint.parameters for share in SHARES]
    for size in sizes:
        yield ("random channels", *row(bench, random_channels(bench, round(size))))
    for name, variant in variants(bench):
        with patch.dict(PRIORS, {name: variant}):
            channels = Channels(under(bench, prior=name))
        for size in sizes:
            yield (name, *row(bench, channels.best(size / candidates)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", action="append", default=[])
    options = parser.parse_args()
    command = f"PYTHONPATH=benchmarks python benchmarks/priors.py --family {options.family}"
    parts = ["# Priors", f"`{command}{''.join(f' --student {name}' for name in options.student)}`"]
    for student in load_registry().select(family=options.family, students=options.student):
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
    (Path(__file__).parent / "priors.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
