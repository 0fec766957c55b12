"""What is taken over of another candidate's reading are the numbers that reading anew would give, bit for bit."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.models.decoding.batch import DecodingBatch
from safety_harness.models.decoding.cuda_graphs import GraphCache
from safety_harness.models.decoding.prefill_cache import KEPT, Readings, layers_of, size
from safety_harness.models.generate import Generator
from safety_harness.models.load import load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, LAYERS, LONG, SHORT, make_model, make_tokenizer, save
from tests.refusal_world import entry

Pairs = Callable[[str, bool], tuple[Path, Path]]
SYSTEM = "the capital of france is what ? " * 4
QUESTIONS = [SYSTEM + text for text in (LONG, SHORT, "what ?", "3 plus 4", "i", LONG[::-1][:40])]
NEW = 6


def inside(units: Sequence[Unit]) -> list[Hashable]:
    held: dict[int, set[Unit]] = defaultdict(set)
    for unit in units:
        held[unit.layer].add(unit)
    return [frozenset(held[layer]) for layer in range(LAYERS)]


def candidates(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    """Sets of units and parts of units, each a few layers from the last, some of them repeated."""
    chance = random.Random(count)
    found: list[list[Unit]] = [[]]
    for _ in range(count):
        layers = chance.sample(range(LAYERS), chance.randint(1, 2))
        kept = [unit for unit in chance.choice(found) if unit.layer not in layers]
        new = [unit for unit in units if unit.layer in layers and chance.random() < 0.6]
        found.append(kept + [cut(unit, range(unit.width // 2)) if unit.width > 1 else unit for unit in new])
    return found + found[::3]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_reading_all_anew(pairs: Pairs, architecture: str, dtype: str) -> None:
    student, teacher = (Checkpoint(folder) for folder in pairs(architecture, True))
    loaded = load(student.folder, dtype)
    loaded.model.generation_config.eos_token_id = None
    transplanter = Transplanter(loaded.model, teacher)
    again, anew = (Generator(loaded.model, loaded.tokenizer, batch_size=4) for _ in range(2))
    again._drafts = anew._drafts = None  # a guess is part of what is read
    states: list[torch.Tensor] = []
    loaded.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: states.append(given[0].clone()))
    units = enumerate_units(student.config, student.shapes, None)
    said = set()
    for patch in candidates(units, 8):
        with transplanter.transplanted(patch):
            states.clear()
            expected = anew.answers(QUESTIONS, NEW)
            bits = list(states)
            states.clear()
            assert again.answers(QUESTIONS, NEW, None, inside(patch)) == expected
            assert all(map(torch.equal, states, bits))
        said.add(float(bits[0].float().sum()))
    assert len(said) > 3
    assert again._readings.taken > 3
    assert "forward" not in vars(layers_of(loaded.model)[0])


def test_what_lies_above_the_lowest_change_is_run(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    ran: list[int] = []
    for at, layer in enumerate(layers_of(loaded.model)):
        layer.mlp.register_forward_pre_hook(lambda _module, _given, at=at: ran.append(at))
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    asked._drafts = None

    def layers(*inside: Hashable) -> list[int]:
        ran.clear()
        asked.answers(QUESTIONS, 1, None, inside)
        return ran[LAYERS:]  # after what all questions begin with, which is read anew

    assert layers(0, 0, 0) == [0, 1, 2]
    assert layers(0, 0, 1) == [2]
    assert layers(0, 1, 1) == [1, 2]
    assert layers(1, 1, 1) == [0, 1, 2]
    assert layers(0, 1, 0) == [2]
    asked.answers(QUESTIONS[1:], 1, None, (0, 0, 0))
    assert layers(0, 1, 0) == []


def test_no_more_is_kept_than_so_many_bytes(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    asked._drafts = None
    asked.answers(QUESTIONS, 1, None, (0, 0, 0))
    one = size(asked._readings._kept.values())
    asked.answers(QUESTIONS, 1, None, (0, 0, 1))
    layer = size(asked._readings._kept.values()) - one
    assert layer == pytest.approx(one / LAYERS)
    asked._readings.most = one + layer
    for inside in range(2, 7):
        asked.answers(QUESTIONS, 1, None, (0, 0, inside))
        asked.answers(QUESTIONS, 1, None, (0, 0, 0))  # lately used, so it stays
    assert [key[1][-1] for key in asked._readings._kept] == [6, 0]


def test_no_more_readings_of_a_batch_are_kept_than_so_many(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    asked._drafts = None
    asked.answers(QUESTIONS[:2], 1, None, (0, 0, 0))
    for inside in range(2 * KEPT):
        asked.answers(QUESTIONS, 1, None, (0, 0, inside))
    last = list(range(KEPT, 2 * KEPT))
    assert [key[1][-1] for key in asked._readings._kept] == [0, *last]


def test_what_takes_more_room_than_all_may_is_not_kept(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "bfloat16")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    asked._readings.most = 1000
    asked.answers(QUESTIONS, 1, None, (0, 0, 0))
    assert not asked._readings._kept


def test_numbers_are_the_same_however_wide_the_first_pass(tmp_path: Path) -> None:
    """Weights are packed for the rows of the first pass; layers that are taken over have theirs in a later one."""
    model = make_model("llama", hidden_size=256, intermediate_size=512, head_dim=64, initializer_range=0.1)
    folder = save(model, make_tokenizer(template=False), tmp_path / "wide")
    loaded = load(folder, "bfloat16")
    loaded.model.generation_config.eos_token_id = None
    asked, anew = (Generator(loaded.model, loaded.tokenizer, batch_size=4) for _ in range(2))
    for inside in ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2)):
        assert asked.answers(QUESTIONS[::2], NEW, None, inside) == anew.answers(QUESTIONS[::2], NEW)
    assert asked._readings.taken


def test_a_pass_that_fails_is_not_kept(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    broken = layers_of(loaded.model)[1].register_forward_hook(raise_it)
    with pytest.raises(ValueError, match="broken"):
        asked.answers(QUESTIONS, 1, None, (0, 0, 0))
    broken.remove()
    assert not asked._readings._kept
    assert all("forward" not in vars(layer) for layer in layers_of(loaded.model))


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_memory_that_keeps_running_out_halves_the_batch(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    """In whichever pass; what was kept of the one before is let go of once and not kept again."""
    loaded = load(pairs("llama", True)[0], "bfloat16")
    loaded.model.generation_config.eos_token_id = None
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=len(QUESTIONS))
    asked.answers(QUESTIONS, NEW, None, (0, 0, 0))
    read = DecodingBatch.read
    done: dict[DecodingBatch, int] = {}

    def scarce(self: DecodingBatch, unread: Any, guesses: Any) -> Any:
        done[self] = done.get(self, 0) + 1
        if done[self] == passes and len(unread) > 3:
            raise torch.OutOfMemoryError("tried to allocate 40 GiB")
        return read(self, unread, guesses)

    monkeypatch.setattr(DecodingBatch, "read", scarce)
    with pytest.warns(UserWarning, match="Out of memory with 6 questions at once; going on with 3"):
        answers = asked.answers(QUESTIONS, NEW, None, (0, 0, 1))
    assert len(answers) == len(QUESTIONS)
    assert len(done) == 4


def test_memory_that_runs_out_takes_the_readings_before_the_batch(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(pairs("llama", True)[0], "bfloat16")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=8)
    expected = asked.answers(QUESTIONS, NEW, None, (0, 0, 0))
    decode = Generator._decode

    def scarce(self: Generator, *given: Any) -> list[list[int]]:
        if self._readings._kept:
            raise torch.OutOfMemoryError("tried to allocate 40 GiB")
        return decode(self, *given)

    monkeypatch.setattr(Generator, "_decode", scarce)
    assert asked.answers(QUESTIONS, NEW, None, (0, 0, 0)) == expected
    assert asked.batch_size == 8


@pytest.mark.parametrize("recorded", [True, False])
def test_questions_that_differ_in_their_last_token_alone(pairs: Pairs, recorded: bool) -> None:
    """All that is left to read is one token a row, as in a pass that is played."""
    loaded = load(pairs("llama", True)[0], "bfloat16")
    loaded.model.generation_config.eos_token_id = None
    loaded.tokenizer.chat_template = None
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=16)
    questions = [f"{LONG} {digit}" for digit in "0123456789"]
    questions = [text for text in questions if len(asked.encode(text)) == len(asked.encode(questions[0]))]
    assert asked._shared([asked.encode(text) for text in questions], NEW) == len(asked.encode(questions[0])) - 1
    if recorded:
        asked._recordings = GraphCache(loaded.model)
    expected = Generator(loaded.model, loaded.tokenizer, batch_size=16).answers(questions, NEW)
    for last in (0, 1, 0):
        assert asked.answers(questions, NEW, None, (0, 0, last)) == expected
    assert asked._readings.taken == 2 + 3


def raise_it(*_: Any) -> None:
    raise ValueError("broken")


def test_a_bench_tells_what_is_inside_of_whose(world: Path) -> None:
    evaluator = open_evaluator(entry(world, dtype="bfloat16"))
    other = evaluator.with_donor(Checkpoint(world / "prudish"))
    units = [unit for unit in evaluator.units if unit.layer == 1]
    assert evaluator._inside(()) == other._inside(())
    assert evaluator._inside(units) == evaluator._inside(units[::-1])
    assert evaluator._inside(units)[0] == evaluator._inside(())[0]
    assert evaluator._inside(units)[1] != other._inside(units)[1]
    assert evaluator._inside(units)[1] != evaluator._inside(units[1:])[1]
    taken = evaluator.generator._readings.taken
    for _ in range(2):
        evaluator.forget()
        evaluator.asked(units, evaluator.questions.harmful.search)
    assert evaluator.generator._readings.taken == taken
    half = [cut(units[0], range(units[0].width // 2)), *units[1:]]
    assert evaluator._inside(units)[1] != evaluator._inside(half)[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bench_measures_what_one_without_readings_measures(
    world: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> tuple[list[Any], Evaluator]:
        evaluator = open_evaluator(entry(world, dtype=dtype))
        found = []
        for layer in (0, 1, 2):
            units = [unit for unit in evaluator.units if unit.layer >= layer]
            found += [evaluator.screened(units, evaluator.questions.harmful.search)]
            found += [evaluator.glimpsed(units, evaluator.questions.harmless.search)]
            found += [evaluator.asked(units, evaluator.questions.harmful.report)]
        return found, evaluator

    found, evaluator = measured()
    assert bool(evaluator.generator._readings.taken) == (dtype == "bfloat16")
    monkeypatch.setattr(Readings, "_nearest", lambda *_: (None, 0))
    expected, _ = measured()
    assert found == expected
