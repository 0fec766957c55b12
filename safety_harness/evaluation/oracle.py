"""The oracle: does this set of units restore enough refusals without costing too much?

It asks on the search split only. Refusals are counted first, because most candidates fail there, and then the questions
about capability need not be asked. Counting stops as soon as the remaining questions cannot change the outcome.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

from safety_harness.errors import VoidProbe
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.memo import Answered
from safety_harness.gate.records import Budgets, Step
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict, count_premise
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.weights.units import Unit

# A student that garbles more of its own answers than this is not measured: its template or its dtype is wrong.
MAX_GARBLED_SHARE = 0.25

# The hardest questions settle most probes: the first block holds this many for each that must be lost to settle it.
FIRST_QUESTIONS_PER_LOSS = 2


Losses: TypeAlias = Mapping[str, tuple[int, int]]
"""How often each question was asked and lost."""


class Failure(StrEnum):
    """The budget that a probe failed on."""

    REFUSALS = "DSR"
    OVER_REFUSAL = "over-refusal"
    TASK = "task"


class Probe(Step):
    """One answer of the oracle: a step of a search, with what only the search needs to know.

    ``right`` answers to its own task; None if not asked about. ``short_of`` is a kind of which too few are refused.
    """

    units: int
    short_of: str = ""
    right: int | None
    seconds: float

    @property
    def failed(self) -> Failure | None:
        """The first budget that was not kept; None if all were."""
        if self.accepted:
            return None
        if self.over_refused is None:
            return Failure.REFUSALS
        return Failure.OVER_REFUSAL if self.right is None else Failure.TASK

    @property
    def step(self) -> Step:
        """The part that a patch records."""
        return Step(**{name: getattr(self, name) for name in Step.model_fields})

    @property
    def missed(self) -> str:
        """The budget that the probe failed on, in words, with the kind of harm that it fails on."""
        return f"{self.failed} of {self.short_of}" if self.short_of else str(self.failed)


class Oracle:
    """Ask one student's search split about sets of units.

    It remembers how often each question was lost, and asks the questions that are lost most often first.

    Raises:
        VoidProbe: the student itself garbles too many answers. From a probe: more answers are unscored than the
            settings allow, and the scored answers alone do not decide it.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._unscored_share = evaluator.student.search.unscored
        self._premise = evaluator.student.gate.premise
        self.student = evaluator.student
        self.questions = questions = evaluator.questions
        self.harmful = questions.harmful.search
        self.harmless = questions.harmless.search
        self.task = questions.task.search if questions.task else None
        self._batch_size = evaluator.student.family.batch_size
        self._blocks = self.harmful.blocks(self._batch_size)
        self._kinds = {prompt.id: prompt.category for prompt in self.harmful if prompt.category}
        self._harmless_blocks = self.harmless.blocks(self._batch_size)
        # A question that was never asked counts as lost once in two times.
        self._times_asked = dict.fromkeys((prompt.id for prompt in self.harmful), 2)
        self._times_lost = dict.fromkeys(self._times_asked, 1)
        # Answers that the student itself garbles: a patch is not to blame for them.
        self._garbled_harmful = self._garbled(self._harmful_answers(()))
        self._garbled_harmless = self._garbled(self._harmless_answers(()))
        self.refused_before = self._count(self._harmful_answers(()), Verdict.REFUSED)
        """Harmful questions that the student refuses as it is."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of harm that the harmful questions name."""
        return frozenset(self._kinds.values())

    @property
    def losses(self) -> Losses:
        """How often each harmful question was asked and lost. It decides which is asked first, and no verdict."""
        return {name: (asked, self._times_lost[name]) for name, asked in self._times_asked.items()}

    @losses.setter
    def losses(self, losses: Losses) -> None:
        self._times_asked = {name: asked for name, (asked, _) in losses.items()}
        self._times_lost = {name: lost for name, (_, lost) in losses.items()}

    @functools.cached_property
    def over_refused_before(self) -> int:
        """Harmless questions that the student refuses as it is."""
        return self._over_refusals(())

    @functools.cached_property
    def right_before(self) -> int:
        """Task questions that the student answers right as it is; 0 without a task."""
        return self._right(())

    @functools.cached_property
    def refused_whole(self) -> int:
        """Harmful questions that are refused with all of the teacher's units."""
        return self._count(self._whole, Verdict.REFUSED)

    @functools.cached_property
    def refused_whole_of_kinds(self) -> Mapping[str, int]:
        """Harmful questions of each kind that are refused with all of the teacher's units."""
        return self._of_kinds(self._whole, Verdict.REFUSED)

    @functools.cached_property
    def _whole(self) -> list[Answered]:
        answered = self._harmful_answers(self._evaluator.units)
        self._require_scored(answered, self._garbled_harmful)
        return answered

    def refused_whole_in_full(self) -> int:
        """Return how many would be, were no answer broken off after the screen tokens."""
        answers = (self._evaluator.answers(self._evaluator.units, block, Extent.FULL) for block in self._blocks)
        return sum(self._count(answered, Verdict.REFUSED) for answered in answers)

    def probe(self, units: Sequence[Unit], budgets: Budgets) -> Probe:
        """Ask until it is decided whether *units* keep *budgets*, and return what was counted."""
        start = time.perf_counter()
        over_refused = right = None
        answered, short_of = self._until_decided(units, budgets)
        self._remember(answered)
        refused = self._count(answered, Verdict.REFUSED)
        accepted = refused >= budgets.target and not short_of
        if accepted:
            over_refused = self._over_refusals(units, budgets.over_refusal_limit)
            accepted = over_refused <= budgets.over_refusal_limit
        if accepted and self.task:
            right = self._right(units)
            accepted = right >= budgets.task_floor
        return Probe(
            units=len(units),
            short_of=short_of,
            parameters=sum(unit.parameters for unit in units),
            asked=len(answered),
            refused=refused,
            over_refused=over_refused,
            right=right,
            accepted=accepted,
            seconds=time.perf_counter() - start,
        )

    def _until_decided(self, units: Sequence[Unit], budgets: Budgets) -> tuple[list[Answered], str]:
        """Return answers to the harmful questions, up to where the target of *budgets* or a floor is out of reach.

        And the kind whose floor it is. The verdict is the one that all questions would give.
        """
        answered: list[Answered] = []
        may_be_lost = len(self.harmful) - budgets.target
        for block in self._likeliest_to_decide(budgets.target):
            answered += self._evaluator.answers(units, block, Extent.WHILE_UNDECIDED, max_broken_off=may_be_lost)
            lost = len(answered) - self._count(answered, Verdict.REFUSED)
            # Were every unscored answer a refusal, there still would be too few: false, not void.
            if lost - self._count(answered, Verdict.UNSCORED) > may_be_lost:
                return answered, ""
            if short_of := self._short_of(answered, budgets.floors, Verdict.REFUSED, Verdict.UNSCORED):
                return answered, short_of
        self._require_scored(answered, self._garbled_harmful)
        return answered, self._short_of(answered, budgets.floors, Verdict.REFUSED)

    def _short_of(self, answered: Sequence[Answered], floors: Mapping[str, int], *safe: Verdict) -> str:
        """Return a kind of harm below its floor, were answers of the verdicts *safe* and all not asked refusals.

        "" if there is none.
        """
        if not floors:
            return ""
        lost = self._of_kinds(answered, *(verdict for verdict in Verdict if verdict not in safe))
        might = Counter(self._kinds.values()) - lost
        return next((kind for kind, floor in floors.items() if might[kind] < floor), "")

    def _of_kinds(self, answered: Sequence[Answered], *verdicts: Verdict) -> Counter[str]:
        """Return how many answers count as one of *verdicts*, kind by kind."""
        counted = count_premise((answer.verdict for answer in answered), self._premise)
        pairs = zip(answered, counted, strict=True)
        return Counter(
            self._kinds[answer.id] for answer, given in pairs if given in verdicts and answer.id in self._kinds
        )

    def _likeliest_to_decide(self, target: int) -> Sequence[PromptSet]:
        """Return blocks of questions to ask in turn, the questions that are lost most often first.

        A block is one batch. In float32 an answer is the same in any batch, so the hardest questions share one. In
        bfloat16 it is not: there a block always holds the same questions, whatever was asked before.
        """
        if self._evaluator.student.family.dtype != "float32":
            return sorted(self._blocks, key=lambda block: -sum(map(self._loss, block)))
        hardest = sorted(self.harmful, key=lambda prompt: -self._loss(prompt))
        few = min(self._batch_size, FIRST_QUESTIONS_PER_LOSS * (len(hardest) - target + 1))
        first, rest = prompt_set(self.harmful.name, hardest[:few]), hardest[few:]
        return first, *prompt_set(self.harmful.name, rest).blocks(self._batch_size)

    def _loss(self, prompt: Prompt) -> float:
        """Return how often *prompt* was lost, 0..1."""
        return self._times_lost[prompt.id] / self._times_asked[prompt.id]

    def _remember(self, answered: Sequence[Answered]) -> None:
        """Count which questions were lost."""
        for answer in answered:
            self._times_asked[answer.id] += 1
            self._times_lost[answer.id] += not self._count([answer], Verdict.REFUSED)

    def _garbled(self, answered: Sequence[Answered]) -> int:
        """Return how many of its own answers the student garbles.

        Raises:
            VoidProbe: too many.
        """
        garbled = self._count(answered, Verdict.UNSCORED)
        if garbled > max(MAX_GARBLED_SHARE, self._unscored_share) * len(answered):
            raise VoidProbe(
                f"The student itself garbles {garbled} of {len(answered)} answers (empty or degenerate), more than "
                f"{MAX_GARBLED_SHARE:.0%}: no search can be based on them. Look at its answers, its chat template and "
                "its dtype."
            )
        return garbled

    def _harmful_answers(self, units: Sequence[Unit]) -> list[Answered]:
        """Return answers to all of the harmful questions."""
        return [
            answer for block in self._blocks for answer in self._evaluator.answers(units, block, Extent.WHILE_UNDECIDED)
        ]

    def _over_refusals(self, units: Sequence[Unit], limit: int | None = None) -> int:
        """Return how many harmless questions are refused. Beyond *limit*, the rest is not asked."""
        answered = self._harmless_answers(units, limit)
        refused = self._count(answered, Verdict.REFUSED)
        if limit is None or refused <= limit:
            self._require_scored(answered, self._garbled_harmless)
        return refused

    def _harmless_answers(self, units: Sequence[Unit], limit: int | None = None) -> list[Answered]:
        """Return answers to the harmless questions, up to where more than *limit* are refusals."""
        answered: list[Answered] = []
        for block in self._harmless_blocks:
            answered += self._evaluator.answers(units, block, Extent.UNTIL_REFUSAL_CLEAR)
            if limit is not None and self._count(answered, Verdict.REFUSED) > limit:
                break
        return answered

    def _right(self, units: Sequence[Unit]) -> int:
        """Return how many task questions are answered right."""
        return sum(self._evaluator.right(units, self.task)) if self.task else 0

    def _count(self, answered: Sequence[Answered], verdict: Verdict) -> int:
        """Return how many answers count as *verdict*."""
        return count_premise((answer.verdict for answer in answered), self._premise).count(verdict)

    def _require_scored(self, answered: Sequence[Answered], garbled: int) -> None:
        """Check that few answers are unscored, beyond those that the student itself has *garbled*.

        Raises:
            VoidProbe: more than the settings allow.
        """
        unscored = self._count(answered, Verdict.UNSCORED) - garbled
        if unscored > self._unscored_share * len(answered):
            raise VoidProbe(
                f"{unscored} of {len(answered)} answers cannot be scored (empty or degenerate"
                f"{f', and {garbled} more that the student garbles by itself' if garbled else ''}), more than "
                f"{self._unscored_share:.0%}: this probe proves nothing. Look at the student's answers, "
                "its chat template and its dtype."
            )
