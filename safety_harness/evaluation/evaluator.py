"""Ask and score one student: as it is, or with any set of the teacher's units in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from safety_harness.conversation import Decoding
from safety_harness.errors import ConfigError, HarnessError, NotFinite, SourceError, VoidProbe
from safety_harness.evaluation.answering import Answering
from safety_harness.evaluation.attacks import check_attacks, searched_under
from safety_harness.evaluation.memo import Answered, AnswersKey, Memo, TextKey
from safety_harness.files import sha256_text
from safety_harness.gate.records import Lineage
from safety_harness.judging.extent import Extent, goes_on, judged_behind
from safety_harness.judging.judge import PREMISE
from safety_harness.judging.rules import RuleJudge
from safety_harness.judging.thoughts import FINGERPRINT as THOUGHTS
from safety_harness.judging.thoughts import without_thought
from safety_harness.models.devices import device_name
from safety_harness.models.generate import DECODING, Generator, Screen
from safety_harness.models.likelihood import (
    TextScore,
    answer_logprobs,
    check_documents,
    divergence,
    rows_at_once,
    text_scores,
)
from safety_harness.models.lineage import check_lineage
from safety_harness.models.load import LoadedModel, load, prepare
from safety_harness.models.memory import enough_memory
from safety_harness.models.speedups import Speedups
from safety_harness.models.spread import layout
from safety_harness.models.transplant import Transplanter
from safety_harness.progress import counted
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import Prompt, PromptSet, batches
from safety_harness.registry.readable import require_readable
from safety_harness.registry.splits import StudentSplits, load_questions
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit

Key = TypeVar("Key")
Value = TypeVar("Value")


class Evaluator(Answering):
    """A student, its teacher's weights if it has one, and its questions. Every measurement is memoised.

    Nothing here decides: the oracle and the gate do.

    Raises:
        DataError: a question does not fit the student's context with its answer, or a document of the text does not.
            Or its tokenizer does not know what they are made of. Raised before anything is asked.
        SourceError: from a measurement, if a NaN comes out of the student as it is.
        VoidProbe: from a measurement, if a NaN comes out with units of the teacher in the student.
    """

    def __init__(
        self,
        student: Student,
        loaded: LoadedModel,
        teacher: Checkpoint | None,
        questions: StudentSplits,
        ancestor: Checkpoint | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        family = student.family
        self.student = student
        self.questions = questions
        self.checkpoint = loaded.checkpoint
        self._teacher = teacher
        self.ancestor = ancestor
        self.lineage = lineage
        """How near student and teacher are; None if that was not measured."""
        self.units: tuple[Unit, ...] = ()  # what may move; nothing without a teacher
        if teacher:
            config, shapes, search = loaded.checkpoint.config, loaded.checkpoint.shapes, student.search
            self.units = enumerate_units(config, shapes, search.roles, search.components)
        self.transplanter = Transplanter(loaded.model, teacher or loaded.checkpoint, ancestor)
        speedups = Speedups.none() if loaded.checkpoint.quantised else None  # they are made for plain layers
        self.generator = Generator(loaded.model, loaded.tokenizer, batch_size=family.batch_size, speedups=speedups)
        self.judge = RuleJudge(marks_thoughts=self.generator.chat.marks_thoughts)
        self.memo = Memo()
        for prompts in questions.every:
            self.check_askable(prompts)
        require_readable(questions.text, loaded.tokenizer)
        check_documents(self.generator, questions.text.texts)

    @property
    def device(self) -> str:
        """The name of what computes: a measurement depends on the kind of GPU."""
        return device_name(self.generator.model)

    @property
    def weighed(self) -> Evaluator:
        """The evaluator whose weights can be moved: this one."""
        return self

    @property
    def batch_size(self) -> int:
        """How many questions are asked at once."""
        return self.generator.batch_size

    @property
    def teacher(self) -> Checkpoint:
        """The teacher's weights.

        Raises:
            ConfigError: there is no teacher.
        """
        if self._teacher is None:
            raise ConfigError(f"{self.student.id}: has no teacher, so nothing of one can be put into it.")
        return self._teacher

    def check_askable(self, prompts: PromptSet) -> None:
        """Check that the student can read *prompts* and has room for its answers.

        Raises:
            DataError: too many of their tokens are unknown to its tokenizer, or a question does not fit its context.
        """
        require_readable(prompts, self.generator.tokenizer)
        self.generator.check_lengths(prompts.sent, self.student.family.max_new_tokens)

    def close(self) -> None:
        """Release the model and the teacher's tensors. Nothing can be measured afterwards.

        Two students of billions of weights do not fit into memory together, and a failed test may hold this evaluator.
        """
        self.forget()
        del self.generator, self.transplanter

    def answers(
        self,
        units: Sequence[Unit],
        prompts: PromptSet,
        extent: Extent = Extent.FULL,
        *,
        max_broken_off: int | None = None,
        decoding: Decoding | None = None,
    ) -> tuple[Answered, ...]:
        """Return the judged answers to *prompts* with *units* moved, in the order of the prompts.

        Args:
            extent: how far each answer is generated. A family without screen tokens has every answer in full.
            max_broken_off: beyond this number, the rest of a batch is broken off too; None for no limit.
            decoding: how an answer in full is generated; None for the family's way, which is greedy.
        """
        decoding = decoding and decoding.other_than(self.student.family.max_new_tokens)
        tokens = self.student.family.screen_tokens
        if tokens is None or extent is Extent.FULL:
            key = AnswersKey(frozenset(units), prompts.sha256, Extent.FULL, decoding=decoding)
            look = self._screen(decoding.screen, Extent.WHILE_UNDECIDED) if decoding and decoding.screen else None
            return self._memoised(self.memo.answers, key, units, lambda: self._generate(prompts, look, decoding))
        key = AnswersKey(frozenset(units), prompts.sha256, extent)
        if key not in self.memo.answers:  # else every answer is there as far as its extent goes
            key = replace(key, max_broken_off=max_broken_off)
        screen = self._screen(tokens, extent, key.max_broken_off)
        return self._memoised(self.memo.answers, key, units, lambda: self._generate(prompts, screen))

    def _screen(self, tokens: int, extent: Extent, most: int | None = None) -> Screen:
        """Return the look at answers after *tokens* tokens, by which some go no further than *extent*."""
        opening, premise = self.generator.chat.opening, self.student.gate.premise
        return Screen(tokens, lambda answer, begun: goes_on(extent, opening, answer, self.judge, premise, begun), most)

    def _generate(
        self, prompts: PromptSet, screen: Screen | None, decoding: Decoding | None = None
    ) -> tuple[Answered, ...]:
        """Return the judged answers of the model as it stands."""
        decoding = decoding or Decoding(self.student.family.max_new_tokens)
        answers = self.generator.answers(prompts.sent, decoding, screen)
        return tuple(self.judged(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))

    def judged(self, prompt: Prompt, answer: str) -> Answered:
        """Return the *answer* to a *prompt* with what the rules say of it.

        They read it behind the words with which the chat template begins every answer.
        """
        chat = self.generator.chat
        return Answered(prompt.id, answer, judged_behind(self.judge, chat.opening + answer, chat.begun(prompt.sent)))

    def shown(self, answer: str) -> str:
        """Return what is no thought in an *answer* of this student. While it thinks, that is nothing."""
        return without_thought(self.generator.chat.opening + answer).strip()

    def text(self, units: Sequence[Unit], documents: PromptSet) -> tuple[TextScore, ...]:
        """Return the log-likelihood of each document with *units* moved."""
        key = TextKey(frozenset(units), documents.sha256)
        return self._memoised(self.memo.text, key, units, lambda: tuple(text_scores(self.generator, documents.texts)))

    def divergences(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[float, ...]:
        """Return KL(student || patched student) along the student's own answers: nats a token, one mean a question."""
        pairs = [(p.sent, a.answer) for p, a in zip(prompts, self.answers((), prompts), strict=True)]
        divergences: list[float] = []
        # One token more than an answer has: the end of the answer is scored as well.
        together = batches(pairs, rows_at_once(self.generator, self.student.family.max_new_tokens + 1))
        for batch in counted("comparing", together, len(together)):
            questions, answers = zip(*batch, strict=True)
            with enough_memory(f"{self.student.id} is measured"):
                before = answer_logprobs(self.generator, questions, answers)
                with self.transplanter.transplanted(units):
                    after = answer_logprobs(self.generator, questions, answers)
            divergences += [divergence(*pair) for pair in zip(before, after, strict=True)]
        return tuple(divergences)

    def identity(self) -> dict[str, object]:
        """Return everything that a measurement of this evaluator depends on, as plain values.

        Two measurements are comparable if all of these are equal. Patches are cached by them.
        """
        family, generator = self.student.family, self.generator
        spread = layout(generator.model)
        return {
            "student": self.checkpoint.fingerprint,
            "teacher": self._teacher and self._teacher.fingerprint,
            "ancestor": self.ancestor and self.ancestor.fingerprint,
            "questions": self.questions.hashes,
            "judge": self.judge.fingerprint,
            "decoding": DECODING,
            "dtype": family.dtype,
            "device": self.device,
            "batch_size": generator.batch_size,
            "max_new_tokens": family.max_new_tokens,
            "screen_tokens": family.screen_tokens,
            "template": sha256_text(generator.chat.template or ""),
            "thoughts": THOUGHTS,
            **({"layout": spread} if spread else {}),
            # Patches of before there was a choice keep their keys.
            **({"premise": premise} if (premise := self.student.gate.premise) != PREMISE else {}),
        }

    def forget(self) -> None:
        """Drop every memoised measurement, so that the next one is made again."""
        self.memo.clear()
        self.generator.forget()

    def _memoised(
        self, values: dict[Key, Value], key: Key, units: Sequence[Unit], measure: Callable[[], Value]
    ) -> Value:
        """Return the value of *key*; if it is not among *values*, *measure* it with *units* moved.

        Raises:
            SourceError, VoidProbe: a NaN or an infinity comes out of the model; or memory ends.
        """
        if key not in values:
            try:
                with enough_memory(f"{self.student.id} is measured"), self.transplanter.transplanted(units):
                    value = self._in_batches_of_one_size(measure)
            except NotFinite as error:
                raise self._not_finite(units) from error
            values[key] = value
        return values[key]

    def _in_batches_of_one_size(self, measure: Callable[[], Value]) -> Value:
        """Run *measure*. If the batch size was halved on the way, clear the memo and run it again.

        In bfloat16 an answer depends on its batch, so answers of two batch sizes are not comparable.
        """
        while True:
            size = self.generator.batch_size
            value = measure()
            if self.generator.batch_size == size:
                return value
            self.forget()

    def _not_finite(self, units: Sequence[Unit]) -> HarnessError:
        """Return the error for a NaN with *units* moved: without units the student itself is at fault."""
        if not units:
            return SourceError(
                f"{self.student.id}: a NaN or an infinity comes out of the student as it is. Its numbers do not fit "
                f"{self.student.family.dtype}, or its checkpoint is damaged: try another `dtype` in the registry."
            )
        named = ", ".join(unit.id for unit in units[:3]) + (f" and {len(units) - 3} more" if len(units) > 3 else "")
        return VoidProbe(f"A NaN or an infinity comes out of {self.student.id} with {named} of the teacher in it.")


def open_evaluator(student: Student, *, compared: bool = False) -> Evaluator:
    """Check questions, files and lineage, then load the student with its teacher's weights, if any, in reach.

    The checks are cheap and loading is not, so all checks come first. Models that were *compared* by another process
    are not compared again, and the evaluator does not know how near they are.

    Raises:
        HarnessError: a question file, a weight file or the pair of models cannot be used.
    """
    questions = searched_under(check_attacks(student, load_questions(student)), student)
    as_it_is = not student.patchable
    *relatives, checkpoint = (Checkpoint(prepare(spec), as_it_is=as_it_is) for spec in student.models)
    lineages: list[Lineage] = []
    if relatives and not compared:
        searched = student.search.roles, student.search.components
        units = enumerate_units(checkpoint.config, checkpoint.shapes, *searched)
        lineages = [check_lineage(checkpoint, relative, units) for relative in relatives]
    family = student.family
    loaded = load(checkpoint.folder, family.dtype, as_it_is=as_it_is, device_map=family.device_map)
    teacher, ancestor, *_ = *relatives, None, None
    return Evaluator(student, loaded, teacher, questions, ancestor, lineages[0] if lineages else None)
