"""Tune a student on one refusal: the rival "Safety at One Shot" (arXiv 2601.01887, ICLR 2026).

By its abstract, a single question with a refusal, tuned on for a few epochs, restores what tuning took from an aligned
model. By reviews, the question is selected. Here the first questions that the prior sees are tried, each with the
teacher's usual refusal. The questions that the search sees choose the question and the count of epochs.

Adapters are those of models/tuning.py, at a higher rate, for a few epochs of one question are few steps. The students
here were never aligned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from benchmarks.quality.rivals import Moved, Rival, best, matrices
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.models.tuning import tuning
from safety_harness.search.priors.gradients import refusing, usual_refusal
from safety_harness.weights.checkpoint import Checkpoint

QUESTIONS = 6
EPOCHS = (2, 4, 8, 16)
RATE = 1e-3

Factors = tuple[torch.Tensor, torch.Tensor]
"""Of what a matrix learnt: shapes (out, rank), scaled, and (rank, in)."""


@dataclass(frozen=True)
class Tuned:
    """The student's numbers, plus what its matrices learnt."""

    student: Checkpoint
    learnt: Mapping[str, Factors]
    about: str

    @property
    def parameters(self) -> int:
        """Return how many numbers changed."""
        return sum(prod(self.student.shapes[name]) for name in self.learnt)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor: float32."""
        own = self.student.tensor(name).float()
        if name not in self.learnt:
            return own
        left, right = self.learnt[name]
        return own + left @ right


def one_shot(evaluator: Evaluator, moved: Moved) -> Rival:
    """Return the tuned student that refuses most within the budgets of the search, or the student as it is."""
    tuned = list(_tuned(evaluator))  # before any is asked: adapters and a transplant exclude each other
    assert tuned[0].learnt.keys() <= set(matrices(evaluator)), "what was tuned has other names on disk"
    return best(evaluator, tuned, moved)


def _tuned(evaluator: Evaluator) -> Iterator[Tuned]:
    """Yield the student after each count of epochs on each question."""
    refusal = usual_refusal(evaluator)
    for number, prompt in enumerate(evaluator.questions.prior.harmful.first(QUESTIONS), 1):
        question, answer = refusing(evaluator, prompt, refusal)
        with tuning(evaluator.generator, [([*question, *answer], len(question))], RATE) as under:
            for epochs in EPOCHS:
                while under.steps < epochs:
                    under.step()
                about = f"question {number} of the prior's, {epochs} epochs"
                yield Tuned(evaluator.checkpoint, _learnt(evaluator.generator.model), about)


@torch.no_grad()
def _learnt(model: Any) -> dict[str, Factors]:
    """Return the factors of what the adapters of *model* add to each matrix, by its name: float32, on the CPU."""

    def copied(factors: Any) -> torch.Tensor:
        return torch.clone(factors["default"].weight.detach()).float().cpu()

    return {
        f"{name}.weight": (module.scaling["default"] * copied(module.lora_B), copied(module.lora_A))
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
