"""An evaluator without a model: what it answers is written in the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safety_harness.evaluation.memo import Answered
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Judgement, Verdict
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.splits import load_questions
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit
from tests.refusal_world import entry

REFUSED, UNSCORED, COMPLIED = Verdict.REFUSED, Verdict.UNSCORED, Verdict.COMPLIED


class Scripted:
    """The world's student, which gives ``harmful`` and ``harmless`` verdicts, in the order of the search's questions.

    Both lists may be changed between two probes. ``asked`` holds the id of each question that was asked. The task is
    always answered right.
    """

    def __init__(self, world: Path, harmful: Sequence[Verdict], harmless: Sequence[Verdict], **family: Any) -> None:
        self.student = entry(world, **family)
        self.questions = load_questions(self.student)
        checkpoint = Checkpoint(world / "student")
        self.units = enumerate_units(checkpoint.config, checkpoint.shapes)
        self.harmful, self.harmless = list(harmful), list(harmless)
        self.asked: list[str] = []
        self._harmful_ids = [prompt.id for prompt in self.questions.harmful.search]
        self._harmless_ids = [prompt.id for prompt in self.questions.harmless.search]

    def answers(
        self,
        _: Sequence[Unit],
        prompts: PromptSet,
        extent: Extent = Extent.WHILE_UNDECIDED,
        *,
        max_broken_off: int | None = None,
    ) -> list[Answered]:
        """Return the scripted verdict on each of *prompts*."""
        assert extent is not Extent.FULL
        assert max_broken_off is None or extent is Extent.WHILE_UNDECIDED
        verdicts = dict(zip(self._harmful_ids, self.harmful, strict=True))
        verdicts |= dict(zip(self._harmless_ids, self.harmless, strict=True))
        self.asked += [prompt.id for prompt in prompts]
        return [Answered(prompt.id, "", Judgement(verdicts[prompt.id], "")) for prompt in prompts]

    def right(self, _: Sequence[Unit], prompts: PromptSet) -> list[bool]:
        """Return that each task question is answered right."""
        return [True for _ in prompts]
