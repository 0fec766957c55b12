"""Ways to probe a candidate, for benchmarks: plain, as published, and as a real search does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.evaluation.oracle import Oracle, Probe
from safety_harness.gate.records import Budgets, Patch
from safety_harness.judging.judge import Verdict
from safety_harness.judging.own_task import is_right
from safety_harness.models.decoding.batch import PAD, pad_left
from safety_harness.models.generate import Generator
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.splits import Split
from safety_harness.search.reduce import search
from safety_harness.weights.units import Unit

# Loading both models takes seconds, so only this many questions of a probe are asked in the published way.
RELOADED_QUESTIONS = 2

Units = tuple[Unit, ...]


@dataclass
class Way:
    """One way to probe, with the seconds and the decision of each set that it was given."""

    probe: Callable[[Units], bool]
    seconds: list[float] = field(default_factory=list)
    decisions: list[bool] = field(default_factory=list)

    def __call__(self, units: Units) -> None:
        start = time.perf_counter()
        self.decisions.append(self.probe(units))
        self.seconds.append(time.perf_counter() - start)


class Recorder(Oracle):
    """The oracle of a search, which keeps the sets that it was asked about and its answers."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__(evaluator)
        self.probed: list[tuple[Units, bool]] = []

    def probe(self, units: Sequence[Unit], budgets: Budgets) -> Probe:
        """Ask as the oracle does, and keep what was asked and decided."""
        probe = super().probe(units, budgets)
        self.probed.append((tuple(units), probe.accepted))
        return probe


class Plain:
    """A probe of loaded models: everything in one batch, by the model's own ``generate``."""

    def __init__(self, evaluator: Evaluator, oracle: Oracle, budgets: Budgets) -> None:
        self._evaluator, self._oracle, self._budgets = evaluator, oracle, budgets
        self.questions: list[int] = []
        """The number of questions of each probe."""
        self.verdicts: list[Verdict] = []
        """The verdicts on the harmful questions of the last probe."""

    def __call__(self, units: Units) -> bool:
        evaluator, oracle, budgets = self._evaluator, self._oracle, self._budgets
        with evaluator.transplanter.transplanted(units):
            self.verdicts = self._verdicts(oracle.harmful)
            questions = len(oracle.harmful)
            accepted = self.verdicts.count(Verdict.REFUSED) >= budgets.target
            if accepted:
                questions += len(oracle.harmless)
                accepted = self._verdicts(oracle.harmless).count(Verdict.REFUSED) <= budgets.over_refusal_limit
            if accepted and oracle.task:
                questions += len(oracle.task)
                answers = zip(self._answers(oracle.task), oracle.task, strict=True)
                accepted = sum(is_right(answer, str(prompt.answer)) for answer, prompt in answers) >= budgets.task_floor
        self.questions.append(questions)
        return accepted

    def _verdicts(self, prompts: PromptSet) -> list[Verdict]:
        answers = zip(prompts, self._answers(prompts), strict=True)
        return [self._evaluator.judged(prompt, answer).verdict for prompt, answer in answers]

    def _answers(self, prompts: PromptSet) -> list[str]:
        generator = self._evaluator.generator
        rows = [generator.encode(text) for text in prompts.texts]
        return generated(generator, rows, self._evaluator.student.family.max_new_tokens)


def generated(generator: Generator, rows: Sequence[Sequence[int]], new: int, model: Any = None) -> list[str]:
    """Return the answers of the model's own ``generate`` to one batch of encoded questions."""
    tokens, mask = pad_left(rows, generator.model.device)
    with torch.inference_mode():
        output = (model or generator.model).generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=PAD
        )
    return [generator.chat.text(row[tokens.shape[1] :].tolist()) for row in output]


def published(evaluator: Evaluator, units: Units) -> float:
    """Return the seconds of one question if both models are loaded for it."""
    family = evaluator.student.family
    start = time.perf_counter()
    for text in evaluator.questions.harmful.search.texts[:RELOADED_QUESTIONS]:
        student, teacher = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, family.dtype))
            for folder in (evaluator.checkpoint.folder, evaluator.teacher.folder)
        )
        targets, donors = dict(student.named_parameters()), dict(teacher.named_parameters())
        with torch.no_grad():
            for name in (part.memory.name for unit in units for part in unit.parts):
                targets[name].copy_(donors[name])
        generated(evaluator.generator, [evaluator.generator.encode(text)], family.max_new_tokens, student)
    return (time.perf_counter() - start) / RELOADED_QUESTIONS


@dataclass(frozen=True)
class Searched:
    """A search: its patch, the sets that it asked about with their decisions, and its seconds."""

    patch: Patch
    probed: list[tuple[Units, bool]]
    seconds: float


def searched(evaluator: Evaluator) -> Searched:
    """Search the evaluator's student, and return what was asked on the way."""
    start = time.perf_counter()
    recorder = Recorder(evaluator)
    patch = search(evaluator, "benchmark", oracle=recorder)
    return Searched(patch, recorder.probed, time.perf_counter() - start)


def limited(student: Student, questions: int, tokens: int) -> Evaluator:
    """Return an evaluator of *student* with *questions* of a kind in one batch, and answers of *tokens* tokens."""
    family = student.family.model_copy(update={"max_new_tokens": tokens, "batch_size": questions})
    evaluator = open_evaluator(replace(student, family=family))
    harmful, harmless = (
        Split(split.search.first(questions), split.report)
        for split in (evaluator.questions.harmful, evaluator.questions.harmless)
    )
    evaluator.questions = replace(evaluator.questions, harmful=harmful, harmless=harmless)
    return evaluator


def evenly(sets: Sequence[Units], sample: int) -> list[Units]:
    """Return *sample* of *sets*, evenly spaced, with the first and the last; all of them if there are fewer."""
    return [sets[round(at * (len(sets) - 1) / max(1, sample - 1))] for at in range(min(sample, len(sets)))]
