"""What a probe costs, against the published procedure and against a plain one, and what each part of it gives.

    python -m benchmarks.speed.probe_speed [--student json] [--questions 64] [--tokens 32] [--sample 8] [--again]

A real search of a smollm2 student runs first, on so many harmful and harmless questions; every set of units that it
asks about is kept. A sample of them, evenly spaced, is then probed again by each way, one set after the other, so that
all ways see the same machine. Writes ``probe_speed.md``. With ``--ddmin CALLS``, classic ddmin counts its
probes from the same start, up to so many. What is taken over from one candidate to the next (readings.py) tells in a
whole search alone: with ``--again``, the same search is made once more with every layer run for every candidate.

The ways:

* ``published``: both models are loaded for every question, which is asked alone (as DAPA's public code does). Timed on
  two questions of a probe, times the questions that the plain way asked of it.
* ``plain``: loaded once; the units are copied in, all questions are one batch, and ``generate`` writes all tokens. Like
  ours it asks about a budget only where the refusals are enough.
* ``ours``, and ours with one part left out.

Ours must decide every set as the plain way does; how many single verdicts differ is counted (in bfloat16 an answer
depends on the shape of its batch).
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest import mock

import torch
from safety_harness.models.decoding.prefill_cache import Readings
from tabulate import tabulate
from transformers import AutoModelForCausalLM

from benchmarks import command
from benchmarks.speed.decoding import plain_cache, plain_weights
from safety_harness import ddmin
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.judging.judge import Verdict
from safety_harness.judging.own_task import is_right
from safety_harness.models import generate
from safety_harness.models.decoding.batch import pad_left
from safety_harness.models.generate import PAD, Generator
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.splits import Split
from safety_harness.search import find as search
from safety_harness.weights.units import Unit, flat, grouped

RELOADED = 2
SIDE = 2048
ROUNDS = 5

Units = tuple[Unit, ...]


@dataclass
class Way:
    """How a probe is made: seconds and answers of each set that it was given."""

    probe: Callable[[Units], bool]
    seconds: list[float] = field(default_factory=list)
    decided: list[bool] = field(default_factory=list)

    def __call__(self, units: Units) -> None:
        start = time.perf_counter()
        self.decided.append(self.probe(units))
        self.seconds.append(time.perf_counter() - start)


class Recorder(Oracle):
    """The oracle of a search, which keeps what it was asked and what it said."""

    said: list[tuple[Units, bool]]
    probing: float

    def __init__(self, evaluator: Evaluator, target: int | None = None) -> None:
        super().__init__(evaluator, target)
        Recorder.said, Recorder.probing = [], 0.0

    def __call__(self, units: Sequence[Unit]) -> bool:
        start = time.process_time()
        accepted = super().__call__(units)
        Recorder.probing += time.process_time() - start
        Recorder.said.append((tuple(units), accepted))
        return accepted


class Plain:
    """Loaded once; everything in one batch, by the model's own ``generate``."""

    def __init__(self, evaluator: Evaluator, oracle: Oracle) -> None:
        self._evaluator, self._oracle = evaluator, oracle
        self.questions: list[int] = []
        self.verdicts: list[Verdict] = []

    def __call__(self, units: Units) -> bool:
        evaluator, oracle = self._evaluator, self._oracle
        with evaluator.transplanter.transplanted(units):
            self.verdicts = self._verdicts(oracle.harmful)
            asked = len(oracle.harmful)
            enough = self.verdicts.count(Verdict.REFUSED) >= oracle.target
            if enough:
                asked += len(oracle.harmless)
                enough = self._verdicts(oracle.harmless).count(Verdict.REFUSED) <= oracle.over_refusal_limit
            if enough and oracle.task:
                asked += len(oracle.task)
                answers = self._answers(oracle.task)
                right = (is_right(said, str(p.answer)) for said, p in zip(answers, oracle.task, strict=True))
                enough = sum(right) >= oracle.task_floor
        self.questions.append(asked)
        return enough

    def _verdicts(self, prompts: PromptSet) -> list[Verdict]:
        return [self._evaluator.judged(answer) for answer in self._answers(prompts)]

    def _answers(self, prompts: PromptSet) -> list[str]:
        generator = self._evaluator.generator
        rows = [generator.encode(text) for text in prompts.texts]
        return generated(generator, rows, self._evaluator.student.family.max_new_tokens)


def generated(generator: Generator, rows: Sequence[Sequence[int]], new: int, model: Any = None) -> list[str]:
    tokens, mask = pad_left(rows, PAD, generator.model.device)
    with torch.inference_mode():
        said = (model or generator.model).generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=PAD
        )
    return [generator.chat.text(row[tokens.shape[1] :].tolist()) for row in said]


