"""Make the ways to bring a teacher's refusals into a student that ``methods.py`` compares."""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.quality.merged import merged
from benchmarks.quality.one_shot import one_shot
from benchmarks.quality.restored import restored
from benchmarks.quality.rivals import Rival
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.models.load import prepare
from safety_harness.models.transplant import Donor, Transplanter
from safety_harness.registry.load import Student
from safety_harness.search.candidates import Channels, Modules
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut

AS_IT_IS = "student as it is"
PATCH = "patch of the search"
SIZED = "same size: "
# The layers of the paper's rule, as shares of a model's depth.
PUBLISHED_MIDDLE = (12 / 32, 18 / 32)


@dataclass(frozen=True)
class Way:
    """What is moved, from where, and how. Without a ``donor``, the teacher is it."""

    units: tuple[Unit, ...]
    donor: Donor | None = None
    ancestor: Checkpoint | None = None
    parameters: int | None = None
    """How many numbers move. Unset: all of the units."""
    about: str = ""
    """What was chosen, in words."""


class SafeSubspace:
    """The student's difference from the ancestor, projected on the teacher's difference, tensor by tensor."""

    def __init__(self, student: Checkpoint, teacher: Checkpoint, ancestor: Checkpoint) -> None:
        self._checkpoints = (student, teacher, ancestor)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one projected tensor: float32, in the student's shape."""
        tuned, donor, base = (checkpoint.tensor(name).float() for checkpoint in self._checkpoints)
        aligned = donor - base
        projected: torch.Tensor = base + aligned @ (aligned.T @ (tuned - base)) / aligned.norm()
        return projected


def ways(evaluator: Evaluator, patch: Sequence[Unit]) -> Mapping[str, Callable[[], Way]]:
    """Return how to make every way, by name. Ways of the same size move as many parameters as *patch*.

    All but the patch move whole modules or channels, whatever the search moves.
    """
    ancestor = Checkpoint(prepare(ancestor_of(evaluator.student)))
    if evaluator.student.search.components:
        evaluator = under(evaluator, grain="channel")
    units, size = evaluator.units, sum(unit.parameters for unit in patch)
    middle = published_layers(evaluator)
    mlps = tuple(unit for unit in units if unit.layer in middle and unit.role in ("gate", "up", "down"))
    share = size / sum(unit.parameters for unit in units)
    return {
        AS_IT_IS: lambda: Way(()),
        PATCH: lambda: Way(tuple(patch), ancestor=evaluator.ancestor),
        "all of the teacher": lambda: Way(units),
        "published rule: whole MLPs": lambda: Way(mlps),
        "published rule: gates": lambda: Way(tuple(unit for unit in mlps if unit.role == "gate")),
        "task arithmetic, all": lambda: Way(units, ancestor=ancestor),
        "safe subspace, all": lambda: Way(units, donor=SafeSubspace(evaluator.checkpoint, evaluator.teacher, ancestor)),
        "gradient-guided weights": lambda: _made(evaluator, restored),
        "selective merge": lambda: _made(evaluator, partial(merged, ancestor=ancestor)),
        "one refusal tuned": lambda: _made(evaluator, one_shot),
        f"{SIZED}random channels": lambda: Way(random_channels(evaluator, size)),
        f"{SIZED}modules by norm": lambda: Way(largest(Modules(under(evaluator, prior="norm")), size)),
        f"{SIZED}channels by norm": lambda: Way(Channels(under(evaluator, prior="norm")).best(share)),
        f"{SIZED}channels by the search's prior": lambda: Way(
            Channels(evaluator).best(share), ancestor=evaluator.ancestor
        ),
    }


def _made(evaluator: Evaluator, make: Callable[..., Rival]) -> Way:
    rival = make(evaluator, moved=partial(with_donor, evaluator))
    return Way(evaluator.units, donor=rival, parameters=rival.parameters, about=rival.about)


def published_layers(evaluator: Evaluator) -> range:
    """Return the layers that the registry names, or else those of the paper's Llama-2 at this model's depth."""
    if named := evaluator.student.family.published_layers:
        return range(named[0], named[1] + 1)
    layers = 1 + max(unit.layer for unit in evaluator.units)
    return range(round(PUBLISHED_MIDDLE[0] * layers), round(PUBLISHED_MIDDLE[1] * layers))


def ancestor_of(student: Student) -> Any:
    """Return the ancestor of the student's family."""
    if student.family.ancestor is None:
        raise SystemExit(f"{student.id}: its family names no ancestor, which some of the ways need.")
    return student.family.ancestor


def under(evaluator: Evaluator, **search: Any) -> Evaluator:
    """Return *evaluator* with other settings of the search. The model is shared."""
    view = copy.copy(evaluator)
    view.student = searching(evaluator.student, **search)
    checkpoint, settings = view.checkpoint, view.student.search
    view.units = enumerate_units(checkpoint.config, checkpoint.shapes, settings.roles, settings.components)
    return view


def with_donor(evaluator: Evaluator, donor: Donor, ancestor: Checkpoint | None = None) -> Evaluator:
    """Return *evaluator* with *donor* as its teacher, sharing the model and what was measured without units."""
    view = copy.copy(evaluator)
    view.transplanter = Transplanter(evaluator.generator.model, donor, ancestor)
    view.memo = evaluator.memo.of_student()
    return view


def changed(student: Student, **family: Any) -> Student:
    """Return *student* in a family with other values."""
    return replace(student, family=student.family.model_copy(update=family))


def searching(student: Student, **search: Any) -> Student:
    """Return *student* with other settings of its own search."""
    return student.searched_by(student.search.model_copy(update=search))


def largest(modules: Modules, size: int) -> tuple[Unit, ...]:
    """Return the most important modules that together hold no more than *size* parameters."""
    units = sorted(modules.best(1.0), key=lambda unit: -modules.weight((unit,)))
    chosen: list[Unit] = []
    for unit in units:
        if sum(taken.parameters for taken in chosen) + unit.parameters <= size:
            chosen.append(unit)
    return tuple(chosen)


def random_channels(evaluator: Evaluator, size: int) -> tuple[Unit, ...]:
    """Return channels that together hold no more than *size* parameters, drawn at random."""
    every = [(unit, channel) for unit in evaluator.units for channel in range(unit.width)]
    random.Random(0).shuffle(every)
    chosen: dict[Unit, list[int]] = defaultdict(list)
    for unit, channel in every:
        size -= unit.parameters // unit.width
        if size < 0:
            break
        chosen[unit].append(channel)
    return tuple(cut(unit, channels) for unit, channels in chosen.items())
