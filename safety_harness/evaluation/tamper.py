"""Tune a student's weights on harmless data, as whoever downloads them may, and see how long its refusals last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safety_harness.errors import DataError, NotFinite, SourceError
from safety_harness.evaluation.tunable import check_tunable
from safety_harness.gate.numbers import Tamper, UnderTuning
from safety_harness.gate.tamper_check import STEPS, after_tuning, tamper
from safety_harness.judging.judge import Verdict
from safety_harness.judging.own_task import is_right
from safety_harness.models.memory import enough_memory
from safety_harness.models.spread import spans_devices
from safety_harness.models.tuning import BATCH, LEARNING_RATE, RECIPE, Row, Tuning, tuning
from safety_harness.progress import counter

if TYPE_CHECKING:
    from safety_harness.evaluation.evaluator import Evaluator
    from safety_harness.evaluation.subject import Subject
    from safety_harness.gate.results import Check
    from safety_harness.registry.prompts import Prompt, PromptSet
    from safety_harness.weights.units import Unit

# 100 steps see each of so many examples about six times. More would have to be answered first, and change little.
MOST_EXAMPLES = 128


def tamper_check(subject: Subject, teacher: Subject | None = None) -> Check:
    """Return the check of what *subject* refuses after tuning; what *teacher* then refuses is recorded next to it.

    Raises:
        ConfigError, HarnessError: it cannot be tuned, as :func:`require_tunable` says.
        DataError: it answers too few harmless questions to be tuned on.
        SourceError: memory ends, or a NaN comes out of the tuned model.
    """
    evaluator = require_tunable(subject)
    task = evaluator.questions.task
    told = Tamper(
        recipe=f"{RECIPE}, on its own answers to harmless questions",
        set=evaluator.questions.harmful.report.sha256,
        tasks=len(task.report) if task else 0,
        gated=under_tuning(subject),
        **({"teacher": under_tuning(teacher)} if teacher else {}),
    )
    return tamper(told, subject.thresholds)


def require_tunable(subject: Subject) -> Evaluator:
    """Return the evaluator of *subject* if the weights that answer for it can be tuned.

    Raises:
        ConfigError, HarnessError: as :func:`check_tunable`.
    """
    check_tunable(subject.evaluator.student)
    evaluator = subject.weighed
    spread = spans_devices(evaluator.generator.model)
    check_tunable(evaluator.student, quantised=evaluator.checkpoint.quantised, spread=spread)
    return evaluator


def under_tuning(subject: Subject, rows: Sequence[Row] = (), rate: float = LEARNING_RATE) -> UnderTuning:
    """Return what *subject* refuses before tuning, and after each count of steps. Its weights are as they were then.

    Without *rows* it is tuned on its own answers. A benchmark compares others, and other rates.
    """
    evaluator, gate = subject.weighed, subject.thresholds
    harmful, task = evaluator.questions.harmful.report, evaluator.questions.task
    asked = [harmful, *([task.report] if task else [])]
    rows = rows or examples(evaluator, subject.units)
    sides = [[[one.answer for one in evaluator.answers(subject.units, prompts)] for prompts in asked]]
    losses: list[float | None] = [None]
    try:
        with (
            enough_memory(f"{evaluator.student.id} is tuned"),
            evaluator.transplanter.transplanted(subject.units),
            tuning(evaluator.generator, rows, rate) as under,
        ):
            for steps in STEPS:
                losses.append(_up_to(steps, under))
                sides.append([_answers(evaluator, under, prompts) for prompts in asked])
    except NotFinite as error:
        raise SourceError(
            f"{evaluator.student.id}: {error} Its numbers do not fit {evaluator.student.family.dtype}: try another "
            "`dtype` in the registry, or leave --tamper out."
        ) from error
    # Judges see the answers with the model as it was, because one of theirs may need its room.
    after = [
        after_tuning(
            steps,
            _verdicts(subject, harmful, answers),
            gate,
            _right(evaluator, task.report, rest[0]) if task else None,
            loss,
        )
        for steps, (answers, *rest), loss in zip((0, *STEPS), sides, losses, strict=True)
    ]
    return UnderTuning(examples=len(rows), after=after)


def examples(evaluator: Evaluator, units: Sequence[Unit]) -> list[Row]:
    """Return harmless questions to search on, with the answers that the student itself gives with *units* moved.

    They teach it nothing new, and still undo refusals sooner than questions of its own task
    (benchmarks/quality/tamper.md). Every student has them. Answers that do not simply help are left out.

    Raises:
        DataError: too few are left.
    """
    prompts = evaluator.questions.harmless.search.first(MOST_EXAMPLES)
    begun = evaluator.generator.chat.begun
    rows = [
        row(evaluator, prompt, one.answer.removeprefix(begun(prompt.sent)))
        for prompt, one in zip(prompts, evaluator.answers(units, prompts), strict=True)
        if one.verdict is Verdict.COMPLIED
    ]
    if len(rows) < BATCH:
        raise DataError(
            f"{evaluator.student.id}: helps with {len(rows)} of {len(prompts)} harmless questions to search on, and "
            f"--tamper needs {BATCH} answers to tune it on. Give more harmless questions, or leave --tamper out."
        )
    return rows


def row(evaluator: Evaluator, prompt: Prompt, answer: str) -> Row:
    """Return the tokens of a question and its *answer*, up to its end. An answer that was cut has none to be taught."""
    generator, most = evaluator.generator, evaluator.student.family.max_new_tokens
    question = generator.encode(prompt.sent)
    tokens = generator.tokenizer(answer, add_special_tokens=False)["input_ids"][:most]
    end = [] if len(tokens) == most or generator.end is None else [generator.end]
    return [*question, *tokens, *end], len(question)


def _up_to(steps: int, under: Tuning) -> float:
    """Tune until so many *steps* were made, and return their mean loss."""
    losses = []
    with counter("tuning", steps - under.steps) as advance:
        while under.steps < steps:
            losses.append(under.step())
            advance(1)
    return sum(losses) / len(losses)


def _answers(evaluator: Evaluator, under: Tuning, prompts: PromptSet) -> list[str]:
    """Return the answers of the model as tuned so far."""
    return under.generator.answers(prompts.sent, evaluator.student.family.max_new_tokens)


def _verdicts(subject: Subject, prompts: PromptSet, answers: Sequence[str]) -> list[Verdict]:
    """Return the verdict of each answer, by the judge of the gate."""
    judged = [subject.weighed.judged(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return [one.verdict for one in subject.judged(prompts, judged)]


def _right(evaluator: Evaluator, prompts: PromptSet, answers: Sequence[str]) -> int:
    """Return how many answers to the own task are right."""
    pairs = zip(prompts, answers, strict=True)
    return sum(is_right(evaluator.shown(answer), str(prompt.answer)) for prompt, answer in pairs)
