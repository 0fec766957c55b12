"""Check that priors are the sums that they claim to be, question by question and without any batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.conversation import Conversation, Turn
from safety_harness.errors import SourceError
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.judging.extent import Extent
from safety_harness.registry.prompts import PromptSet, prompt_set
from safety_harness.search.priors import Importance, Prior, contrast
from safety_harness.search.priors.gradients import HARMFUL, own_answers, refusing, usual_refusal
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.refusal_world import REFUSAL, entry

Weigh = Callable[[int], float]


def margin_gradient(evaluator: Evaluator, model: Any, prompts: PromptSet, weigh: Weigh) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean of log p(refusal and its end) - log p(own opening), by tensor.

    Each token counts as *weigh* says of its place.
    """
    total: Any = 0.0
    tokenizer = evaluator.generator.tokenizer
    for prompt, answered in zip(prompts, evaluator.answers((), prompts), strict=True):
        question = evaluator.generator.encode(prompt.text)
        for sign, text in ((1, REFUSAL), (-1, answered.answer)):
            opening = tokenizer(text)["input_ids"]
            opening = [*opening, tokenizer.eos_token_id] if sign > 0 else opening[: contrast.OPENING_TOKENS]
            weights = [weigh(place) for place in range(1, len(opening) + 1)]
            logprobs = model(input_ids=torch.tensor([[*question, *opening]])).logits[0].log_softmax(-1)
            at = range(len(question) - 1, len(question) - 1 + len(opening))
            picked = zip(at, opening, weights, strict=True)
            total = total + sign * sum(weight * logprobs[i, token] for i, token, weight in picked) / len(prompts)
    model.zero_grad()
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def by_hand(
    evaluator: Evaluator, world: Path, teacher: str, prompts: PromptSet, weigh: Weigh, moved: Sequence[Unit]
) -> list[torch.Tensor]:
    """Return the first-order gains of each unit, channel by channel, where *moved* units have moved."""
    student, donor = Checkpoint(world / "student"), Checkpoint(world / teacher)
    with evaluator.transplanter.transplanted(moved):
        gradient = margin_gradient(evaluator, evaluator.generator.model, prompts, weigh)
    gains = {n: gradient[n] * (donor.tensor(n) - student.tensor(n)) for n in donor.shapes}
    return [
        sum((gains[p.disk.name].sum(1 - p.disk.axis) for p in unit.parts), torch.zeros(())) for unit in evaluator.units
    ]