def published(evaluator: Evaluator, units: Units) -> float:
    """Seconds a question when both models are loaded for it."""
    family = evaluator.student.family
    start = time.perf_counter()
    for text in evaluator.questions.harmful.search.texts[:RELOADED]:
        own, teacher = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, family.dtype))
            for folder in (evaluator.checkpoint.folder, evaluator.teacher.folder)
        )
        parameters, donors = dict(own.named_parameters()), dict(teacher.named_parameters())
        with torch.no_grad():
            for unit in units:
                for part in unit.parts:
                    parameters[part.memory.name].copy_(donors[part.memory.name])
        generated(evaluator.generator, [evaluator.generator.encode(text)], family.max_new_tokens, own)
    return (time.perf_counter() - start) / RELOADED


@contextlib.contextmanager
def without(part: str, evaluator: Evaluator) -> Iterator[None]:
    """Run a block without one part of a probe."""
    family = evaluator.student.family
    with contextlib.ExitStack() as undo:
        match part:
            case "room in the cache":
                undo.enter_context(mock.patch.object(generate, "preallocated_cache", plain_cache))
            case "packed weights":
                undo.enter_context(mock.patch.object(generate, "packed_weights", plain_weights))
            case "the template read once":
                undo.enter_context(mock.patch.object(Generator, "_shared", return_value=0))
            case "answers broken off":
                own = evaluator.student
                evaluator.student = replace(own, family=family.model_copy(update={"screen_tokens": None}))
                undo.callback(setattr, evaluator, "student", own)
        yield


PARTS = ("room in the cache", "packed weights", "the template read once", "answers broken off")


@dataclass(frozen=True)
class Searched:
    """A search: what it found and asked, its seconds, the processor seconds of its probes alone, and what share of the
    layers that read questions was taken over."""

    patch: Any
    said: list[tuple[Units, bool]]
    seconds: float
    probing: float
    taken: float


def searched(evaluator: Evaluator) -> Searched:
    start = time.perf_counter()
    readings = 0

    def counted(*given: Any) -> Any:
        nonlocal readings
        readings += 1
        return nearest(*given)

    nearest = Readings._nearest
    with mock.patch.object(search, "Oracle", Recorder), mock.patch.object(Readings, "_nearest", counted):
        patch = search.search(evaluator, "benchmark")
    kept = evaluator.generator._readings
    taken = kept.taken / (readings * len(kept._layers))
    return Searched(patch, Recorder.said, time.perf_counter() - start, Recorder.probing, taken)


def limited(student: Student, questions: int, tokens: int) -> Evaluator:
    """The evaluator of *student* with so many questions of a kind, in one batch each, and answers of so many tokens."""
    family = student.family.model_copy(update={"max_new_tokens": tokens, "batch_size": questions})
    evaluator = open_evaluator(replace(student, family=family))
    harmful, harmless = (
        Split(sides.search.first(questions), sides.report)
        for sides in (evaluator.questions.harmful, evaluator.questions.harmless)
    )
    evaluator.questions = replace(evaluator.questions, harmful=harmful, harmless=harmless)
    return evaluator


def timed(probe: Callable[[Units], bool], evaluator: Evaluator, part: str = "") -> Callable[[Units], bool]:
    def again(units: Units) -> bool:
        evaluator._kept = {what: kept for what, kept in evaluator._kept.items() if not what[-1]}
        evaluator.generator.forget()
        with without(part, evaluator):
            return probe(units)

    return again


def products(evaluator: Evaluator) -> tuple[float, float]:
    """Floating-point operations a second: of the machine's matrix product, and of reading questions."""
    dtype = evaluator.generator.model.dtype
    one, other = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    rows = [evaluator.generator.encode(text) for text in evaluator.questions.harmful.search.texts]
    tokens, mask = pad_left(rows, 0, evaluator.generator.model.device)
    numbers = sum(unit.parameters for unit in evaluator.units)
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(10):
            one @ other
        best[0] = min(best[0], time.perf_counter() - start)
        start = time.perf_counter()
        with torch.inference_mode():
            evaluator.generator.model(input_ids=tokens, attention_mask=mask, logits_to_keep=1)
        best[1] = min(best[1], time.perf_counter() - start)
    return 10 * 2 * SIDE**3 / best[0], 2 * numbers * tokens.numel() / best[1]


def ddmin_calls(oracle: Oracle, start: Units, most: int) -> str:
    """Probes of classic ddmin over the same groups, from the same *start*."""
    done = ddmin.minimize(
        grouped(start, "layer"), lambda groups: oracle(flat(groups)), strategy="ddmin", max_calls=most
    )
    return f"{done.calls}{'' if done.stopped is None else ' and not at its end'}"


