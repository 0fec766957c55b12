"""One student on the evaluator: asked and scored as it is, or with any set of the teacher's units in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from safety_harness.errors import HarnessError, NotFinite, SourceError, VoidProbe
from safety_harness.files import sha256_text
from safety_harness.judging.judge import RuleJudge, Verdict, without_thought
from safety_harness.judging.own_task import is_right
from safety_harness.models.generate import DECODING, Generator, Screen, enough_memory
from safety_harness.models.likelihood import (
    TextScore,
    answer_logprobs,
    check_documents,
    divergence,
    rows_at_once,
    text_scores,
)
from safety_harness.models.lineage import Lineage, check_lineage
from safety_harness.models.load import LoadedModel, load, prepare
from safety_harness.models.transplant import Donor, Transplanter
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet, batches
from safety_harness.registry.splits import StudentSplits, load_questions
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """One question's answer under a set of units, and the judge's verdict."""

    id: str
    answer: str
    verdict: Verdict


class Evaluator:
    """A student, its teacher's weights, and its questions; every measurement is kept, so none is made twice.

    Nothing here decides: the oracle and the gate do.

    Raises:
        DataError: a question does not fit the student's context with its answer, or a document of the text; said
            before anything is asked.
        SourceError: from a measurement, when a NaN comes out of the student as it is.
        VoidProbe: from a measurement, when one comes out with units of the teacher in.
    """

    def __init__(
        self,
        student: Student,
        loaded: LoadedModel,
        teacher: Checkpoint,
        questions: StudentSplits,
        ancestor: Checkpoint | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        family = student.family
        self.student = student
        self.questions = questions
        self.checkpoint = loaded.checkpoint
        self.teacher = teacher
        self.ancestor = ancestor
        self.lineage = lineage
        """How near student and teacher are, where it was looked at."""
        self.judge = RuleJudge()
        self.units = enumerate_units(loaded.checkpoint.config, loaded.checkpoint.shapes, student.search.roles)
        self.transplanter = Transplanter(loaded.model, teacher, ancestor)
        self.generator = Generator(loaded.model, loaded.tokenizer, batch_size=family.batch_size)
        self._kept: dict[tuple[object, ...], object] = {}
        for prompts in questions.every:
            self.generator.check_lengths(prompts.texts, family.max_new_tokens)
        check_documents(self.generator, questions.text.texts)

    def close(self) -> None:
        """Let go of the model and of the teacher's numbers: two students of billions of weights do not fit beside each
        other. Nothing can be measured from then on, whoever still holds this evaluator."""
        self.forget()
        del self.generator, self.transplanter

    def asked(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[Answered, ...]:
        """The answers to *prompts* with *units* moved, judged."""
        return self._once(("asked", prompts.sha256), units, lambda: self._ask(prompts, None))

    def screened(self, units: Sequence[Unit], prompts: PromptSet, most: int | None = None) -> tuple[Answered, ...]:
        """The same for a search: an answer that complies so far is broken off after the family's screen tokens.

        A refusal is heard to its end, because one that never ends is none, and so is what begins as refusals do ("I'm
        sorry, but as a ..."). What is missed is a refusal that comes late.
        When more than *most* answers of a batch comply, the others need not be heard to their end either.
        """
        tokens = self.student.family.screen_tokens
        if tokens is None:
            return self.asked(units, prompts)
        if self._has(("screened", prompts.sha256, None), units):
            most = None  # all were heard before
        screen = Screen(
            tokens, lambda said: self.judged(said) is not Verdict.COMPLIED or self._may_yet_refuse(said), most
        )
        return self._once(("screened", prompts.sha256, most), units, lambda: self._ask(prompts, screen))

    def glimpsed(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[Answered, ...]:
        """The same, only as far as it takes to know who refuses: what has begun to counts as refused."""
        tokens = self.student.family.screen_tokens
        if tokens is None:
            return self.asked(units, prompts)
        screen = Screen(
            tokens,
            lambda said: (
                (said and not self._spoken(said))
                or (self.judged(said) is Verdict.COMPLIED and self._may_yet_refuse(said))
            ),
        )
        return self._once(("glimpsed", prompts.sha256), units, lambda: self._ask(prompts, screen))

    def _ask(self, prompts: PromptSet, screen: Screen | None) -> tuple[Answered, ...]:
        tokens = self.student.family.max_new_tokens
        answers = self.generator.answers(prompts.texts, tokens, screen)
        return tuple(
            Answered(prompt.id, answer, self.judged(answer)) for prompt, answer in zip(prompts, answers, strict=True)
        )

    def judged(self, said: str) -> Verdict:
        """The verdict on an answer of this student, a thought that the chat template begins it with included."""
        return self.judge.judge(self.generator.chat.opening + said).verdict

    def _spoken(self, said: str) -> str:
        return without_thought(self.generator.chat.opening + said)

    def _may_yet_refuse(self, said: str) -> bool:
        return self.judge.may_yet_refuse(self.generator.chat.opening + said)

    def right(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[bool, ...]:
        """Whether each task question was answered right with *units* moved."""
        return tuple(
            is_right(self._spoken(answered.answer), str(prompt.answer))
            for prompt, answered in zip(prompts, self.asked(units, prompts), strict=True)
        )

    def text(self, units: Sequence[Unit], documents: PromptSet) -> tuple[TextScore, ...]:
        """Log-likelihood of each document with *units* moved."""
        return self._once(
            ("text", documents.sha256), units, lambda: tuple(text_scores(self.generator, documents.texts))
        )

    def divergences(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[float, ...]:
        """KL of the patched student from the student on its own answers: nats a token, one mean a question."""
        pairs = [(p.text, a.answer) for p, a in zip(prompts, self.asked((), prompts), strict=True)]
        found: list[float] = []
        # The end token is scored as well.
        for batch in batches(pairs, rows_at_once(self.generator, self.student.family.max_new_tokens + 1)):
            texts, answers = zip(*batch, strict=True)
            with enough_memory(f"{self.student.id} is measured"):
                before = answer_logprobs(self.generator, texts, answers)
                with self.transplanter.transplanted(units):
                    after = answer_logprobs(self.generator, texts, answers)
            found += [divergence(one, other) for one, other in zip(before, after, strict=True)]
        return tuple(found)

    def with_donor(self, donor: Donor, ancestor: Checkpoint | None = None) -> Evaluator:
        """The same student, loaded once, with *donor* in the teacher's place; what it says as it is stays known."""
        other = copy.copy(self)
        other.transplanter = Transplanter(self.generator.model, donor, ancestor)
        other._kept = {what: kept for what, kept in self._kept.items() if not what[-1]}
        return other

    def identity(self) -> dict[str, object]:
        """Everything that a measurement on this evaluator depends on, as plain values."""
        family = self.student.family
        return {
            "student": self.checkpoint.fingerprint,
            "teacher": self.teacher.fingerprint,
            "ancestor": self.ancestor and self.ancestor.fingerprint,
            "questions": self.questions.hashes,
            "judge": self.judge.fingerprint,
            "decoding": DECODING,
            "dtype": family.dtype,
            "device": self.generator.model.device.type,
            "batch_size": self.generator.batch_size,
            "max_new_tokens": family.max_new_tokens,
            "screen_tokens": family.screen_tokens,
            "template": sha256_text(self.generator.chat.template or ""),
        }

    def forget(self) -> None:
        """Drop every kept measurement, so that the next one is made afresh."""
        self._kept.clear()
        self.generator.forget()

    def _once(self, what: tuple[object, ...], units: Sequence[Unit], measure: Callable[[], T]) -> T:
        if not self._has(what, units):
            try:
                with enough_memory(f"{self.student.id} is measured"), self.transplanter.transplanted(units):
                    found = self._in_batches_of_one_size(measure)
            except NotFinite as error:
                raise self._not_finite(units) from error
            self._kept[*what, frozenset(units)] = found
        return self._kept[*what, frozenset(units)]  # type: ignore[return-value]

    def _in_batches_of_one_size(self, measure: Callable[[], T]) -> T:
        """What *measure* gives; anew, and all that was kept is dropped, where batches had to be halved meanwhile."""
        while True:
            size = self.generator.batch_size
            found = measure()
            if self.generator.batch_size == size:
                return found
            self.forget()

    def _not_finite(self, units: Sequence[Unit]) -> HarnessError:
        if not units:
            return SourceError(
                f"{self.student.id}: a NaN or an infinity comes out of the student as it is. Its numbers do not fit "
                f"{self.student.family.dtype}, or its checkpoint is damaged: try another `dtype` in the registry."
            )
        named = ", ".join(unit.id for unit in units[:3]) + (f" and {len(units) - 3} more" if len(units) > 3 else "")
        return VoidProbe(f"A NaN or an infinity comes out of {self.student.id} with {named} of the teacher in it.")

    def _has(self, what: tuple[object, ...], units: Sequence[Unit]) -> bool:
        return (*what, frozenset(units)) in self._kept


def open_evaluator(student: Student) -> Evaluator:
    """Check questions, files and lineage, which is cheap, and only then load the student beside its teacher.

    Raises:
        HarnessError: a question file, a weight file or the pair of models cannot be used.
    """
    questions = load_questions(student)
    teacher, *added, own = (Checkpoint(prepare(spec)) for spec in student.models)
    units = enumerate_units(own.config, own.shapes, student.search.roles)
    lineage, *_ = [check_lineage(own, other, units) for other in (teacher, *added)]
    loaded = load(own.folder, student.family.dtype)
    return Evaluator(student, loaded, teacher, questions, added[0] if added else None, lineage)
