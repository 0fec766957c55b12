"""The prior ``descent``: an order of the channels that is learnt step by step, the likeliest so far moved at each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

from safety_harness.bench import Bench
from safety_harness.capability import next_logprobs
from safety_harness.prior.contrast import HARMLESS_QUESTIONS, QUESTIONS, refusal_contrast, worth
from safety_harness.prior.evidence import channel_scores
from safety_harness.prior.gains import BATCH, HARMFUL, HARMLESS, Row, gains, logprob, own_answers, usual_refusal
from safety_harness.prompts import batches
from safety_harness.ranking import Ranking

T = TypeVar("T")
Scores = Mapping[str, torch.Tensor]
"""Of each channel of a module, a parameter: shape (channels,)."""

STEPS = 32
# The share of everything that may move which is moved at each step: about what a patch moves.
SHARE = 0.03
# Questions of a step.
HARMFUL_ROWS = 8
HARMLESS_ROWS = 32
# How many first tokens of the student's own answer are to stay as likely as they are.
OPENING = 8
# What a nat of divergence from the student on harmless questions costs, in nats of a refusal of a harmful one.
COST = 3.0
# How far the first step goes: what the last channel of SHARE gains by it, in the score that the last of them begins
# with. Steps three times as long choose by the questions that they have just seen (docs/tried.md).
RATE = 0.1


def learnt_order(bench: Bench) -> Mapping[str, torch.Tensor]:
    """Scores of channels, learnt by steps along their gains where those of the highest scores have moved.

    A step moves the likeliest channels so far as a patch would, wholly, and takes the gradient of what is asked of a
    patch: that a few harmful questions are refused, and that a few harmless ones are answered as the student does. What
    each channel would gain, moved or not, is added to its score (straight through the choice, as in edge-popup,
    arXiv 1911.13299, section 3). Begun at ``contrast``, whose order is of all questions at once: begun at nothing, the
    same steps refuse more harmless questions (docs/tried.md). Steps shorten to nothing, so that the last settle the
    order.

    Returns:
        Scores times parameters, which add up over channels: float32, shape (1, channels), for each module.
    """
    scores = _begun(bench)
    sizes = {unit.module: unit.parameters / len(scores[unit.module]) for unit in bench.units}
    questions = _Questions.of(bench)
    scale = 0.0
    for step in range(STEPS):
        moved = Ranking(bench.units, [scores[unit.module] for unit in bench.units]).best(SHARE)
        gained = {module: gain / sizes[module] for module, gain in gains(bench, moved, questions.asked(bench)).items()}
        scale = scale or _last_chosen({module: gain.abs() for module, gain in gained.items()})
        rate = RATE * (1 - step / STEPS) / scale
        scores = {module: score + rate * gained[module] for module, score in scores.items()}
    return {module: (score * sizes[module])[None] for module, score in scores.items()}


def _begun(bench: Bench) -> Scores:
    facts = refusal_contrast(bench)
    scores = {unit.module: channel_scores(worth, facts[unit.module], unit) for unit in bench.units}
    scale = _last_chosen(scores)
    return {module: score / scale for module, score in scores.items()}


def _last_chosen(scores: Scores) -> float:
    """The size of the lowest of the highest SHARE of all *scores* that is not zero, as most are of a teacher that
    differs in a few modules alone; 1 where all are."""
    every = torch.cat(list(scores.values()))
    chosen = every.topk(max(1, int(SHARE * len(every)))).values
    chosen = chosen[chosen != 0]
    return float(chosen[-1].abs()) if len(chosen) else 1.0


@dataclass(frozen=True)
class _Questions:
    """What steps ask, some at a time, all of them in turn.

    ``harmful`` go with the refusal that is wanted; ``harmless`` with the student's own answer and its log-probabilities
    of every token there, shape (tokens, vocabulary), kept in bfloat16.
    """

    harmful: Iterator[Row]
    harmless: Iterator[tuple[Row, torch.Tensor]]

    @classmethod
    def of(cls, bench: Bench) -> _Questions:
        questions, shuffled = bench.questions.prior, random.Random(0)
        refusal = usual_refusal(bench)
        harmful: list[Row] = [
            (bench.generator.encode(prompt.text), refusal) for prompt in questions.harmful.first(QUESTIONS)
        ]
        own = own_answers(bench, questions.harmless.first(HARMLESS_QUESTIONS), OPENING)
        return cls(_in_turn(harmful, shuffled), _in_turn(list(zip(own, _as_said(bench, own), strict=True)), shuffled))

    def asked(self, bench: Bench) -> Iterator[torch.Tensor]:
        """What a step would raise, in parts of one batch each."""
        refused = list(islice(self.harmful, HARMFUL_ROWS))
        kept = list(islice(self.harmless, HARMLESS_ROWS))
        for batch in batches(refused, BATCH):
            yield _refusing(bench, batch).sum() / len(refused)
        for part in batches(kept, BATCH):
            yield -COST * _diverging(bench, part).sum() / len(kept)


def _in_turn(items: list[T], shuffled: random.Random) -> Iterator[T]:
    while items:
        shuffled.shuffle(items)
        yield from items


@torch.no_grad()
def _as_said(bench: Bench, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The student's log-probabilities at every token of its own answers."""
    found = []
    for batch in batches(rows, BATCH):
        found += [logprobs.bfloat16() for logprobs in _at_answers(bench, batch)]
    return found


def _refusing(bench: Bench, rows: Sequence[Row]) -> torch.Tensor:
    """The weighted mean log-probability of the tokens of each row's answer: shape (rows,)."""
    weighed = [HARMFUL.of(torch.arange(1, len(answer) + 1)).sum() for _, answer in rows]
    summed = logprob(bench, rows, HARMFUL)
    return summed / torch.stack(weighed).to(summed.device)


def _diverging(bench: Bench, rows: Sequence[tuple[Row, torch.Tensor]]) -> torch.Tensor:
    """The weighted mean KL(student || patched student) over the tokens of each row's answer: nats, shape (rows,)."""
    found = []
    for (_, said), now in zip(rows, _at_answers(bench, [row for row, _ in rows]), strict=True):
        student = said.float()
        weights = HARMLESS.of(torch.arange(1, len(now) + 1, device=now.device))
        found.append(((student.exp() * (student - now)).sum(-1) * weights).sum() / weights.sum())
    return torch.stack(found)


def _at_answers(bench: Bench, rows: Sequence[Row]) -> list[torch.Tensor]:
    texts = [[*question, *answer] for question, answer in rows]
    logprobs, _, counted = next_logprobs(bench.generator, texts, [len(question) for question, _ in rows])
    return [found[kept] for found, kept in zip(logprobs, counted, strict=True)]