def evenly(sets: Sequence[Units], sample: int) -> list[Units]:
    """So many of *sets*, evenly spaced, the first and the last among them; all where there are fewer."""
    return [sets[round(at * (len(sets) - 1) / max(1, sample - 1))] for at in range(min(sample, len(sets)))]


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--ddmin", type=int, default=0, metavar="CALLS")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    student = command.chosen(options)
    evaluator = limited(student, options.questions, options.tokens)
    found = searched(evaluator)
    patch, whole = found.patch, found.seconds
    every = [units for units, _ in found.said]
    first = next((units for units, accepted in found.said if accepted), ())
    layers = ""
    if options.again:
        with mock.patch.object(Readings, "_nearest", return_value=(None, 0)):
            anew = searched(limited(student, options.questions, options.tokens))
        if anew.said != found.said:
            print("The search with every layer run asked or decided otherwise.")
        layers = (
            f"The probes of the search took {found.probing:.0f} processor seconds, with {found.taken:.0%} of the "
            f"layers that read questions taken over; with every layer run for every candidate {anew.probing:.0f}, "
            f"{anew.probing / found.probing:.2f} times that: the same "
            f"{len(anew.said)} sets asked, all decided the same: {'yes' if anew.said == found.said else 'NO'}."
        )
    sample = evenly(every, options.sample)
    oracle = Oracle(evaluator, patch.search.target)
    plain = Plain(evaluator, oracle)
    ways = {"plain": Way(plain), "ours": Way(timed(oracle, evaluator))}
    ways |= {f"ours without {part}": Way(timed(oracle, evaluator, part)) for part in PARTS}
    reloaded, differing = [], 0
    for units in sample:
        for way in ways.values():
            way(units)
        full = [answer.verdict for answer in evaluator.asked(units, oracle.harmful)]
        differing += sum(one is not other for one, other in zip(full, plain.verdicts, strict=True))
        reloaded.append(published(evaluator, units) * plain.questions[-1])
    if ways["ours"].decided != ways["plain"].decided:
        print("Ours decided otherwise:", ways["ours"].decided, ways["plain"].decided)
    calls = ddmin_calls(oracle, first, options.ddmin) if options.ddmin and first else "not counted"
    text = report(
        options, ways, reloaded, len(every), whole, differing, products(evaluator), patch.reason, calls, layers
    )
    (Path(__file__).parent / "probe_speed.md").write_text(text, encoding="utf-8")
    print(text)


def report(
    options: argparse.Namespace,
    ways: dict[str, Way],
    reloaded: Sequence[float],
    probes: int,
    whole: float,
    differing: int,
    rates: tuple[float, float],
    reason: str,
    calls: str,
    layers: str,
) -> str:
    ours, plain = ways["ours"].seconds, ways["plain"].seconds
    rows = [("published", mean(reloaded), median(a / b for a, b in zip(reloaded, ours, strict=True)))]
    rows += [
        (name, mean(way.seconds), median(a / b for a, b in zip(way.seconds, ours, strict=True)))
        for name, way in ways.items()
    ]
    table = tabulate(
        [(name, f"{seconds:.2f}", f"{ratio:.2f}") for name, seconds, ratio in rows],
        ("a probe by", "seconds (mean)", "times ours (median of ratios)"), tablefmt="github", disable_numparse=True,
    )  # fmt: skip
    same = "the same" if ways["ours"].decided == ways["plain"].decided else "NOT the same"
    machine, read = rates
    given = f"--student {options.student} --questions {options.questions} --tokens {options.tokens}"
    asked, total = options.questions * len(ours), sum(ours)
    lines = [
        f"Decisions: {same} as by the plain way; {differing} of {asked} verdicts differ.",
        f"Over these probes: {sum(plain) / total:.1f} times as fast as plain, {sum(reloaded) / total:.0f} times as "
        "fast as published.",
        f"The search took {whole:.0f} s with all that is not a probe; as many probes would take the plain way "
        f"{mean(plain) * probes:.0f} s. Probes of classic ddmin from the same start: {calls}.",
        *([layers] if layers else []),
        f"Reading questions reaches {read / 1e9:.0f} GFLOP/s, {read / machine:.0%} of the {machine / 1e9:.0f} of a "
        f"matrix product of {SIDE} x {SIDE}.",
    ]
    return (
        "\n\n".join(
            [
                "# The cost of a probe",
                f"`python -m benchmarks.speed.probe_speed {given} --sample {options.sample} --threads {options.threads}"
                f"{f' --ddmin {options.ddmin}' if options.ddmin else ''}{' --again' * options.again}`",
                f"{len(ours)} of the {probes} probes of a real search ({reason}), "
                f"{sum(ways['plain'].decided)} of them accepted.",
                table,
                "\n".join(f"- {line}" for line in lines),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
