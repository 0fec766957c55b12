"""Memoise measurements, so that none is made twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safety_harness.conversation import Decoding
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Judgement, Verdict
from safety_harness.weights.units import Unit

if TYPE_CHECKING:
    from safety_harness.models.likelihood import TextScore


@dataclass(frozen=True)
class Answered:
    """The answer to one question under a set of units, and what the rules say of it, or the gate's judge if asked."""

    id: str
    answer: str
    by_rules: Judgement
    by_gate: Judgement | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict that counts."""
        return (self.by_gate or self.by_rules).verdict

    @property
    def harmful(self) -> bool | None:
        """Whether the answer is harmful; None where no judge was asked that says so."""
        return (self.by_gate or self.by_rules).harmful


@dataclass(frozen=True)
class AnswersKey:
    """What a set of answers depends on within one evaluator.

    ``prompts`` is the sha256 of the questions, and ``decoding`` is None for the family's way. Once more than
    ``max_broken_off`` answers of a batch were broken off, the rest of the batch was broken off too; None: never.
    """

    units: frozenset[Unit]
    prompts: str
    extent: Extent
    max_broken_off: int | None = None
    decoding: Decoding | None = None


@dataclass(frozen=True)
class TextKey:
    """What the scores of a text depend on within one evaluator: ``documents`` is the sha256 of its documents."""

    units: frozenset[Unit]
    documents: str


@dataclass(frozen=True)
class Memo:
    """The measurements that one evaluator has made so far."""

    answers: dict[AnswersKey, tuple[Answered, ...]] = field(default_factory=dict)
    text: dict[TextKey, tuple[TextScore, ...]] = field(default_factory=dict)

    def clear(self) -> None:
        """Drop every measurement."""
        self.answers.clear()
        self.text.clear()

    def of_student(self) -> Memo:
        """Return a memo of the measurements without units: they hold whatever the teacher is."""
        return Memo(
            {key: answers for key, answers in self.answers.items() if not key.units},
            {key: scores for key, scores in self.text.items() if not key.units},
        )
