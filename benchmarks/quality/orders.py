"""Make the orders of channels that ``priors.py`` compares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from benchmarks.quality.ways import random_channels
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.registry.prompts import PromptSet
from safety_harness.search.candidates import Channels
from safety_harness.search.priors import PRIORS, Importance, Prior, contrast, descent
from safety_harness.search.priors.base import likeliest
from safety_harness.search.priors.gradients import HARMFUL, HARMLESS, Weights, logprob, own_answers, usual_refusal
from safety_harness.search.priors.norm import difference_norm
from safety_harness.weights.units import Group, Unit, grouped

OPENING = Weights(((contrast.OPENING_TOKENS, 1.0),), 0.0)
# Questions of each kind that an intervention is measured with.
TRACED_QUESTIONS = 8

Facts = Mapping[str, torch.Tensor]
"""One number for each channel of a module: shape (channels,)."""
Order = Callable[[float], Sequence[Unit]]
"""The likeliest units that hold a share of the model's parameters."""


class Gains:
    """Gains of *evaluator*'s channels over its prior's questions, each taken when it is needed first."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._ends = ((), evaluator.units)
        self.harmful = evaluator.questions.prior.harmful.first(contrast.HARMFUL_QUESTIONS)
        self.harmless = evaluator.questions.prior.harmless.first(contrast.HARMLESS_QUESTIONS)

    @functools.cached_property
    def refusal(self) -> Sequence[int]:
        """The tokens of the teacher's usual refusal."""
        return usual_refusal(self._evaluator)

    def opening(self) -> Prior:
        """Return the prior that sees the opening of refusals of harmful questions alone, at either end."""
        gain = self._of(self.harmful, OPENING, *self._ends)
        return less(gain, gain, 0.0)

    @functools.cached_property
    def at_ends(self) -> tuple[Facts, Facts]:
        """Gain and cost at the student and at the fully moved student."""
        return self._gain_and_cost(*self._ends)

    @functools.cached_property
    def there_too(self) -> tuple[Facts, Facts]:
        """The same, added to gain and cost where the likeliest channels have moved: the search's ``contrast``."""
        return self._where_likeliest(self.at_ends)

    @functools.cached_property
    def again(self) -> tuple[Facts, Facts]:
        """``there_too``, added to gain and cost where the channels that are likeliest by it have moved."""
        return self._where_likeliest(self.there_too)

    def _where_likeliest(self, known: tuple[Facts, Facts]) -> tuple[Facts, Facts]:
        """Return *known* gain and cost, with those added where the channels that are likeliest by them have moved."""
        scores = contrast.scores_of(self._evaluator, stacked(*known))
        there = likeliest(self._evaluator, scores, contrast.likeliest_share(self._evaluator))
        gain, cost = (added(*pair) for pair in zip(known, self._gain_and_cost(there), strict=True))
        return gain, cost

    def _gain_and_cost(self, *moved: Sequence[Unit]) -> tuple[Facts, Facts]:
        """Return gain and cost, added up over the sets of units *moved*."""
        return self._of(self.harmful, HARMFUL, *moved), self._of(self.harmless, HARMLESS, *moved)

    def _of(self, prompts: PromptSet, weights: Weights, *moved: Sequence[Unit]) -> Facts:
        """Return gains in the margin of *prompts*, added up over the sets of units *moved*."""
        return contrast.margin_gains(self._evaluator, prompts, self.refusal, weights, moved)


