"""Estimate what moving a channel gains: gradients of log-probabilities of given answers, channel by channel."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from safety_harness.errors import ConfigError, SourceError
from safety_harness.evaluation.evaluator import Evaluator
from safety_harness.judging.extent import Extent
from safety_harness.judging.judge import Verdict, count_premise
from safety_harness.models.likelihood import next_logprobs
from safety_harness.models.memory import enough_memory
from safety_harness.models.transplant import channels_of
from safety_harness.registry.prompts import Prompt, PromptSet
from safety_harness.weights.units import Part, Unit

# Rows of one backward pass: what it remembers is most of a search's memory (evaluation/estimate.py).
ROWS_PER_PASS = 16

Row = tuple[Sequence[int], Sequence[int]]
"""The tokens of a question and of an answer to it."""


@dataclass(frozen=True)
class Weights:
    """How much each token of an answer counts: ``until`` holds pairs of a last place and a weight, ``rest`` follows."""

    until: Sequence[tuple[int, float]]
    rest: float

    def of(self, places: torch.Tensor) -> torch.Tensor:
        """Return the weights of tokens at *places*, counted from 1: float32, in the shape of *places*."""
        weights = torch.full(places.shape, self.rest, device=places.device)
        for last, weight in reversed(self.until):
            weights = torch.where(places <= last, weight, weights)
        return weights


# The opening of a refusal alone chooses channels that begin refusals and cannot end them. A whole refusal, evenly
# weighted, needs twice as many channels. On harmless questions the very beginning ("I'm sorry") counts more. Refusals
# in other words begin alike, and one that goes on "for any misunderstanding, but as a chatbot" does no less harm
# (docs/units.md).
HARMFUL = Weights(((5, 3.0),), 1.0)
HARMLESS = Weights(((3, 3.0), (5, 1.5)), 0.5)


def usual_refusal(evaluator: Evaluator) -> list[int]:
    """Return the tokens of the answer with which the whole teacher most often refuses, with its end if it has one.

    Raises:
        ConfigError: all of the teacher refuses none of the prior's questions.
    """
    limit = evaluator.student.family.max_new_tokens
    tokenizer = evaluator.generator.tokenizer
    blocks = evaluator.questions.prior.harmful.blocks(evaluator.student.family.batch_size)
    answered = [
        answer for block in blocks for answer in evaluator.answers(evaluator.units, block, Extent.WHILE_UNDECIDED)
    ]
    verdicts = count_premise((answer.verdict for answer in answered), evaluator.student.gate.premise)
    begun = [evaluator.generator.chat.begun(prompt.sent) for block in blocks for prompt in block]
    refusals = Counter(
        one.answer.removeprefix(given).strip()
        for one, given, verdict in zip(answered, begun, verdicts, strict=True)
        if verdict is Verdict.REFUSED
    )
    moves_components = bool(evaluator.student.search.components)
    if not refusals:
        raise ConfigError(
            f"All of the teacher refuses none of the {len(answered)} questions that the prior sees, so there is no "
            "refusal to look for. Give it more (prior_questions), or choose another teacher."
            + (" Or raise `rank`: of what the teacher adds, only so many components move." * moves_components)
        )
    # Ties are broken by the text itself, so that the prior is the same on every run.
    commonest, _ = max(refusals.items(), key=lambda item: (item[1], item[0]))
    tokens: list[int] = tokenizer(commonest, add_special_tokens=False)["input_ids"]
    end = evaluator.generator.end
    return [*tokens, end] if len(tokens) < limit and end is not None else tokens


def refusing(evaluator: Evaluator, prompt: Prompt, refusal: Sequence[int]) -> Row:
    """Return the question of *prompt* with the tokens of *refusal*: behind the first words of an answer, with a space.

    A refusal behind the beginning of a compliance is what a prefill attack asks for (arXiv 2406.05946).
    """
    generator = evaluator.generator
    asked, tokenizer = generator.encode(prompt.sent), generator.tokenizer
    given = prompt.conversation.prefill if prompt.conversation else ""
    if not given:
        return asked, refusal
    ends = int(generator.end is not None and list(refusal[-1:]) == [generator.end])
    words, end = refusal[: len(refusal) - ends], refusal[len(refusal) - ends :]
    text = str(tokenizer.decode(words)).strip()
    for candidate in (f" {text}", text):  # some tokenizers put a space before any text
        tokens = tokenizer(candidate, add_special_tokens=False)["input_ids"]
        if str(tokenizer.decode([*asked, *tokens])).endswith(f"{given} {text}"):
            return asked, [*tokens, *end]
    return asked, refusal


def own_answers(evaluator: Evaluator, prompts: PromptSet, tokens: int) -> list[Row]:
    """Return each question with the first *tokens* of the student's own answer. Empty answers are left out."""
    return [own for own, _ in opposed(evaluator, prompts, tokens, ())]


def opposed(evaluator: Evaluator, prompts: PromptSet, tokens: int, refusal: Sequence[int]) -> list[tuple[Row, Row]]:
    """Return each question with the first *tokens* of the student's own answer, and with a *refusal*.

    Empty answers are left out. Of an answer that an attack begins, the first tokens are those behind its beginning.
    """
    # The oracle asks in batches of this size as well, so questions that both ask are asked once.
    answers = [
        answer
        for block in prompts.blocks(evaluator.student.family.batch_size)
        for answer in evaluator.answers((), block, Extent.UNTIL_REFUSAL_CLEAR)
    ]
    generator = evaluator.generator
    said = [a.answer.removeprefix(generator.chat.begun(p.sent)) for p, a in zip(prompts, answers, strict=True)]
    return [
        (
            (generator.encode(prompt.sent), generator.tokenizer(own, add_special_tokens=False)["input_ids"][:tokens]),
            refusing(evaluator, prompt, refusal),
        )
        for prompt, own in zip(prompts, said, strict=True)
        if own
    ]


