"""On a GPU the harness gives the results of the CPU (`make gpu`; skipped without a GPU, or without that command)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

import safety_harness.models.load
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.models.decoding.cuda_graphs import GraphCache, capturable
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import answer_logprobs, text_scores
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.speedups import Speedups
from safety_harness.models.spread import spans_devices
from safety_harness.models.transplant import Transplanter
from safety_harness.search.priors import Importance
from safety_harness.search.reduce import search
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, LONG, SHORT, placed
from tests.refusal_world import entry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not asked for one (make gpu)")

Pairs = Callable[[str, bool], tuple[Path, Path]]
SYSTEM = "the capital of france is what ? " * 4
QUESTIONS = [SYSTEM + text for text in (LONG, SHORT, "what ?", "3 plus 4", "i", LONG[::-1][:40])]
NEW = 14


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Do something as on a machine without a GPU."""

    def do(what: Callable[[], Any]) -> Any:
        with monkeypatch.context() as hidden:
            hidden.setattr(safety_harness.models.load.torch.cuda, "is_available", lambda: False)
            return what()

    return do


def generator(loaded: LoadedModel, speedups: Speedups | None = None) -> Generator:
    """Return a generator of these speedups, or of those that the model gets by itself."""
    return Generator(loaded.model, loaded.tokenizer, batch_size=4, speedups=speedups)


def without_drafts(loaded: LoadedModel, graphs: GraphCache | None) -> Generator:
    """Return a generator without drafts, which replays its passes from *graphs* if there are any."""
    return generator(loaded, replace(Speedups.for_model(loaded.model), drafts=None, graphs=graphs))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_the_cpu(pairs: Pairs, cpu: Any, architecture: str, tied: bool) -> None:
    """Compare the answers with drafts, without, and replayed from CUDA graphs."""
    folder = pairs(architecture, tied)[0]
    there = load(folder, "float32")
    assert there.model.device.type == "cuda"
    expected = generator(cpu(lambda: load(folder, "float32"))).answers(QUESTIONS, NEW)
    assert generator(there).answers(QUESTIONS, NEW) == expected
    assert without_drafts(there, None).answers(QUESTIONS, NEW) == expected
    if capturable(there.model):
        graphs = GraphCache(there.model)
        replayed = without_drafts(there, graphs)
        assert replayed.answers(QUESTIONS, NEW) == expected
        assert replayed.answers(QUESTIONS, NEW) == expected
        assert all(graph.captured for graph in graphs.decode_graphs.values())
        assert graphs.prefix_graphs


def test_in_bfloat16_passes_are_captured_by_default(pairs: Pairs) -> None:
    """Compare the answers of a bfloat16 model's own speedups with those of plain passes."""
    loaded = load(pairs("llama", True)[0], "bfloat16")
    speedups = Speedups.for_model(loaded.model)
    assert speedups.graphs is not None
    assert generator(loaded, speedups).answers(QUESTIONS, NEW) == without_drafts(loaded, None).answers(QUESTIONS, NEW)


