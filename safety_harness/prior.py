"""Priors: how much a unit is likely to matter, so that the search tries to do without the unlikely ones first.

A prior orders the search and never decides: the oracle does. It sees the search split only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from safety_harness.bench import Bench
from safety_harness.capability import batches
from safety_harness.errors import ConfigError
from safety_harness.generate import pad_left
from safety_harness.judges import Verdict
from safety_harness.prompts import PromptSet

# How many tokens of an answer tell a refusal from its opposite, and how many questions a gradient is taken over.
OPENING = 5
QUESTIONS = 64
BATCH = 16


def importance(bench: Bench) -> list[float]:
    """One number a unit of *bench*, larger for a likelier one, by the prior that its settings name.

    Raises:
        ConfigError: the prior's name is not known.
    """
    name = bench.student.family.search.prior
    if name not in PRIORS:
        raise ConfigError(f"Unknown prior {name!r}. Known: {', '.join(PRIORS)}.")
    return PRIORS[name](bench)


def difference_norm(bench: Bench) -> list[float]:
    """Root mean square of teacher minus student over a unit's numbers.

    Cheap, and good where the student descends from the teacher; on a student that was tuned apart from the
    teacher it measures the student's own tuning.
    """
    return [float(bench.transplanter.difference(unit).norm()) / math.sqrt(unit.parameters) for unit in bench.units]


def contrast(bench: Bench) -> list[float]:
    """First-order gain of refusals on harmful questions, less what it would add on harmless ones, a parameter.

    The margin of a question is the log-probability of a refusal's opening less that of the student's own
    answer's. Its gradient times (teacher - student), summed over a unit, estimates what moving the unit gains;
    it is taken at the student and at the fully moved student and added, over harmful and over harmless
    questions. A unit that lowers refusals of harmless questions earns nothing for it.
    """
    refusal = _usual_refusal(bench)
    harmful = _gains(bench, bench.questions.harmful.search.first(QUESTIONS), refusal)
    harmless = _gains(bench, bench.questions.harmless.search.first(QUESTIONS), refusal)
    return [
        (gain - max(0.0, cost)) / unit.parameters
        for unit, gain, cost in zip(bench.units, harmful, harmless, strict=True)
    ]


def _usual_refusal(bench: Bench) -> list[int]:
    """The opening with which the whole teacher most often refuses, as tokens."""
    answered = bench.asked(bench.units, bench.questions.harmful.search, bench.student.family.screen_tokens)
    openings: Counter[tuple[int, ...]] = Counter(
        tuple(_opening(bench, answer.answer)) for answer in answered if answer.verdict is Verdict.REFUSED
    )
    # Ties are broken by the tokens themselves, so that the prior is the same on every run.
    best, _ = max(openings.items(), key=lambda item: (item[1], item[0]))
    return list(best)


def _gains(bench: Bench, prompts: PromptSet, refusal: Sequence[int]) -> list[float]:
    own = bench.asked((), prompts, bench.student.family.screen_tokens)
    pairs = [
        (bench.generator.encode(prompt.text), _opening(bench, answer.answer))
        for prompt, answer in zip(prompts, own, strict=True)
        if answer.answer
    ]
    differences = {unit: bench.transplanter.difference(unit) for unit in bench.units}
    at_student = _gradient(bench, pairs, refusal)
    with bench.transplanter.transplanted(bench.units):
        at_teacher = _gradient(bench, pairs, refusal)
    return [
        sum(
            float(torch.cat([end[name].flatten() for name in unit.tensors]) @ differences[unit])
            for end in (at_student, at_teacher)
        )
        for unit in bench.units
    ]


def _gradient(
    bench: Bench, pairs: Sequence[tuple[list[int], list[int]]], refusal: Sequence[int]
) -> Mapping[str, torch.Tensor]:
    """Gradient of the mean margin over *pairs* of (question, own opening), by tensor name, float32."""
    parameters = dict(bench.generator.model.named_parameters())
    names = [name for unit in bench.units for name in unit.tensors]
    total = {name: torch.zeros_like(parameters[name], dtype=torch.float32) for name in names}
    for batch in batches(pairs, BATCH):
        refused = _logprob(bench, [(question, refusal) for question, _ in batch])
        margin = (refused - _logprob(bench, batch)).sum() / len(pairs)
        for name, gradient in zip(names, torch.autograd.grad(margin, [parameters[n] for n in names]), strict=True):
            total[name] += gradient.float()
    return total


def _logprob(bench: Bench, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> torch.Tensor:
    """Log-probability of each row's opening after its question: float32, shape (rows,)."""
    model = bench.generator.model
    tokens, mask = pad_left([[*question, *opening] for question, opening in rows], 0, model.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=mask, position_ids=position, use_cache=False).logits
    picked = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    starts = torch.tensor([len(question) for question, _ in rows], device=model.device)
    counted = (position >= starts[:, None])[:, 1:]
    total: torch.Tensor = (picked * counted).sum(1)
    return total


def _opening(bench: Bench, answer: str) -> list[int]:
    tokens: list[int] = bench.generator.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return tokens[:OPENING]


PRIORS: Mapping[str, Callable[[Bench], list[float]]] = {"norm": difference_norm, "contrast": contrast}
