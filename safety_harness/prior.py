"""Priors: how much a unit is likely to matter, so that the search tries to do without the unlikely ones first.

A prior orders the search and never decides: the oracle does. It sees the search split only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from safety_harness.bench import Bench
from safety_harness.capability import next_logprobs
from safety_harness.errors import ConfigError
from safety_harness.judges import Verdict
from safety_harness.prompts import PromptSet, batches
from safety_harness.ranking import Ranking
from safety_harness.transplant import channels_of
from safety_harness.units import Group, Unit

# How many tokens of the student's own answer a refusal is set against.
OPENING = 5
# How many questions a gradient is taken over.
QUESTIONS = 64
HARMLESS_QUESTIONS = 128
BATCH = 16


Score = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """How much each token of an answer counts: up to its place in *until*, in order; then *rest*."""

    until: Sequence[tuple[int, float]]
    rest: float

    def of(self, places: torch.Tensor) -> torch.Tensor:
        """The weights of tokens at *places*, counted from 1, in their shape."""
        weights = torch.full(places.shape, self.rest, device=places.device)
        for last, weight in reversed(self.until):
            weights = torch.where(places <= last, weight, weights)
        return weights


# By its opening alone, channels are chosen that begin refusals and cannot end them; by the whole of a refusal, twice as
# many are needed. On harmless questions its very beginning ("I'm sorry") counts more: other refusals begin so as well,
# and one that goes on "for any misunderstanding, but as a chatbot" is none the better (docs/units.md).
HARMFUL = Weights(((5, 3.0),), 1.0)
HARMLESS = Weights(((3, 3.0), (5, 1.5)), 0.5)
# The share of everything that may move, by the gradients at either end, where they are taken once more.
LIKELIEST = 0.06
# What a refusal of harmless questions costs, in refusals of harmful ones, and how much of that a channel earns which
# lowers them: with all of it the likeliest channels undo each other's refusals, with none fewer are refused at the same
# size (docs/tried.md).
COST = 1.0
CREDIT = 0.5


class Importance:
    """How much each unit of *bench*, or each channel of it, is likely to matter, by the prior that its settings name.

    Raises:
        ConfigError: the prior's name is not known, or all of the teacher refuses none of its questions.
    """

    def __init__(self, bench: Bench) -> None:
        name = bench.student.family.search.prior
        if name not in PRIORS:
            raise ConfigError(f"Unknown prior {name!r}. Known: {', '.join(PRIORS)}.")
        self._prior = PRIORS[name]
        self._evidence = self._prior.evidence(bench)

    def of(self, group: Group) -> float:
        """Of whole units or of cut ones together; larger is likelier."""
        facts = torch.stack([self._facts(unit) for unit in group]).sum(0)
        return float(self._prior.score(facts, sum(unit.parameters for unit in group)))

    def of_channels(self, unit: Unit) -> torch.Tensor:
        """Of each channel of a whole unit: float32, shape (channels,)."""
        return _channel_scores(self._prior.score, self._evidence[unit.module], unit)

    def _facts(self, unit: Unit) -> torch.Tensor:
        evidence = self._evidence[unit.module]
        return (evidence[:, list(unit.channels)] if unit.channels else evidence).sum(1)


@dataclass(frozen=True)
class Prior:
    """What is known of each channel, and what it says of any number of them.

    ``evidence`` gives a float32 tensor of shape (facts, channels) for each module; facts add up over channels.
    ``score`` makes a number of facts, shape (facts, ...), and how many parameters they are about.
    """

    evidence: Callable[[Bench], Mapping[str, torch.Tensor]]
    score: Score


def difference_norm(bench: Bench) -> Mapping[str, torch.Tensor]:
    """Squares of teacher minus student; the score is their root mean square.

    Cheap, and good where the student descends from the teacher; on a student that was tuned apart from the
    teacher it measures the student's own tuning.
    """
    difference = bench.transplanter.difference
    return {
        unit.module: _by_channel(unit, [difference(part).square() for part in unit.parts])[None] for unit in bench.units
    }


def contrast(bench: Bench) -> Mapping[str, torch.Tensor]:
    """First-order gain of refusals on harmful questions, and what the same would add on harmless ones.

    The margin of a question is the log-probability of a refusal less that of the opening of the student's own answer,
    tokens weighted as above. Its gradient times (teacher - student), summed over a unit, estimates what moving the
    unit gains, over harmful and over harmless questions. It is taken at the student and at the fully moved student, and
    once more where the channels that are likeliest by these two have moved, a little more than a patch moves; all
    three are added. The score is gain less ``COST`` times the cost, a parameter; a unit that lowers refusals of
    harmless questions earns ``CREDIT`` of that for it.
    """
    refusal = _usual_refusal(bench)
    ends = _gain_and_cost(bench, refusal, ((), bench.units))
    there = _gain_and_cost(bench, refusal, (_likeliest(bench, ends),))
    return {module: facts + there[module] for module, facts in ends.items()}


def _likeliest(bench: Bench, facts: Mapping[str, torch.Tensor]) -> tuple[Unit, ...]:
    """The channels that have moved where gradients are taken once more, by gain and cost, shape (2, channels)."""
    scores = [_channel_scores(worth, facts[unit.module], unit) for unit in bench.units]
    return Ranking(bench.units, scores).best(LIKELIEST)


def _channel_scores(score: Score, facts: torch.Tensor, unit: Unit) -> torch.Tensor:
    return score(facts, unit.parameters / facts.shape[1])


def _gain_and_cost(bench: Bench, refusal: Sequence[int], ends: Sequence[Sequence[Unit]]) -> Mapping[str, torch.Tensor]:
    """What each channel gains on harmful and on harmless questions, shape (2, channels), added up over *ends*."""
    questions = bench.questions.prior
    harmful = _gains(bench, questions.harmful.first(QUESTIONS), refusal, HARMFUL, ends)
    harmless = _gains(bench, questions.harmless.first(HARMLESS_QUESTIONS), refusal, HARMLESS, ends)
    return {module: torch.stack([gain, harmless[module]]) for module, gain in harmful.items()}


def worth(facts: torch.Tensor, parameters: float, price: float = COST, credit: float = CREDIT) -> torch.Tensor:
    """Gain less cost, the *facts* of shape (2, ...), a parameter."""
    gain, cost = facts[0], facts[1]
    score: torch.Tensor = (gain - price * torch.where(cost > 0, cost, credit * cost)) / parameters
    return score


def _usual_refusal(bench: Bench) -> list[int]:
    """The answer with which the whole teacher most often refuses, as tokens, with its end where it has one."""
    limit = bench.student.family.max_new_tokens
    tokenizer = bench.generator.tokenizer
    blocks = bench.questions.prior.harmful.blocks(bench.student.family.batch_size)
    answered = [answer for block in blocks for answer in bench.screened(bench.units, block)]
    refusals = Counter(answer.answer for answer in answered if answer.verdict is Verdict.REFUSED)
    if not refusals:
        raise ConfigError(
            f"All of the teacher refuses none of the {len(answered)} questions that the prior sees, so there is no "
            "refusal to look for. Give it more (prior_questions), or choose another teacher."
        )
    # Ties are broken by the text itself, so that the prior is the same on every run.
    best, _ = max(refusals.items(), key=lambda item: (item[1], item[0]))
    tokens: list[int] = tokenizer(best, add_special_tokens=False)["input_ids"]
    ended = len(tokens) < limit and tokenizer.eos_token_id is not None
    return [*tokens, tokenizer.eos_token_id] if ended else tokens


def _gains(
    bench: Bench, prompts: PromptSet, refusal: Sequence[int], weights: Weights, ends: Sequence[Sequence[Unit]]
) -> dict[str, torch.Tensor]:
    """First-order gain of each channel in the mean margin, shape (channels,), added up over *ends*: units moved."""
    # In batches like the oracle's: of what both ask, nothing is asked twice.
    own = [answer for block in prompts.blocks(bench.student.family.batch_size) for answer in bench.glimpsed((), block)]
    pairs = [
        (bench.generator.encode(prompt.text), _opening(bench, answer.answer))
        for prompt, answer in zip(prompts, own, strict=True)
        if answer.answer
    ]
    total = {unit.module: torch.zeros(()) for unit in bench.units}
    for moved in ends:
        with bench.transplanter.transplanted(moved):
            gradient = _gradient(bench, pairs, refusal, weights)
        for unit in bench.units:
            gains = [
                channels_of(gradient[part.memory.name], part.memory) * bench.transplanter.difference(part)
                for part in unit.parts
            ]
            total[unit.module] = total[unit.module] + _by_channel(unit, gains)
    return total


def _by_channel(unit: Unit, numbers: Sequence[torch.Tensor]) -> torch.Tensor:
    """*numbers* of each part of a whole unit, added up channel by channel: shape (channels,), on the CPU."""
    total = torch.zeros(unit.width)
    for part, value in zip(unit.parts, numbers, strict=True):
        if part.disk.axis >= 0:
            total += value.movedim(part.disk.axis, 0).reshape(unit.width, -1).sum(1).cpu()
        else:  # a bias that belongs to no channel: the sum over all of them must hold it
            total += value.sum().cpu() / unit.width
    return total


def _gradient(
    bench: Bench, pairs: Sequence[tuple[list[int], list[int]]], refusal: Sequence[int], weights: Weights
) -> Mapping[str, torch.Tensor]:
    """Gradient of the mean margin over *pairs* of (question, own opening), by tensor name, float32."""
    bench.generator.forget()  # gradients take all the room there is
    parameters = dict(bench.generator.model.named_parameters())
    names = list(dict.fromkeys(part.memory.name for unit in bench.units for part in unit.parts))
    total = {name: torch.zeros_like(parameters[name], dtype=torch.float32) for name in names}
    chosen = [parameters[name] for name in names]
    for batch in batches(pairs, BATCH):
        # One after the other, since what a backward pass needs to remember is most of the memory.
        for sign, rows in ((1, [(question, refusal) for question, _ in batch]), (-1, batch)):
            # The backward pass of torch's flash attention takes a quarter longer on a CPU than the plain one.
            with sdpa_kernel(SDPBackend.MATH):
                margin = sign * _logprob(bench, rows, weights).sum() / len(pairs)
                gradients = torch.autograd.grad(margin, chosen)
            for name, gradient in zip(names, gradients, strict=True):
                total[name] += gradient.float()
    return total


def _logprob(bench: Bench, rows: Sequence[tuple[Sequence[int], Sequence[int]]], weights: Weights) -> torch.Tensor:
    """Log-probability of each row's answer after its question, its tokens weighted: float32, shape (rows,)."""
    texts = [[*question, *answer] for question, answer in rows]
    logprobs, tokens, counted = next_logprobs(bench.generator, texts, [len(question) for question, _ in rows])
    weighted = weights.of(counted.cumsum(1)) * counted
    total: torch.Tensor = (logprobs.gather(-1, tokens[..., None])[..., 0] * weighted).sum(1)
    return total


def _opening(bench: Bench, answer: str) -> list[int]:
    tokens: list[int] = bench.generator.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return tokens[:OPENING]


PRIORS: Mapping[str, Prior] = {
    "norm": Prior(difference_norm, lambda facts, parameters: (facts[0] / parameters).sqrt()),
    "contrast": Prior(contrast, worth),
}
