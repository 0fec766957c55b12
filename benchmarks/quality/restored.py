"""Restore single weights of the teacher by gradients, with a rollback: the rival of arXiv 2504.09757 (S&P 2025).

The procedure is the paper's, with the values of its released program:

1. The direction to restore is the teacher's mean hidden state at the last token of harmful questions, two thirds up.
2. A step adds up the gradients of -cos(student's mean state of a batch, direction). Of the weights that this gradient
   and the difference from the teacher move the same way, the 0.2 % with the largest gradients become the teacher's.
3. After five steps the student's own task is asked. Where it lost more than a twentieth, all begins anew, and each
   step gives weights back: a fifth of those that bring the states on its task nearer to the student's.
4. Of the weights after 5, 10, 15 and 20 steps, those are taken that refuse most and keep the task.

Here the harmful questions, and those of the task, are the ones that the search of this harness sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from benchmarks.quality.rivals import Moved, refused, right
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.models.decoding.batch import pad_left
from safety_harness.registry.prompts import batches
from safety_harness.weights.checkpoint import Checkpoint

Masks = Mapping[str, torch.Tensor]
"""Which numbers of each weight are the teacher's: bool, in the weight's shape."""


@dataclass(frozen=True)
class Settings:
    """How far weights are restored. Shares are 0..1."""

    steps: int = 20
    every: int = 5
    """Steps between two of which one is chosen. The first of them decides whether weights are given back."""
    share: float = 0.002
    """Share of the parameters of all layers that a step restores."""
    given_back: float = 0.2
    """Share that a rollback gives back, of a step's weights that would serve the task as the student's."""
    drop: float = 0.05
    """Largest loss of the task, relative to the student's."""
    depth: float = 2 / 3
    rows: int = 16


@dataclass(frozen=True)
class Restored:
    """The student's numbers, with the teacher's where *masks* say so."""

    student: Checkpoint
    teacher: Checkpoint
    masks: Masks
    about: str

    @property
    def parameters(self) -> int:
        """Return how many numbers are the teacher's."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor: float32."""
        own = self.student.tensor(name).float()
        mask = self.masks.get(name)
        return own if mask is None else torch.where(mask, self.teacher.tensor(name).float(), own)


def restored(evaluator: Evaluator, moved: Moved, settings: Settings = Settings()) -> Restored:
    """Return the student of *evaluator* with the weights that the rival restores."""
    questions = evaluator.questions
    assert questions.task is not None
    refusing = [*questions.prior.harmful.sent, *questions.harmful.search.sent]
    asked = [evaluator.generator.encode(question) for question in dict.fromkeys(refusing)]
    own = [evaluator.generator.encode(question) for question in questions.task.search.sent]
    kept = (1 - settings.drop) * sum(evaluator.right((), questions.task.search))

    def states(rollback: bool) -> Iterator[tuple[Restored, bool]]:
        """Yield what there is every few steps, and whether it keeps the task."""
        for step, masks in enumerate(_steps(evaluator, asked, own, settings, rollback), 1):
            if step % settings.every == 0:
                about = f"{step} steps, {'with' if rollback else 'without'} rollback"
                donor = Restored(evaluator.checkpoint, evaluator.teacher, masks, about)
                yield donor, right(moved(donor)) >= kept

    plain = states(rollback=False)
    first, keeps = next(plain)
    reached = [(first, keeps), *plain] if keeps else list(states(rollback=True))
    return max([donor for donor, keeps in reached if keeps] or [reached[0][0]], key=lambda donor: refused(moved(donor)))


def _steps(
    evaluator: Evaluator, asked: Sequence[list[int]], own: Sequence[list[int]], settings: Settings, rollback: bool
) -> Iterator[Masks]:
    """Yield which weights are restored after each step."""
    model, aligned = (
        _opened(one, evaluator.student.family.dtype, settings.depth)
        for one in (evaluator.checkpoint, evaluator.teacher)
    )
    total = sum(prod(shape) for name, shape in evaluator.checkpoint.shapes.items() if ".layers." in name)
    tuned = {name: weight.detach().clone() for name, weight in _weights(model).items()}
    wanted = _direction(aligned, asked, settings.rows)
    kept = _direction(model, own, settings.rows)
    there = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in tuned.items()}
    teacher = {name: weight.detach() for name, weight in _weights(aligned).items()}
    everywhere = {name: torch.ones_like(mask) for name, mask in there.items()}
    for _ in range(settings.steps):
        _add_gradients(model, asked, wanted, settings.rows)
        taken = _largest(model, teacher, everywhere, lambda _: ceil(settings.share * total))
        _write(model, teacher, taken)
        there = {name: mask | taken[name] for name, mask in there.items()}
        if rollback:
            model.zero_grad()
            _add_gradients(model, own, kept, settings.rows)
            given_back = _largest(model, tuned, taken, lambda there: ceil(settings.given_back * there))
            _write(model, tuned, given_back)
            there = {name: mask & ~given_back[name] for name, mask in there.items()}
            model.zero_grad()
        yield there


def _opened(checkpoint: Checkpoint, dtype: str, depth: float) -> Any:
    """Return a model of *checkpoint* in *dtype* with the lower layers alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=getattr(torch, dtype))
    layers = model.model.layers
    del layers[int(depth * len(layers)) :]
    model.model.norm = torch.nn.Identity()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".layers." in name and "layernorm" not in name)
    return model


def _weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return what may be restored, by name: all weights of the layers but their norms."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _state(model: Any, rows: Sequence[list[int]]) -> torch.Tensor:
    """Return the mean hidden state at the last token of *rows*: shape (width,)."""
    ids, present = pad_left(rows, model.device)
    places = (present.cumsum(1) - 1).clamp(min=0)
    out = model.model(input_ids=ids, attention_mask=present, position_ids=places, use_cache=False)
    state: torch.Tensor = out.last_hidden_state[:, -1].mean(0)
    return state


@torch.no_grad()
def _direction(model: Any, rows: Sequence[list[int]], at_once: int) -> torch.Tensor:
    """Return the mean hidden state at the last token over all *rows*: shape (width,)."""
    return sum(_state(model, batch) * len(batch) for batch in batches(rows, at_once)) / len(rows)  # type: ignore[return-value]


def _add_gradients(model: Any, rows: Sequence[list[int]], wanted: torch.Tensor, at_once: int) -> None:
    """Add the gradients of how far the mean state of each batch of *rows* points away from what is *wanted*."""
    for batch in batches(rows, at_once):
        loss: Any = -cosine_similarity(_state(model, batch), wanted, dim=0)
        loss.backward()


def _largest(model: Any, towards: Mapping[str, torch.Tensor], within: Masks, count_of: Callable[[int], int]) -> Masks:
    """Return the weights of the largest gradients that descend *towards* other numbers: so many of how many do."""
    candidates, sizes = {}, {}
    for name, weight in _weights(model).items():
        gradient = weight.grad
        assert gradient is not None
        candidates[name] = within[name] & ((weight.detach() - towards[name]) * gradient > 0)
        sizes[name] = gradient.abs()
    every = torch.cat([sizes[name][mask] for name, mask in candidates.items()])
    threshold = every.topk(min(count_of(len(every)), len(every))).values[-1]
    return {name: mask & (sizes[name] >= threshold) for name, mask in candidates.items()}


@torch.no_grad()
def _write(model: Any, numbers: Mapping[str, torch.Tensor], masks: Masks) -> None:
    for name, weight in _weights(model).items():
        weight[masks[name]] = numbers[name][masks[name]]
