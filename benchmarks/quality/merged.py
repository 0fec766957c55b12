"""Merge modules that left the safe subspace with the teacher's: the rival SafeMERGE (arXiv 2503.17239).

1. V is what the teacher learnt since the ancestor, D what the student learnt, module by module.
2. A module left the safe subspace as far as the cosine of D and V V^T D is small.
3. Modules with a cosine below a threshold get the ancestor + w D + v V. All others stay as they are.

The paper tries thresholds and weights. Here each quarter of the modules is a threshold, and the pairs of weights are
``WEIGHTS``. The questions that the search of this harness sees choose among them. Two things differ from the released
program. Its base is aligned already; the ancestor here is not, so weights up to 1 of V are tried. And it merges the two
factors of LoRA adapters one by one; here their products are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from benchmarks.quality.rivals import Moved, Rival, best, matrices
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.weights.checkpoint import Checkpoint

SHARES = (0.25, 0.5, 0.75, 1.0)
# Of what student and teacher learnt. The first pair is the released program's.
WEIGHTS = ((0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (1.0, 0.5), (1.0, 1.0))


@dataclass(frozen=True)
class Learnt:
    """What student and teacher learnt since their ancestor."""

    student: Checkpoint
    teacher: Checkpoint
    ancestor: Checkpoint

    def of(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what either learnt in the tensor *name*: float32."""
        base = self.ancestor.tensor(name).float()
        return self.student.tensor(name).float() - base, self.teacher.tensor(name).float() - base

    def safety(self, name: str) -> float:
        """Return the cosine of what the student learnt and its projection on what the teacher learnt, 0..1."""
        own, aligned = self.of(name)
        projected = aligned @ (aligned.T @ own)
        return float(torch.nn.functional.cosine_similarity(projected.flatten(), own.flatten(), dim=0))


@dataclass(frozen=True)
class Merged:
    """The student's numbers; in the tensors *names*, the ancestor's and the weighted sum of what both learnt."""

    learnt: Learnt
    names: frozenset[str]
    weights: tuple[float, float]
    about: str

    @property
    def parameters(self) -> int:
        """Return how many numbers are merged."""
        return sum(prod(self.learnt.student.shapes[name]) for name in self.names)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor: float32."""
        tuned = self.learnt.student.tensor(name).float()
        if name not in self.names:
            return tuned
        (own, aligned), (of_own, of_aligned) = self.learnt.of(name), self.weights
        return tuned - own + of_own * own + of_aligned * aligned


def merged(evaluator: Evaluator, ancestor: Checkpoint, moved: Moved) -> Rival:
    """Return the merge that refuses most within the budgets of the search, or the student as it is."""
    learnt = Learnt(evaluator.checkpoint, evaluator.teacher, ancestor)
    farthest = sorted(matrices(evaluator), key=learnt.safety)
    merges = [
        Merged(
            learnt,
            frozenset(farthest[: round(share * len(farthest))]),
            weights,
            f"{share:.0%} of the modules, {weights[0]} of what the student learnt and {weights[1]} of the teacher's",
        )
        for share in SHARES
        for weights in WEIGHTS
    ]
    return best(evaluator, merges, moved)
