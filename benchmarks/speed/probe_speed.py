"""Time a probe against the published procedure and a plain one, and with each speedup left out.

    python -m benchmarks.speed.probe_speed [--student json] [--questions 64] [--tokens 32] [--sample 8] [--ddmin CALLS]

A real search of a smollm2 student runs first, on --questions harmful and as many harmless questions. Every set of units
that it asks about is kept. An evenly spaced sample of these sets is then probed again in each way, set by set,
so that all ways meet the same machine. Writes ``probe_speed.md``. With ``--ddmin CALLS``, classic ddmin counts
its probes from the same start, up to that number.

The ways:

* ``published``: both models are loaded for every question, which is asked alone, as DAPA's public code does. It is
  timed on two questions of a probe, and multiplied by the number of questions that the plain way asked.
* ``plain``: the models are loaded once, the units are copied in, all questions are one batch, and ``generate`` writes
  all tokens. Like ours it asks about a budget only if the refusals suffice.
* ``ours``, and ours with one part left out.

Ours must decide every set as the plain way does. Verdicts that differ are counted: in bfloat16 an answer depends on the
shape of its batch.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tabulate import tabulate

from benchmarks import command
from benchmarks.speed.ways import Plain, Searched, Units, Way, evenly, limited, published, searched
from safety_harness import ddmin
from safety_harness.evaluation.budgets import recorded_budgets
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.models.decoding.batch import pad_left
from safety_harness.weights.units import flat, grouped

# The side of a square matrix that is large enough for the machine's full rate.
MATRIX_SIDE = 2048
ROUNDS = 5

# What ``ours`` is timed without: a part's name in the report -> the speedup's value without it.
SPEEDUPS: dict[str, dict[str, Any]] = {
    "preallocated columns": {"preallocated": False},
    "packed weights": {"packed": False},
    "the template read once": {"min_prefill_tokens_saved": None},
}
SCREEN = "answers broken off"


@contextlib.contextmanager
def without(part: str, evaluator: Evaluator) -> Iterator[None]:
    """Run a block with one part of a probe left out, or with all parts if *part* is empty."""
    student, speedups = evaluator.student, evaluator.generator.speedups
    if part == SCREEN:
        evaluator.student = replace(student, family=student.family.model_copy(update={"screen_tokens": None}))
    evaluator.generator.speedups = replace(speedups, **SPEEDUPS.get(part, {}))
    try:
        yield
    finally:
        evaluator.student, evaluator.generator.speedups = student, speedups


def unmemoised(probe: Callable[[Units], bool], evaluator: Evaluator, part: str = "") -> Callable[[Units], bool]:
    """Return *probe* without one part, which measures again what was measured before."""

    def again(units: Units) -> bool:
        evaluator.forget()
        with without(part, evaluator):
            return probe(units)

    return again


def rates(evaluator: Evaluator) -> tuple[float, float]:
    """Return floating-point operations a second: of the machine's matrix product, and of reading questions."""
    generator = evaluator.generator
    one, other = (torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(generator.model.dtype) for _ in range(2))
    rows = [generator.encode(text) for text in evaluator.questions.harmful.search.texts]
    tokens, mask = pad_left(rows, generator.model.device)
    parameters = sum(unit.parameters for unit in evaluator.units)
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(10):
            one @ other
        best[0] = min(best[0], time.perf_counter() - start)
        start = time.perf_counter()
        with torch.inference_mode():
            generator.model(input_ids=tokens, attention_mask=mask, logits_to_keep=1)
        best[1] = min(best[1], time.perf_counter() - start)
    return 10 * 2 * MATRIX_SIDE**3 / best[0], 2 * parameters * tokens.numel() / best[1]


def ddmin_calls(probe: Callable[[Units], bool], start: Units, most: int) -> str:
    """Return the number of probes of classic ddmin over the groups of *start*, at most *most*, as text."""
    reduction = ddmin.minimize(
        grouped(start, "layer"), lambda groups: probe(flat(groups)), strategy="ddmin", max_calls=most
    )
    return f"{reduction.calls}{'' if reduction.stopped is None else ' and not at its end'}"


