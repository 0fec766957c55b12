"""Gains are sums of whole gradients times what moves, and no gradient is held for longer than it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.models.decoding.lengths import padding_limit
from safety_harness.models.transplant import channels_of
from safety_harness.search.priors.gradients import HARMFUL, Row, by_channel, gains, logprob
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, make_pair
from tests.live_bytes import LiveBytes
from tests.refusal_world import HARMFUL as QUESTIONS
from tests.refusal_world import entry

Pairs = Callable[[str, bool], tuple[Path, Path]]


def rows(evaluator: Evaluator, count: int) -> list[Row]:
    """Return questions, each with a refusal of five tokens."""
    return [(evaluator.generator.encode(text), [7 + at, 8, 9, 10, 11]) for at, text in enumerate(QUESTIONS[:count])]


def pieces(evaluator: Evaluator, asked: Sequence[Row]) -> Iterator[torch.Tensor]:
    """Yield the log-probabilities of all answers, two rows at a time."""
    for at in range(0, len(asked), 2):
        yield logprob(evaluator, asked[at : at + 2], HARMFUL).sum()


def by_whole_gradients(evaluator: Evaluator, moved: Sequence[Unit], asked: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Return the gains by gradients of the whole sum, all held at once, and differences that were taken before."""
    differences = {
        unit.module: [evaluator.transplanter.difference(part) for part in unit.parts] for unit in evaluator.units
    }
    parameters = dict(evaluator.generator.model.named_parameters())
    names = sorted({part.memory.name for unit in evaluator.units for part in unit.parts})
    with evaluator.transplanter.transplanted(moved):
        total = torch.stack(list(pieces(evaluator, asked))).sum()
        gradient = dict(zip(names, torch.autograd.grad(total, [parameters[name] for name in names]), strict=True))
    return {
        unit.module: sum(
            (
                by_channel(unit, part, difference * channels_of(gradient[part.memory.name], part.memory))
                for part, difference in zip(unit.parts, differences[unit.module], strict=True)
            ),
            torch.zeros(unit.width),
        )
        for unit in evaluator.units
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gains_are_those_of_whole_gradients(pairs: Pairs, world: Path, architecture: str) -> None:
    """Compare at the student, with all units moved, and with some units and parts of others; and look for traces.

    Rows share a beginning where that is possible, so a parameter has a gradient of each of two passes.
    """
    student, teacher = pairs(architecture, True)
    evaluator = open_evaluator(entry(world, student=str(student), teacher=str(teacher)))
    generator = evaluator.generator
    generator.speedups = replace(generator.speedups, min_prefill_tokens_saved=0)
    parameters, before = dict(generator.model.named_parameters()), generator.model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    asked, units = rows(evaluator, 5), evaluator.units
    together = generator.shared_prefix([question for question, _ in asked], 0)
    assert (together > 0) == (padding_limit(generator.config) is None)
    some = [*units[::3], *(cut(unit, range(0, unit.width, 2)) for unit in units[1::3] if unit.width > 1)]
    for moved in ((), units, some):
        expected = by_whole_gradients(evaluator, moved, asked)
        gained = gains(evaluator, moved, pieces(evaluator, asked))
        assert gained.keys() == expected.keys()
        scale = max(float(gain.abs().max()) for gain in expected.values())
        for module, gain in gained.items():
            torch.testing.assert_close(gain, expected[module], rtol=1e-4, atol=1e-5 * scale)
    now = dict(generator.model.named_parameters())
    assert all(now[name] is parameter and parameter.grad is None for name, parameter in parameters.items())
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.model.state_dict().items())
    assert not generator.model._forward_pre_hooks


@pytest.mark.parametrize("shared", [0, None])
def test_no_more_than_a_few_gradients_are_held(tmp_path: Path, world: Path, shared: int | None) -> None:
    """Count bytes a movable number next to both models: all gradients in float32, and their sum, would take eight."""
    sizes = {"hidden_size": 384, "intermediate_size": 768, "num_hidden_layers": 8, "head_dim": 96}
    student, teacher = make_pair(tmp_path, "llama", **sizes)
    evaluator = open_evaluator(entry(world, student=str(student), teacher=str(teacher)))
    generator = evaluator.generator
    generator.speedups = replace(generator.speedups, min_prefill_tokens_saved=shared)
    asked = rows(evaluator, 2)
    with evaluator.transplanter.transplanted(evaluator.units):  # reads the teacher
        pass
    movable = sum(unit.parameters for unit in evaluator.units)
    held = {}
    for name, way in (
        ("sums", lambda moved: gains(evaluator, moved, pieces(evaluator, asked))),
        ("whole", lambda moved: by_whole_gradients(evaluator, moved, asked)),
    ):
        with LiveBytes() as live:
            way(evaluator.units)
        held[name] = live.most / movable
    assert held["sums"] < 2
    assert held["whole"] > 8