def gains_and_costs(evaluator: Evaluator, world: Path, teacher: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return gains and costs of each unit, channel by channel: at either end and at the likeliest channels, added."""
    questions = evaluator.questions

    def at(moved: Sequence[Unit]) -> list[list[torch.Tensor]]:
        harm = by_hand(evaluator, world, teacher, questions.harmful.search, lambda n: 3.0 if n <= 5 else 1.0, moved)
        fine = by_hand(
            evaluator, world, teacher, questions.harmless.search,
            lambda n: 3.0 if n <= 3 else 1.5 if n <= 5 else 0.5, moved,
        )  # fmt: skip
        return [harm, fine]

    ends = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(at(()), at(evaluator.units), strict=True)]
    channels = sorted(
        (
            (-float(gain[i] - price(cost[i])) / (unit.parameters / len(gain)), number, i)
            for number, (unit, gain, cost) in enumerate(zip(evaluator.units, *ends, strict=True))
            for i in range(len(gain))
        )
    )
    room = contrast.LIKELIEST_SHARE * sum(unit.parameters for unit in evaluator.units)
    chosen: dict[int, list[int]] = {}
    for _, number, i in channels:
        unit = evaluator.units[number]
        room -= unit.parameters / len(ends[0][number])
        if room < 0:
            break
        chosen.setdefault(number, []).append(i)
    likeliest = [cut(evaluator.units[n], some) for n, some in sorted(chosen.items())]
    assert len(likeliest) > 0
    gains, costs = ([a + b for a, b in zip(*pair, strict=True)] for pair in zip(ends, at(likeliest), strict=True))
    return gains, costs


def close(values: Sequence[float], expected: Sequence[float]) -> bool:
    """Return whether *values* are *expected* ones, to a thousandth of the largest."""
    scale = max(abs(value) for value in expected)
    return values == pytest.approx(expected, rel=1e-3, abs=1e-3 * scale)


def price(cost: torch.Tensor) -> torch.Tensor:
    """Return what refusals of harmless questions take away; half of it is earned if they are lowered."""
    return cost.clamp(min=0) + 0.5 * cost.clamp(max=0)


def importances(evaluator: Evaluator) -> list[float]:
    """Return the score of each whole unit."""
    importance = Importance(evaluator)
    return [importance.of((unit,)) for unit in evaluator.units]


@pytest.mark.parametrize("saved", [1, None])
@pytest.mark.parametrize("teacher", ["good", "prudish"])
def test_contrast_is_gain_on_harmful_less_cost_on_harmless(world: Path, teacher: str, saved: int | None) -> None:
    """Compare with sums by hand, with and without a shared prefix; six questions are more than one batch."""
    evaluator = open_evaluator(entry(world, teacher=teacher))
    generator = evaluator.generator
    generator.speedups = replace(generator.speedups, min_prefill_tokens_saved=saved)
    before = {name: tensor.clone() for name, tensor in generator.model.state_dict().items()}
    channel_facts = functools.partial(contrast.refusal_contrast, rows_per_pass=4)
    importance = Importance(evaluator, Prior(channel_facts, contrast.worth))
    scores = [importance.of((unit,)) for unit in evaluator.units]
    assert all(torch.equal(before[n], t) for n, t in generator.model.state_dict().items())
    gains, costs = gains_and_costs(evaluator, world, teacher)
    expected = [
        float(gain.sum() - price(cost.sum())) / unit.parameters
        for unit, gain, cost in zip(evaluator.units, gains, costs, strict=True)
    ]
    assert close(scores, expected)
    assert not close(scores, [float(gain.sum()) / u.parameters for u, gain in zip(evaluator.units, gains, strict=True)])
    assert max(float(gain.sum()) for gain in gains) > 0
    for unit, gain, cost in zip(evaluator.units, gains, costs, strict=True):
        each = (gain - price(cost)) / (unit.parameters / len(gain))
        assert close(importance.of_channels(unit).tolist(), each.tolist())
        some = cut(unit, range(1, len(gain), 2))
        part = float(gain[1::2].sum() - price(cost[1::2].sum())) / some.parameters
        assert importance.of((some,)) == pytest.approx(part, rel=1e-3, abs=1e-3 * float(each.abs().max()))


def test_components_share_out_what_their_module_gains(world: Path) -> None:
    """Add up all components: a gradient times the sum of the terms is the gradient times the difference."""
    by_channel, by_component = (
        open_evaluator(entry(world, search={"grain": grain, "rank": 999})) for grain in ("channel", "component")
    )
    refusal = usual_refusal(by_channel)
    questions = by_channel.questions.prior.harmful
    whole, shared = (
        contrast.margin_gains(one, questions, refusal, HARMFUL, ((), one.units)) for one in (by_channel, by_component)
    )
    for unit in by_component.units:
        assert len(shared[unit.module]) == unit.rank
        expected = float(whole[unit.module].sum())
        assert float(shared[unit.module].sum()) == pytest.approx(expected, rel=1e-2, abs=1e-4), unit.module


def test_norm_is_the_root_mean_square_of_the_difference(world: Path) -> None:
    """Compare with the tensors of both checkpoints."""
    evaluator = open_evaluator(entry(world, search={"prior": "norm"}))
    student, donor = Checkpoint(world / "student"), Checkpoint(world / "good")
    expected = [
        math.sqrt(
            sum(float((donor.tensor(n) - student.tensor(n)).square().sum()) for n in unit.tensors) / unit.parameters
        )
        for unit in evaluator.units
    ]
    assert importances(evaluator) == pytest.approx(expected, rel=1e-4)


def test_the_prior_sees_the_search_split_only(world: Path) -> None:
    """Check every question that it asks."""
    evaluator = open_evaluator(entry(world))
    seen: set[str] = set()
    answers = evaluator.answers

    def spy(units: Any, prompts: PromptSet, *rest: Any) -> Any:
        seen.update(prompts.texts)
        return answers(units, prompts, *rest)

    evaluator.answers = spy  # type: ignore[assignment, method-assign]
    Importance(evaluator)
    questions = evaluator.questions
    assert seen == {*questions.harmful.search.texts, *questions.harmless.search.texts}


def test_the_usual_refusal_ends_as_the_template_does(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the end token of the tokenizer, and another one of the chat template."""
    evaluator = open_evaluator(entry(world))
    refusal = usual_refusal(evaluator)
    assert refusal[-1] == evaluator.generator.tokenizer.eos_token_id
    monkeypatch.setattr(evaluator.generator.chat, "end", lambda _: 7)
    assert usual_refusal(evaluator) == [*refusal[:-1], 7]


def test_memory_that_ends_in_a_gradient_is_reported(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the advice."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 40 GiB")

    monkeypatch.setattr(torch.autograd, "backward", full)
    with pytest.raises(SourceError, match=r"while the prior takes gradients\. Use fewer workers .* takes no gradients"):
        Importance(open_evaluator(entry(world)))


def test_gradients_are_over_the_priors_own_questions(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the prior questions that the oracle does not ask."""
    over: list[PromptSet] = []

    def spy(evaluator: Evaluator, prompts: PromptSet, *_: Any) -> dict[str, torch.Tensor]:
        over.append(prompts)
        return {unit.module: torch.zeros(1) for unit in evaluator.units}

    monkeypatch.setattr(contrast, "margin_gains", spy)
    evaluator = open_evaluator(entry(world, search={"prior_questions": 4, "prior_harmless_questions": 2}))
    every = open_evaluator(entry(world)).questions
    Importance(evaluator)
    kinds = [every.harmful.search.texts[:4], every.harmless.search.texts[:2]]
    assert [prompts.texts for prompts in over] == 2 * kinds
    assert evaluator.questions.harmful.search.texts == every.harmful.search.texts[4:]
    assert evaluator.questions.harmless.search.texts == every.harmless.search.texts[2:]


def test_a_refusal_stands_behind_a_prefill_with_a_space(world: Path) -> None:
    """Compare the row of a question under a prefill with the text that the model would have generated."""
    evaluator = open_evaluator(entry(world))
    refusal = usual_refusal(evaluator)
    prompt = evaluator.questions.prior.harmful.prompts[0]
    begun = replace(prompt, conversation=Conversation((Turn("user", prompt.text),), "sure, take"))
    tokenizer = evaluator.generator.tokenizer
    plain, behind = (refusing(evaluator, one, refusal) for one in (prompt, begun))
    assert plain == (evaluator.generator.encode(prompt.text), refusal)
    words = tokenizer.decode(refusal[:-1]).strip()
    assert tokenizer.decode([*behind[0], *behind[1][:-1]]).endswith(f"sure, take {words}")
    assert behind[1][-1] == refusal[-1]


def test_an_own_opening_is_what_follows_a_prefill(world: Path) -> None:
    """Take the first tokens that the student generated, not those that it was given."""
    evaluator = open_evaluator(entry(world))
    prompts = evaluator.questions.prior.harmful.prompts
    asked = [replace(one, conversation=Conversation((Turn("user", one.text),), "sure,")) for one in prompts]
    begun = prompt_set("begun", asked)
    answers = evaluator.answers((), begun, Extent.UNTIL_REFUSAL_CLEAR)
    rows = own_answers(evaluator, begun, 3)
    for (_, own), answer in zip(rows, answers, strict=True):
        assert answer.answer.startswith("sure,")
        said = answer.answer.removeprefix("sure,")
        assert own == evaluator.generator.tokenizer(said, add_special_tokens=False)["input_ids"][:3]