def gains(evaluator: Evaluator, moved: Sequence[Unit], pieces: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the first-order gain of each channel in the sum of *pieces*, at the student with the units *moved*.

    Args:
        pieces: scalars, each computed in its turn, with the units moved. What one backward pass remembers is most of
            the memory, so only one is held at a time.

    Returns:
        A float32 tensor of shape (channels,) a module, on the CPU: the gradient times (teacher - student).

    Raises:
        SourceError: a gradient is not finite.
    """
    advice = ', or let fewer `roles` move, or search with `prior = "norm"`, which takes no gradients'
    with enough_memory("the prior takes gradients", advice), evaluator.transplanter.transplanted(moved):
        gained = _gained(evaluator, pieces)
    for module, gain in gained.items():
        if not gain.isfinite().all():
            raise SourceError(
                f"{evaluator.student.id}: the prior's gradient for {module} holds a NaN or an infinity. Its numbers do "
                f"not fit {evaluator.student.family.dtype}: try another `dtype` in the registry, or `search = {{ prior "
                '= "norm" }`, which takes none.'
            )
    return gained


def by_channel(unit: Unit, part: Part, numbers: torch.Tensor) -> torch.Tensor:
    """Return the sum of *numbers* of one part of a whole unit, channel by channel: shape (channels,)."""
    if part.disk.axis >= 0:
        return numbers.movedim(part.disk.axis, 0).reshape(unit.width, -1).sum(1)
    # A bias that belongs to no channel: the sum over all channels must contain it.
    return (numbers.sum() / unit.width).expand(unit.width)


def logprob(evaluator: Evaluator, rows: Sequence[Row], weights: Weights) -> torch.Tensor:
    """Return the log-probability of each row's answer after its question, tokens weighted: float32, shape (rows,)."""
    logprobs, tokens, counted = at_answers(evaluator, rows)
    weighted = weights.of(counted.cumsum(1)) * counted
    total: torch.Tensor = (logprobs.gather(-1, tokens[..., None])[..., 0] * weighted).sum(1)
    return total


def at_answers(evaluator: Evaluator, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probabilities at the answers' tokens, those tokens, and which of them count (``next_logprobs``)."""
    texts = [[*question, *answer] for question, answer in rows]
    return next_logprobs(evaluator.generator, texts, [len(question) for question, _ in rows])


def _gained(evaluator: Evaluator, pieces: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the gradient of the sum of *pieces* times (teacher - student), added up a channel, on the CPU."""
    evaluator.generator.forget()  # gradients need all the memory there is
    parts: defaultdict[str, list[tuple[Unit, Part]]] = defaultdict(list)
    for unit in evaluator.units:
        for part in unit.parts:
            parts[part.memory.name].append((unit, part))
    gained: dict[str, torch.Tensor] = {}

    def add(name: str, gradient: torch.Tensor) -> None:
        """Add the gradient of one tensor to the gains of the modules that lie in it."""
        for unit, part in parts[name]:
            numbers = channels_of(gradient, part.memory)
            if unit.rank:
                left, right = (one.to(numbers.device) for one in evaluator.transplanter.factors(part, unit.rank))
                total = ((numbers.float() @ right.T) * left).sum(0)
            else:
                total = by_channel(unit, part, evaluator.transplanter.difference(part).mul_(numbers))
            gained[unit.module] = gained[unit.module] + total if unit.module in gained else total

    # The backward pass of torch's flash attention takes a quarter longer on a CPU than the plain one.
    with sdpa_kernel(SDPBackend.MATH), gradients_as_they_come(evaluator.generator.model, list(parts), add):
        for piece in pieces:
            piece.backward()  # type: ignore[no-untyped-call,unused-ignore]
    nothing = {unit.module: torch.zeros(unit.width) for unit in evaluator.units}  # of what no piece depends on
    return nothing | {module: total.cpu() for module, total in gained.items()}


@contextlib.contextmanager
def gradients_as_they_come(
    model: Any, names: Sequence[str], take: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Run a block in which each backward pass lets *take* have the gradients of the parameters of *names*, one by one.

    A gradient is dropped before the next one is computed, because all of them are as large as the model. All other
    parameters have none, so that nothing is remembered for it.

    Where questions begin alike, the model reads that beginning in a pass of its own. The gradient of a parameter would
    be complete, and all of them be held, until the end of both backward passes. Therefore each pass of the model reads
    its parameters through tensors of its own, which share their storage. What these give adds up.
    """
    parameters = dict(model.named_parameters())
    names_of = {id(parameters[name]): name for name in names}
    places = [
        (module, key, names_of[id(parameter)])
        for module in model.modules()
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in names_of
    ]

    def taken(name: str, tensor: torch.Tensor) -> None:
        gradient, tensor.grad = tensor.grad, None
        assert gradient is not None
        with torch.no_grad():
            take(name, gradient)

    def renew(*_: Any) -> None:
        """Give the next pass of the model tensors of its own."""
        fresh = {name: torch.nn.Parameter(parameters[name].detach()) for name in names}
        for name, tensor in fresh.items():
            tensor.register_post_accumulate_grad_hook(functools.partial(taken, name))
        for module, key, name in places:
            setattr(module, key, fresh[name])

    with contextlib.ExitStack() as undo:
        for parameter in parameters.values():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for module, key, name in places:
            undo.callback(setattr, module, key, parameters[name])
        undo.callback(model.register_forward_pre_hook(renew).remove)
        yield
