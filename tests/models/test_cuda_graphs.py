"""Passes replayed from a CUDA graph give what plain passes give. Without a GPU each replay runs its pass again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import safety_harness.models.decoding.batch
from safety_harness.errors import NotFinite
from safety_harness.models.decoding.cuda_graphs import (
    COLUMNS_PER_STEP,
    KEPT_PREFIX_GRAPHS,
    DecodeGraph,
    GraphCache,
    capturable,
)
from safety_harness.models.generate import Generator, Screen
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.speedups import Speedups
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, LONG, SHORT
from tests.models.answering import NEW, QUESTIONS, Pairs

SLIDING = ("mistral", "gemma2", "gemma3_text", "gemma3", "gemma3-today", "gpt_oss")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
# transformers' code for these makes a tensor on the CPU in the midst of a pass.
MOVES_TO_THE_GPU = ("falcon-grouped", "falcon-shared")
CAPTURED = [name for name in ARCHITECTURES if name not in (*SLIDING, *EXPERTS, "mpt")]


def generator(loaded: LoadedModel, graphs: GraphCache | None, batch_size: int = 7) -> Generator:
    """Return a generator without drafts, which replays its passes from *graphs* if there are any."""
    speedups = replace(Speedups.for_model(loaded.model), drafts=None, graphs=graphs)
    return Generator(loaded.model, loaded.tokenizer, batch_size=batch_size, speedups=speedups)


def endless(pairs: Pairs) -> LoadedModel:
    """Return a model whose answers never end before the limit."""
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.generation_config.eos_token_id = None
    return loaded


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_can_be_captured(pairs: Pairs, architecture: str) -> None:
    """Compare with the list of architectures above."""
    model = load(pairs(architecture, True)[0], "float32").model
    able = architecture in CAPTURED and not (model.device.type == "cuda" and architecture in MOVES_TO_THE_GPU)
    assert capturable(model) == able


def test_code_that_cannot_be_captured_is_found_out(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise what torch raises when a captured pass copies between CPU and GPU."""
    model = load(pairs("llama", True)[0], "float32").model

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")

    monkeypatch.setattr(model, "forward", refuse)
    assert not capturable(model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", CAPTURED)
def test_replayed_answers_are_those_of_plain_passes(pairs: Pairs, architecture: str, tied: bool) -> None:
    """Compare answers that end early and answers that do not, in one batch and in three."""
    loaded = load(pairs(architecture, tied)[0], "float32")
    if not capturable(loaded.model):
        pytest.skip("not on a GPU")
    stop = generator(loaded, None).encode(SHORT)[-1]
    for end in (None, stop):
        loaded.model.generation_config.eos_token_id = end
        plain = generator(loaded, None).answers(QUESTIONS, NEW)
        assert generator(loaded, GraphCache(loaded.model)).answers(QUESTIONS, NEW) == plain
        assert generator(loaded, GraphCache(loaded.model), batch_size=3).answers(QUESTIONS, NEW) == plain
        assert len(set(plain)) > 1


def test_a_common_beginning_is_read_from_a_graph(pairs: Pairs) -> None:
    """Ask twice, and again once a weight was changed in place."""
    loaded = endless(pairs)
    questions = [f"{LONG} {text}" for text in QUESTIONS]
    plain = generator(loaded, None).answers(questions, NEW)
    graphs = GraphCache(loaded.model)
    replayed = generator(loaded, graphs)
    assert replayed.answers(questions, NEW) == plain
    (prefix,) = graphs.prefix_graphs
    assert replayed.answers(questions, NEW) == plain
    assert len(prefix) > len(replayed.encode(LONG)) - 5
    layer = loaded.model.model.layers[0].mlp.up_proj
    with torch.inference_mode():
        layer.weight.mul_(3)
    changed = generator(loaded, None).answers(questions, NEW)
    assert replayed.answers(questions, NEW) == changed != plain


@pytest.mark.parametrize("replayed", [True, False])
def test_questions_that_differ_in_their_last_token_alone(pairs: Pairs, replayed: bool) -> None:
    """Read one token a row after the common beginning, as many as a decoding step reads."""
    loaded = endless(pairs)
    loaded.tokenizer.chat_template = None
    asked = generator(loaded, GraphCache(loaded.model) if replayed else None, batch_size=16)
    rows = {text: asked.encode(text) for text in (f"{LONG} {digit}" for digit in "0123456789")}
    questions = [text for text, row in rows.items() if len(row) == len(rows[f"{LONG} 0"])]
    assert len(questions) > 3
    assert asked.shared_prefix([rows[text] for text in questions], NEW) == len(rows[f"{LONG} 0"]) - 1
    alone = generator(loaded, None, batch_size=16)
    alone.speedups = replace(alone.speedups, min_prefill_tokens_saved=None)
    assert asked.answers(questions, NEW) == alone.answers(questions, NEW)


def test_rows_that_are_cut_off_change_no_other_row(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every other answer stop early, then all but one: graphs of seven, three and one row are replayed."""
    monkeypatch.setattr(safety_harness.models.decoding.batch, "MIN_GRAPH_ROWS", 1)
    loaded = endless(pairs)
    whole = generator(loaded, None).answers(QUESTIONS, NEW)
    for going in ({whole[0], whole[3]}, {whole[5]}):
        screen = Screen(3, lambda text, _begun, going=going: any(answer.startswith(text) for answer in going))
        plain = generator(loaded, None).answers(QUESTIONS, NEW, screen)
        graphs = GraphCache(loaded.model)
        graphs.max_bytes = 2**30
        assert generator(loaded, graphs).answers(QUESTIONS, NEW, screen) == plain
        assert len({rows for rows, _ in graphs.decode_graphs}) > 1
        assert plain != whole


def test_one_graph_serves_all_patches_written_in_place(pairs: Pairs) -> None:
    """Put two patches into a model and take them out again."""
    student, teacher = (Checkpoint(folder) for folder in pairs("llama", True))
    loaded = endless(pairs)
    units = enumerate_units(student.config, student.shapes, None)
    transplanter = Transplanter(loaded.model, teacher)
    graphs = GraphCache(loaded.model)
    replayed, plain = generator(loaded, graphs), generator(loaded, None)
    made: list[DecodeGraph] = []
    different = set()
    for patch in ((), some_channels(units), (), some_channels(units[2:])):
        with transplanter.transplanted(patch):
            answers = replayed.answers(QUESTIONS, NEW)
            assert answers == plain.answers(QUESTIONS, NEW)
        different.add(tuple(answers))
        made += [graph for graph in graphs.decode_graphs.values() if graph not in made]
    assert len(different) == 3
    assert len(made) == 1


def some_channels(units: Any) -> tuple[Unit, ...]:
    """Return the first half of every unit."""
    return tuple(cut(unit, range(unit.width // 2)) for unit in units)


def test_weights_that_lie_elsewhere_need_new_graphs(pairs: Pairs) -> None:
    """Move one weight to another address."""
    model = load(pairs("llama", True)[0], "float32").model
    graphs = GraphCache(model)
    with torch.inference_mode():
        first = graphs.decode_graph(2, 1)
        assert graphs.decode_graph(2, COLUMNS_PER_STEP) is first
        assert graphs.decode_graph(2, COLUMNS_PER_STEP + 1) is not first
        weight = next(model.parameters())
        weight.data = weight.data.clone()
        assert graphs.decode_graph(2, COLUMNS_PER_STEP) is not first


def test_graphs_are_made_once_and_the_last_used_are_kept(pairs: Pairs) -> None:
    """Ask for more graphs than there are bytes for, and for more prefixes than are kept."""
    model = load(pairs("llama", True)[0], "float32").model
    graphs = GraphCache(model)
    with torch.inference_mode():
        first = graphs.decode_graph(8, 1)
        graphs.max_bytes = 10 * first.nbytes
        shapes = [(8, 1), (4, 1), (8, 2 * COLUMNS_PER_STEP), (4, 2 * COLUMNS_PER_STEP)]
        made = [graphs.decode_graph(*shape) for shape in shapes]
        assert [graphs.decode_graph(*shape) for shape in shapes] == made
        graphs.max_bytes = first.nbytes
        assert graphs.decode_graph(8, 1) is first
        assert list(graphs.decode_graphs) == [(8, COLUMNS_PER_STEP)]
        for number in range(2 * KEPT_PREFIX_GRAPHS):
            assert graphs.prefix_graph([5, number]) is graphs.prefix_graph([5, number])
        assert len(graphs.prefix_graphs) == KEPT_PREFIX_GRAPHS
        assert graphs.forget()
        assert not graphs.forget()


def test_a_batch_that_ends_row_by_row_makes_few_graphs(pairs: Pairs) -> None:
    """Cut off all but one of four answers after three tokens, and let one of the remaining go on to the end."""
    loaded = endless(pairs)
    many = [f"{SHORT} {number}" for number in range(32)]
    whole = generator(loaded, None, 32).answers(many, NEW)
    graphs = GraphCache(loaded.model)
    graphs.max_bytes = 2**30
    replayed = generator(loaded, graphs, 32)
    going = {whole[at][:12] for at in range(0, 32, 4)}
    screen = Screen(3, lambda text, _begun: any(start.startswith(text) for start in going))
    plain = generator(loaded, None, 32).answers(many, NEW, screen)
    made: list[DecodeGraph] = []
    for _ in range(3):
        assert replayed.answers(many, NEW, screen) == plain
        made += [graph for graph in graphs.decode_graphs.values() if graph not in made]
    assert len(made) <= 3


def test_a_nan_that_was_left_behind_does_not_spread(pairs: Pairs) -> None:
    """Leave NaNs in a graph's cache: by a pass of spoilt weights, and by hand."""
    loaded = load(pairs("llama", True)[0], "float32")
    graphs = GraphCache(loaded.model)
    replayed = generator(loaded, graphs)
    before = replayed.answers(QUESTIONS, NEW)
    weight = loaded.model.model.layers[1].mlp.up_proj.weight
    with torch.inference_mode():
        kept = weight.clone()
        weight.fill_(float("nan"))
        with pytest.raises(NotFinite):
            replayed.answers(QUESTIONS, NEW)
        weight.copy_(kept)
        for graph in graphs.decode_graphs.values():
            for layer in graph.cache.layers:
                layer.values.fill_(float("nan"))
    assert replayed.answers(QUESTIONS, NEW) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures on a GPU alone")
def test_on_a_gpu_a_pass_is_captured(pairs: Pairs) -> None:
    """Check that a graph is a real one, and that bfloat16 models get graphs by themselves."""
    loaded = load(pairs("llama", True)[0], "bfloat16")
    with torch.inference_mode():
        assert DecodeGraph(loaded.model, 2, COLUMNS_PER_STEP).captured
    assert Speedups.for_model(loaded.model).graphs is not None
