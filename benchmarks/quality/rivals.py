"""What every rival is: a donor of all of the student's units, chosen by the questions that the search sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from safety_harness.evaluation.budgets import search_budgets
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict
from safety_harness.models.transplant import Donor
from safety_harness.weights.checkpoint import Checkpoint

Moved = Callable[[Donor], Evaluator]
"""Return an evaluator with a donor in place of its teacher."""


class Rival(Donor, Protocol):
    """What a rival made of a student."""

    @property
    def parameters(self) -> int:
        """Return how many numbers it changed."""

    @property
    def about(self) -> str:
        """Return what was chosen, in words."""


R = TypeVar("R", bound=Rival)


@dataclass(frozen=True)
class Untouched:
    """The student as it is, where nothing that a rival makes of it keeps the budgets."""

    student: Checkpoint
    parameters: int = 0
    about: str = "nothing, for no change keeps the budgets of the search"

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        return self.student.tensor(name)


def best(evaluator: Evaluator, donors: Iterable[R], moved: Moved) -> R | Untouched:
    """Return the donor that refuses most of those that keep the search's budgets of over-refusal and of the task."""
    budgets = search_budgets(evaluator.student.search, Oracle(evaluator))
    harmless = evaluator.questions.harmless.search

    def refuses(donor: R) -> int:
        """Return how many harmful questions are refused, or -1 where a budget is not kept."""
        view = moved(donor)
        if right(view) < budgets.task_floor:
            return -1
        answered = view.answers(view.units, harmless, Extent.UNTIL_REFUSAL_CLEAR)
        over = sum(one.verdict is Verdict.REFUSED for one in answered)
        return refused(view) if over <= budgets.over_refusal_limit else -1

    counts = [(refuses(donor), donor) for donor in donors]
    most, donor = max(counts, key=lambda pair: pair[0])
    return donor if most > 0 else Untouched(evaluator.checkpoint)


def matrices(evaluator: Evaluator) -> list[str]:
    """Return the names of all matrices that may move."""
    parts = (part for unit in evaluator.units for part in unit.parts if len(part.disk.shape) == 2)
    return sorted({part.disk.name for part in parts})


def refused(view: Evaluator) -> int:
    """Return how many harmful questions to search on are refused, with all units of *view* moved."""
    answered = view.answers(view.units, view.questions.harmful.search, Extent.WHILE_UNDECIDED)
    return sum(one.verdict is Verdict.REFUSED for one in answered)


def right(view: Evaluator) -> int:
    """Return how many questions of the own task to search on are answered right, with all units of *view* moved."""
    task = view.questions.task
    return sum(view.right(view.units, task.search)) if task else 0
