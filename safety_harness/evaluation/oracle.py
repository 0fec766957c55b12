"""The oracle: does this set of units restore enough refusals without costing too much?

Asked on the search split only. Refusals are counted first, because most candidates fail there and the
questions about capability then need not be asked; and counting stops as soon as the rest cannot help any more.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safety_harness.errors import VoidProbe
from safety_harness.evaluation.evaluator import Answered, Evaluator
from safety_harness.judging.judge import Verdict
from safety_harness.registry.prompts import Prompt, PromptSet, prompt_set
from safety_harness.weights.units import Unit

# A student that garbles more of its own answers than this is not measured: its template or its dtype is wrong.
MOST_GARBLED = 0.25

# The hardest questions settle most probes: the first block holds this many for each that must be lost to settle it.
FIRST_ASKED = 2


@dataclass(frozen=True)
class Probe:
    """One evaluation: counts on the search split; None where a budget was not asked about any more.

    ``asked`` harmful questions settled it, ``refused`` of them refused.
    """

    units: int
    parameters: int
    asked: int
    refused: int
    over_refused: int | None
    right: int | None
    accepted: bool
    seconds: float

    @property
    def failed(self) -> str:
        """Which constraint failed, for a report."""
        if self.accepted:
            return "nothing"
        if self.over_refused is None:
            return "DSR"
        return "over-refusal" if self.right is None else "task"


class Oracle:
    """set of units -> True (enough refusals within every budget) or False.

    Args:
        evaluator: the student; its ``family.search`` settings say what is enough.
        target: refusals that are enough, where not what the settings say. It may be changed between two probes.
        over_refusal_limit, task_floor: the most refusals of harmless questions, and the fewest right answers to the own
            task, where not what the settings say.

    Raises:
        VoidProbe: from a probe, when more answers are unscored than the settings allow and the scored ones alone
            do not decide it.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        target: int | None = None,
        over_refusal_limit: int | None = None,
        task_floor: int | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._settings = evaluator.student.search
        questions = evaluator.questions
        self.harmful = questions.harmful.search
        self.harmless = questions.harmless.search
        self.task = questions.task.search if questions.task else None
        self._batch_size = evaluator.student.family.batch_size
        self._blocks = self.harmful.blocks(self._batch_size)
        self._harmless_blocks = self.harmless.blocks(self._batch_size)
        # How often each question was asked and not refused; one that was never asked counts as one of two.
        self._asked = dict.fromkeys((prompt.id for prompt in self.harmful), 2)
        self._lost = dict.fromkeys(self._asked, 1)
        # Answers that the student itself garbles, to harmful and to harmless questions: none of a patch's doing.
        self._garbled_harmful = self._garbled(self._screened(()))
        self._garbled_harmless = self._garbled(self._glimpsed(()))
        self.before = _count(self._screened(()), Verdict.REFUSED)
        self.target = self._target() if target is None else target
        self.over_refusal_limit = self._over_refusal_limit() if over_refusal_limit is None else over_refusal_limit
        self.task_floor = self._task_floor() if task_floor is None else task_floor
        self.probes: list[Probe] = []
        self.on_probe: Callable[[], None] = lambda: None
        """Called after each probe that was not void."""
        self.asked = 0
        """Probes begun, those that turned out void included."""

    def _over_refusal_limit(self) -> int:
        return math.floor(self._over_refusals(()) + self._settings.over_refusal * len(self.harmless) + 1e-9)

    def _task_floor(self) -> int:
        return math.ceil(self._right(()) - self._settings.task * len(self.task) - 1e-9) if self.task else 0

    @functools.cached_property
    def whole(self) -> int:
        """Refusals that all of the teacher's units give."""
        answered = self._screened(self._evaluator.units)
        self._require_scored(answered, self._garbled_harmful)
        return _count(answered, Verdict.REFUSED)

    def __call__(self, units: Sequence[Unit]) -> bool:
        """Probe *units*; the probe is logged in ``probes``."""
        start = time.perf_counter()
        self.asked += 1
        over_refused = right = None
        answered = self._until_decided(units)
        refused = _count(answered, Verdict.REFUSED)
        accepted = refused >= self.target
        if accepted:
            over_refused = self._over_refusals(units, self.over_refusal_limit)
            accepted = over_refused <= self.over_refusal_limit
        if accepted and self.task:
            right = self._right(units)
            accepted = right >= self.task_floor
        seconds = time.perf_counter() - start
        moved = sum(unit.parameters for unit in units)
        self.probes.append(Probe(len(units), moved, len(answered), refused, over_refused, right, accepted, seconds))
        self.on_probe()
        return accepted

    def _until_decided(self, units: Sequence[Unit]) -> list[Answered]:
        """Answers to the harmful questions, up to where the target is out of reach; the same verdict as of all."""
        answered: list[Answered] = []
        may_be_lost = len(self.harmful) - self.target
        for block in self._likeliest_to_decide():
            answered += self._evaluator.screened(units, block, may_be_lost)
            lost = len(answered) - _count(answered, Verdict.REFUSED)
            # Were every unscored answer a refusal, there still would be too few: false, not void.
            if lost - _count(answered, Verdict.UNSCORED) > may_be_lost:
                self._remember(answered)
                return answered
        self._require_scored(answered, self._garbled_harmful)
        self._remember(answered)
        return answered

    def _likeliest_to_decide(self) -> Sequence[PromptSet]:
        """Blocks to ask, the questions that are lost most often first.

        A block is one batch. In float32 an answer is the same in any batch, so the hardest questions share one;
        in bfloat16 it is not, so there a block always holds the same questions, whatever was asked before.
        """
        if self._evaluator.student.family.dtype != "float32":
            return sorted(self._blocks, key=lambda block: -sum(map(self._loss, block)))
        hardest = sorted(self.harmful, key=lambda prompt: -self._loss(prompt))
        few = min(self._batch_size, FIRST_ASKED * (len(hardest) - self.target + 1))
        first, rest = prompt_set(self.harmful.name, hardest[:few]), hardest[few:]
        return first, *prompt_set(self.harmful.name, rest).blocks(self._batch_size)

    def _loss(self, prompt: Prompt) -> float:
        return self._lost[prompt.id] / self._asked[prompt.id]

    def _remember(self, answered: Sequence[Answered]) -> None:
        for answer in answered:
            self._asked[answer.id] += 1
            self._lost[answer.id] += answer.verdict is not Verdict.REFUSED

    def _target(self) -> int:
        share = self._settings.target_dsr
        if share is None:
            return math.ceil(self._settings.target_share * self.whole - 1e-9)
        return math.ceil(share * len(self.harmful) - 1e-9)

    def _garbled(self, answered: Sequence[Answered]) -> int:
        """How many of its own answers the student garbles."""
        garbled = _count(answered, Verdict.UNSCORED)
        if garbled > max(MOST_GARBLED, self._settings.unscored) * len(answered):
            raise VoidProbe(
                f"The student itself garbles {garbled} of {len(answered)} answers (empty or degenerate), more than "
                f"{MOST_GARBLED:.0%}: nothing can be searched so. Look at its answers, its chat template and dtype."
            )
        return garbled

    def _screened(self, units: Sequence[Unit]) -> list[Answered]:
        """Answers to all of the harmful questions."""
        return [answer for block in self._blocks for answer in self._evaluator.screened(units, block)]

    def _over_refusals(self, units: Sequence[Unit], most: int | None = None) -> int:
        """Harmless questions whose answers begin to refuse; those beyond *most* are not looked for."""
        answered = self._glimpsed(units, most)
        refused = _count(answered, Verdict.REFUSED)
        if most is None or refused <= most:
            self._require_scored(answered, self._garbled_harmless)
        return refused

    def _glimpsed(self, units: Sequence[Unit], most: int | None = None) -> list[Answered]:
        """Answers to the harmless questions, up to where more than *most* are refusals."""
        answered: list[Answered] = []
        for block in self._harmless_blocks:
            answered += self._evaluator.glimpsed(units, block)
            if most is not None and _count(answered, Verdict.REFUSED) > most:
                break
        return answered

    def _right(self, units: Sequence[Unit]) -> int:
        assert self.task is not None
        return sum(self._evaluator.right(units, self.task))

    def _require_scored(self, answered: Sequence[Answered], own: int = 0) -> None:
        """No more answers unscored than the settings allow beside the student's *own*."""
        unscored = _count(answered, Verdict.UNSCORED) - own
        if unscored > self._settings.unscored * len(answered):
            raise VoidProbe(
                f"{unscored} of {len(answered)} answers cannot be scored (empty or degenerate"
                f"{f', and {own} more that the student garbles by itself' if own else ''}), more than "
                f"{self._settings.unscored:.0%}: this probe proves nothing. Look at the student's answers, "
                "its chat template and its dtype."
            )


def _count(answered: Sequence[Answered], verdict: Verdict) -> int:
    return sum(answer.verdict is verdict for answer in answered)
