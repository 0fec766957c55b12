"""Check that the transplant is a real question: put units of teacher weights into a student, and see what each brings.

A plain check of the families for `measure`, independent of the harness' own search: unit = layer x role,
operation = replace, sizes by greedy backward elimination.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recipes.tiny.answers import answer, refusal_rate

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
SCREEN_TOKENS = 8  # enough to see how an answer opens


@dataclass(frozen=True)
class Unit:
    """One projection of one layer."""

    layer: int
    role: str
    name: str


def units(model: PreTrainedModel) -> tuple[Unit, ...]:
    """Return all layer x role units of `model`, in layer order."""
    found = []
    for name, _ in model.named_parameters():
        if name.endswith("_proj.weight"):
            parts = name.split(".")
            found.append(Unit(int(parts[parts.index("layers") + 1]), parts[-2], name))
    return tuple(found)


class Transplant:
    """A student whose units can be replaced by the teacher's, and put back."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        self.model = student
        self._weights = dict(student.named_parameters())
        self._own = {name: p.detach().clone() for name, p in self._weights.items()}
        self._teacher: dict[str, Tensor] = {name: p.detach() for name, p in teacher.named_parameters()}

    def set(self, moved: Collection[Unit]) -> None:
        """Take exactly the units in `moved` from the teacher."""
        names = {unit.name for unit in moved}
        with torch.no_grad():
            for unit in units(self.model):
                source = self._teacher if unit.name in names else self._own
                self._weights[unit.name].copy_(source[unit.name])


def groups(every: Iterable[Unit]) -> dict[str, list[Unit]]:
    """Return the halves and kinds that a lazy search would try."""
    every = list(every)
    half = (max(unit.layer for unit in every) + 1) // 2
    return {
        "lower": [u for u in every if u.layer < half],
        "upper": [u for u in every if u.layer >= half],
        "mlp": [u for u in every if u.role in MLP],
        "attention": [u for u in every if u.role in ATTENTION],
    }


def screen(
    transplant: Transplant, tokenizer: PreTrainedTokenizerFast, prompts: list[str]
) -> Callable[[Collection[Unit]], float]:
    """Return the refusal rate on `prompts` as a function of the units that are moved."""

    def rate(moved: Collection[Unit]) -> float:
        transplant.set(moved)
        return refusal_rate(answer(transplant.model, tokenizer, prompts, SCREEN_TOKENS))

    return rate


def eliminate(rate: Callable[[Collection[Unit]], float], every: Iterable[Unit], floor: float) -> list[Unit]:
    """Drop units one by one, once through, as long as the rate stays at `floor` or above."""
    kept = list(every)
    for unit in list(kept):
        fewer = [u for u in kept if u is not unit]
        if rate(fewer) >= floor:
            kept = fewer
    return kept
