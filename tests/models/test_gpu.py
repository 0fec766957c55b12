"""On a GPU the harness says what it says on the CPU (`make gpu`; skipped where there is none, or unasked)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import safety_harness.models.load
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.models.decoding.cuda_graphs import GraphCache, recordable
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import text_scores
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.transplant import Transplanter
from safety_harness.search.find import search
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, LONG, SHORT
from tests.refusal_world import entry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not asked for one (make gpu)")

Pairs = Callable[[str, bool], tuple[Path, Path]]
SYSTEM = "the capital of france is what ? " * 4
QUESTIONS = [SYSTEM + text for text in (LONG, SHORT, "what ?", "3 plus 4", "i", LONG[::-1][:40])]
NEW = 14


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Does something as on a machine without a GPU."""

    def do(what: Callable[[], Any]) -> Any:
        with monkeypatch.context() as hidden:
            hidden.setattr(safety_harness.models.load.torch.cuda, "is_available", lambda: False)
            return what()

    return do


def generator(loaded: LoadedModel, recorded: bool | None = None) -> Generator:
    """As it is made; or without guesses, its passes played from recordings or not."""
    made = Generator(loaded.model, loaded.tokenizer, batch_size=4)
    if recorded is not None:
        made._drafts = None
        made._recordings = GraphCache(loaded.model) if recorded else None
    return made


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_the_cpu(pairs: Pairs, cpu: Any, architecture: str, tied: bool) -> None:
    folder = pairs(architecture, tied)[0]
    there = load(folder, "float32")
    assert there.model.device.type == "cuda"
    expected = generator(cpu(lambda: load(folder, "float32"))).answers(QUESTIONS, NEW)
    assert generator(there).answers(QUESTIONS, NEW) == expected
    assert generator(there, False).answers(QUESTIONS, NEW) == expected
    if recordable(there.model):
        recorded = generator(there, True)
        assert recorded.answers(QUESTIONS, NEW) == expected
        assert recorded.answers(QUESTIONS, NEW) == expected
        assert recorded._recordings is not None
        assert all(one._graph is not None for one in recorded._recordings._made.values())
        assert recorded._recordings._beginnings


def test_in_bfloat16_passes_are_recorded_unasked(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "bfloat16")
    assert generator(loaded)._recordings is not None
    assert generator(loaded).answers(QUESTIONS, NEW) == generator(loaded, False).answers(QUESTIONS, NEW)


def patches(units: Sequence[Unit]) -> list[Sequence[Unit]]:
    return [(), units, units[::3], [cut(unit, range(unit.width // 2)) for unit in units if unit.width > 1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_transplant_is_bit_for_bit_that_of_the_cpu_and_moves_no_weight(
    pairs: Pairs, cpu: Any, architecture: str
) -> None:
    student, teacher = (Checkpoint(folder) for folder in pairs(architecture, True))
    here, there = cpu(lambda: load(student.folder, "bfloat16")).model, load(student.folder, "bfloat16").model
    units = enumerate_units(student.config, student.shapes, None)
    where = [parameter.data_ptr() for parameter in there.parameters()]
    ours, theirs = Transplanter(here, teacher), Transplanter(there, teacher)
    for patch in patches(units):
        with ours.transplanted(patch), theirs.transplanted(patch):
            assert_alike(here, there)
            assert [parameter.data_ptr() for parameter in there.parameters()] == where
        assert_alike(here, there)


def assert_alike(here: Any, there: Any) -> None:
    own = here.state_dict()
    assert all(torch.equal(own[name], tensor.cpu()) for name, tensor in there.state_dict().items())


def test_a_patched_model_plays_the_recordings_of_the_student(pairs: Pairs) -> None:
    student, teacher = (Checkpoint(folder) for folder in pairs("llama", True))
    loaded = load(student.folder, "float32")
    units = enumerate_units(student.config, student.shapes, None)
    recorded, plain = generator(loaded, True), generator(loaded, False)
    assert recorded._recordings is not None
    transplanter = Transplanter(loaded.model, teacher)
    said, made = set(), set()
    for patch in patches(units):
        with transplanter.transplanted(patch):
            answers = recorded.answers(QUESTIONS, NEW)
            assert answers == plain.answers(QUESTIONS, NEW)
        said.add(tuple(answers))
        made |= set(map(id, recorded._recordings._made.values()))
    assert len(said) > 2
    assert made == set(map(id, recorded._recordings._made.values()))


def test_text_is_scored_as_on_the_cpu(pairs: Pairs, cpu: Any) -> None:
    folder = pairs("llama", True)[0]
    here, there = generator(cpu(lambda: load(folder, "float32"))), generator(load(folder, "float32"))
    expected, found = text_scores(here, QUESTIONS), text_scores(there, QUESTIONS)
    assert [score.tokens for score in found] == [score.tokens for score in expected]
    assert [score.nll for score in found] == pytest.approx([score.nll for score in expected], rel=1e-4)


def test_memory_that_runs_out_halves_the_batch(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=64)
    few = generator(loaded).answers(QUESTIONS, NEW)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + 6 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.warns(UserWarning, match="Out of memory with .* questions at once"):
            answers = asked.answers([f"{text} {number}" for number in range(60) for text in QUESTIONS], NEW)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert asked.batch_size < 64
    assert len(answers) == 60 * len(few)


def test_a_search_ends_where_it_ends_on_the_cpu(world: Path, cpu: Any) -> None:
    here, there = cpu(lambda: open_evaluator(entry(world))), open_evaluator(entry(world))
    assert Oracle(there).refused_whole == Oracle(here).refused_whole
    one, other = cpu(lambda: search(here, "test")), search(there, "test")
    assert one.found
    assert (other.units, other.probes) == (one.units, one.probes)