def main() -> None:
    """Search, probe the sample in every way, and write the report."""
    parser = command.parser(__doc__)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--ddmin", type=int, default=0, metavar="CALLS")
    options = parser.parse_args()
    evaluator = limited(command.chosen(options), options.questions, options.tokens)
    ours = searched(evaluator)
    oracle = Oracle(evaluator)
    budgets = recorded_budgets(ours.patch.search, evaluator.student.search, oracle)

    def probe(units: Units) -> bool:
        return oracle.probe(units, budgets).accepted

    plain = Plain(evaluator, oracle, budgets)
    ways = {"plain": Way(plain), "ours": Way(unmemoised(probe, evaluator))}
    ways |= {f"ours without {part}": Way(unmemoised(probe, evaluator, part)) for part in (*SPEEDUPS, SCREEN)}
    reloaded, differing = [], 0
    for units in evenly([units for units, _ in ours.probed], options.sample):
        for way in ways.values():
            way(units)
        verdicts = [answer.verdict for answer in evaluator.answers(units, oracle.harmful)]
        differing += sum(one is not other for one, other in zip(verdicts, plain.verdicts, strict=True))
        reloaded.append(published(evaluator, units) * plain.questions[-1])
    first = next((units for units, accepted in ours.probed if accepted), ())
    calls = ddmin_calls(probe, first, options.ddmin) if options.ddmin and first else "not counted"
    text = report(options, ours, ways, reloaded, differing, rates(evaluator), calls)
    (Path(__file__).parent / "probe_speed.md").write_text(text, encoding="utf-8")
    print(text)


def report(
    options: argparse.Namespace,
    search_run: Searched,
    ways: dict[str, Way],
    reloaded: Sequence[float],
    differing: int,
    measured_rates: tuple[float, float],
    calls: str,
) -> str:
    """Return the report as Markdown."""
    ours, plain = ways["ours"].seconds, ways["plain"].seconds
    timings = [("published", reloaded), *((name, way.seconds) for name, way in ways.items())]
    table = tabulate(
        [
            (name, f"{mean(seconds):.2f}", f"{median(a / b for a, b in zip(seconds, ours, strict=True)):.2f}")
            for name, seconds in timings
        ],
        ("a probe by", "seconds (mean)", "times ours (median of ratios)"), tablefmt="github", disable_numparse=True,
    )  # fmt: skip
    same = "the same" if ways["ours"].decisions == ways["plain"].decisions else "NOT the same"
    machine_rate, read_rate = measured_rates
    given = f"--student {options.student} --questions {options.questions} --tokens {options.tokens}"
    given += f" --sample {options.sample} --threads {options.threads}"
    given += f" --ddmin {options.ddmin}" if options.ddmin else ""
    probes, total = len(search_run.probed), sum(ours)
    lines = [
        f"Decisions: {same} as by the plain way. {differing} of {options.questions * len(ours)} verdicts differ.",
        f"Over these probes: {sum(plain) / total:.1f} times as fast as plain, {sum(reloaded) / total:.0f} times as "
        "fast as published.",
        f"The search took {search_run.seconds:.0f} s with all that is not a probe. As many probes would take the plain "
        f"way {mean(plain) * probes:.0f} s. Probes of classic ddmin from the same start: {calls}.",
        f"Reading questions reaches {read_rate / 1e9:.0f} GFLOP/s, {read_rate / machine_rate:.0%} of the "
        f"{machine_rate / 1e9:.0f} of a matrix product of {MATRIX_SIDE} x {MATRIX_SIDE}.",
    ]
    paragraphs = [
        "# The cost of a probe",
        f"`python -m benchmarks.speed.probe_speed {given}`",
        f"{len(ours)} of the {probes} probes of a real search ({search_run.patch.reason}), "
        f"{sum(ways['plain'].decisions)} of them accepted.",
        table,
        "\n".join(f"- {line}" for line in lines),
    ]
    return "\n\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    main()