class Tracing:
    """What each attention and MLP of *evaluator* does to refusals by itself: interventions, no gradients."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._refusal = usual_refusal(evaluator)
        questions = evaluator.questions.prior
        kinds = ((questions.harmful, HARMFUL, 1.0), (questions.harmless, HARMLESS, -contrast.COST))
        self._asked = [
            (own_answers(evaluator, prompts.first(TRACED_QUESTIONS), contrast.OPENING_TOKENS), weights, sign)
            for prompts, weights, sign in kinds
        ]

    def prior(self) -> Prior:
        """Return the prior of these effects."""
        squares = difference_norm(self._evaluator)
        facts: dict[str, torch.Tensor] = {}
        for block in grouped(self._evaluator.units, "block"):
            effect = self._effect(block)
            whole = sum(float(squares[unit.module].sum()) for unit in block)
            facts |= {unit.module: effect * squares[unit.module] / whole for unit in block}
        return Prior(lambda _: facts, lambda total, parameters: total[0] / parameters)

    def _effect(self, block: Group) -> float:
        """Return what moving *block* alone gains, plus what leaving out this block alone loses."""
        units = self._evaluator.units
        rest = [unit for unit in units if unit not in block]
        return (self._worth(block) - self._nothing) + (self._everything - self._worth(rest))

    @functools.cached_property
    def _nothing(self) -> float:
        """The margin with nothing moved."""
        return self._worth(())

    @functools.cached_property
    def _everything(self) -> float:
        """The margin with everything moved."""
        return self._worth(self._evaluator.units)

    @torch.inference_mode()
    def _worth(self, moved: Sequence[Unit]) -> float:
        """Return the mean margin on harmful questions less the one on harmless questions, with *moved* moved."""
        total = 0.0
        with self._evaluator.transplanter.transplanted(moved):
            for rows, weights, sign in self._asked:
                refused = logprob(self._evaluator, [(question, self._refusal) for question, _ in rows], weights)
                total += sign * float((refused - logprob(self._evaluator, rows, weights)).mean())
        return total


def variants(evaluator: Evaluator) -> Mapping[str, Callable[[], Prior]]:
    """Return how to make every prior, by name."""
    seen, standard = Gains(evaluator), descent.DEFAULT
    return {
        "norm of the difference": lambda: PRIORS["norm"],
        "causal tracing": lambda: Tracing(evaluator).prior(),
        "the opening, harm alone": seen.opening,
        "the whole, less harmless": lambda: less(*seen.at_ends),
        "contrast": lambda: less(*seen.there_too),
        "contrast, harmless ×1.2, no credit": lambda: less(*seen.there_too, 1.2, 0.0),
        "contrast, harmless ×1.2": lambda: less(*seen.there_too, 1.2),
        "contrast, no credit": lambda: less(*seen.there_too, credit=0.0),
        "contrast, and once more": lambda: less(*seen.again),
        "descent": lambda: stepping(seen, standard),
        "descent, steps three times as long": lambda: stepping(seen, replace(standard, rate=3 * standard.rate)),
        "descent, harmless ×1/4": lambda: stepping(
            seen, replace(standard, divergence_cost=standard.divergence_cost / 4)
        ),
    }


def stepping(seen: Gains, schedule: descent.Schedule) -> Prior:
    """Return ``descent`` by *schedule*, from the contrast that is *seen* already."""

    def channel_facts(evaluator: Evaluator) -> Mapping[str, torch.Tensor]:
        """Return the facts of the steps."""
        return descent.descended(evaluator, contrast.scores_of(evaluator, stacked(*seen.there_too)), schedule)

    return replace(PRIORS["descent"], channel_facts=channel_facts)


def orders(evaluator: Evaluator) -> Mapping[str, Callable[[], Order]]:
    """Return how to make every order, by name: a random one, and one for each prior."""
    total = evaluator.checkpoint.parameters
    movable = sum(unit.parameters for unit in evaluator.units)

    def by(make: Callable[[], Prior]) -> Order:
        """Return the order that one prior gives."""
        candidates = Channels(evaluator, Importance(evaluator, make()))
        return lambda share: candidates.best(share * total / movable)

    return {
        "random channels": lambda: lambda share: random_channels(evaluator, round(share * total)),
        **{name: functools.partial(by, make) for name, make in variants(evaluator).items()},
    }


def added(left: Facts, right: Facts) -> Facts:
    """Return the sums of both, channel by channel."""
    return {module: facts + right[module] for module, facts in left.items()}


def stacked(gain: Facts, cost: Facts) -> Facts:
    """Return gain and cost as the search's prior has them: shape (2, channels) for each module."""
    return {module: torch.stack([gain[module], cost[module]]) for module in gain}


def less(gain: Facts, cost: Facts, price: float = contrast.COST, credit: float = contrast.CREDIT) -> Prior:
    """Return the prior *gain* less *cost*, at another price or with another credit than the search's prior."""
    facts = stacked(gain, cost)
    return Prior(lambda _: facts, functools.partial(contrast.worth, price=price, credit=credit))
