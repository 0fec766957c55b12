"""What the checks of a gate ask of a student, whether its weights are here or a server answers for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from safety_harness.judging.own_task import is_right

if TYPE_CHECKING:
    from safety_harness.evaluation.evaluator import Evaluator
    from safety_harness.evaluation.memo import Answered
    from safety_harness.gate.records import Lineage
    from safety_harness.models.likelihood import TextScore
    from safety_harness.registry.load import Student
    from safety_harness.registry.prompts import PromptSet
    from safety_harness.registry.splits import StudentSplits
    from safety_harness.weights.units import Unit


class Answering(Protocol):
    """A student that answers questions, with any of its ``units`` moved: an evaluator, or a server in its name."""

    student: Student
    questions: StudentSplits
    units: tuple[Unit, ...]
    lineage: Lineage | None

    @property
    def weighed(self) -> Evaluator:
        """The evaluator that holds its weights. ConfigError where there are none here."""

    @property
    def batch_size(self) -> int:
        """How many questions are asked at once. Where that changes, answers have to be asked for again."""

    def answers(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[Answered, ...]:
        """Return the judged answers to *prompts* with *units* moved, in the order of the prompts."""

    def right(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[bool, ...]:
        """Return whether each task question was answered right with *units* moved."""
        return tuple(
            is_right(self.shown(one.answer), str(prompt.answer))
            for prompt, one in zip(prompts, self.answers(units, prompts), strict=True)
        )

    def shown(self, answer: str) -> str:
        """Return what is no thought in an *answer*."""

    def text(self, units: Sequence[Unit], documents: PromptSet) -> tuple[TextScore, ...]:
        """Return the log-likelihood of each document with *units* moved."""

    def divergences(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[float, ...]:
        """Return the KL of each answer from the student's own."""

    def identity(self) -> dict[str, Any]:
        """Return everything that a measurement depends on, as plain values."""

    def close(self) -> None:
        """Release what is held for the measurements."""