def patches(units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """Return no unit, all units, some units, and half of every unit."""
    return [(), units, units[::3], [cut(unit, range(unit.width // 2)) for unit in units if unit.width > 1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_transplant_is_that_of_the_cpu_and_moves_no_weight(pairs: Pairs, cpu: Any, architecture: str) -> None:
    """Compare all weights bit for bit, and their addresses on the GPU."""
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
    """Check that two models hold the same numbers."""
    state = here.state_dict()
    assert all(torch.equal(state[name], tensor.cpu()) for name, tensor in there.state_dict().items())


def test_a_patched_model_replays_the_graphs_of_the_student(pairs: Pairs) -> None:
    """Put patches in and take them out: the graphs stay valid, and no further graph is made."""
    student, teacher = (Checkpoint(folder) for folder in pairs("llama", True))
    loaded = load(student.folder, "float32")
    units = enumerate_units(student.config, student.shapes, None)
    graphs = GraphCache(loaded.model)
    replayed, plain = without_drafts(loaded, graphs), without_drafts(loaded, None)
    transplanter = Transplanter(loaded.model, teacher)
    different, made = set(), set()
    for patch in patches(units):
        with transplanter.transplanted(patch):
            answers = replayed.answers(QUESTIONS, NEW)
            assert answers == plain.answers(QUESTIONS, NEW)
        different.add(tuple(answers))
        made |= set(map(id, graphs.decode_graphs.values()))
    assert len(different) > 2
    assert made == set(map(id, graphs.decode_graphs.values()))


def over_two_devices(model: Any) -> Any:
    """Spread *model*: up to its first layer on one GPU, or on the CPU if there is one GPU; the rest on another."""
    first, then = (0, 1) if torch.cuda.device_count() > 1 else ("cpu", 0)
    return dispatch_model(model, placed(model, first, then), main_device=first)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "phi3", "mixtral"])
def test_a_model_over_two_devices_answers_as_on_the_cpu(pairs: Pairs, cpu: Any, architecture: str) -> None:
    """Compare answers, scores and weights with units in both models; there is nothing of CUDA graphs."""
    student, teacher = (Checkpoint(folder) for folder in pairs(architecture, False))
    here, there = (cpu(lambda: load(student.folder, "float32")) for _ in range(2))
    over_two_devices(there.model)
    assert spans_devices(there.model)
    units = enumerate_units(student.config, student.shapes, None)
    expected, asked = generator(here), generator(there)
    assert asked.speedups.graphs is None
    ours, theirs = Transplanter(there.model, teacher), Transplanter(here.model, teacher)
    for patch in patches(units):
        with ours.transplanted(patch), theirs.transplanted(patch):
            assert_alike(here.model, there.model)
            answers = expected.answers(QUESTIONS, NEW)
            assert asked.answers(QUESTIONS, NEW) == answers
            scores = zip(*(answer_logprobs(one, QUESTIONS, answers) for one in (expected, asked)), strict=True)
            for one, other in scores:
                torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-4)
        assert_alike(here.model, there.model)


def test_a_prior_over_two_devices_is_that_of_the_cpu(world: Path, cpu: Any) -> None:
    """Compare the scores of all channels, and the search that they lead to."""
    here, there = (cpu(lambda: open_evaluator(entry(world))) for _ in range(2))
    over_two_devices(there.generator.model)
    ours, theirs = Importance(there), Importance(here)
    for unit in here.units:
        expected = theirs.of_channels(unit)
        torch.testing.assert_close(ours.of_channels(unit), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    assert search(there, "test").units == search(here, "test").units


def test_auto_puts_a_small_model_on_one_gpu(pairs: Pairs, cpu: Any) -> None:
    """Load by a device map, and compare answers; on a machine with several GPUs it may lie on all of them."""
    folder = pairs("llama", False)[0]
    spread_out = load(folder, "float32", device_map="auto")
    assert {parameter.device.type for parameter in spread_out.model.parameters()} == {"cuda"}
    expected = generator(cpu(lambda: load(folder, "float32"))).answers(QUESTIONS, NEW)
    assert generator(spread_out).answers(QUESTIONS, NEW) == expected


def test_text_is_scored_as_on_the_cpu(pairs: Pairs, cpu: Any) -> None:
    """Compare token counts and likelihoods."""
    folder = pairs("llama", True)[0]
    here, there = generator(cpu(lambda: load(folder, "float32"))), generator(load(folder, "float32"))
    expected, scores = text_scores(here, QUESTIONS), text_scores(there, QUESTIONS)
    assert [score.tokens for score in scores] == [score.tokens for score in expected]
    assert [score.nll for score in scores] == pytest.approx([score.nll for score in expected], rel=1e-4)


def test_memory_that_runs_out_halves_the_batch(pairs: Pairs) -> None:
    """Leave the process 6 MiB beyond what it holds."""
    loaded = load(pairs("llama", True)[0], "float32")
    asked = Generator(loaded.model, loaded.tokenizer, batch_size=64)
    few = generator(loaded).answers(QUESTIONS, NEW)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + 6 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        with pytest.warns(UserWarning, match="Out of memory with .* questions at once"):
            answers = asked.answers([f"{text} {number}" for number in range(60) for text in QUESTIONS], NEW)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert asked.batch_size < 64
    assert len(answers) == 60 * len(few)


def test_a_search_ends_where_it_ends_on_the_cpu(world: Path, cpu: Any) -> None:
    """Compare the units that a whole search finds, and its number of probes."""
    here, there = cpu(lambda: open_evaluator(entry(world))), open_evaluator(entry(world))
    assert Oracle(there).refused_whole == Oracle(here).refused_whole
    on_cpu, on_gpu = cpu(lambda: search(here, "test")), search(there, "test")
    assert on_cpu.found
    assert (on_gpu.units, on_gpu.probes) == (on_cpu.units, on_cpu.probes)
