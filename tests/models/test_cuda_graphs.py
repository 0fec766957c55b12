"""Passes played from a recording say what passes made anew say. Without a GPU the same runs, made anew each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import safety_harness.models.decoding.batch
from safety_harness.errors import NotFinite
from safety_harness.models.decoding.cuda_graphs import COLUMNS, KEPT, GraphCache, Recording, recordable
from safety_harness.models.generate import Generator, Screen
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, LONG, SHORT

Pairs = Callable[[str, bool], tuple[Path, Path]]
QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", f"{SHORT} {SHORT}", "i", LONG[::-1][:40]]
NEW = 14
SLIDING = ("mistral", "gemma2", "gemma3_text", "gemma3", "gpt_oss")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
# transformers' code for these makes a tensor on the CPU in the midst of a pass.
MOVES_TO_THE_GPU = ("falcon-grouped", "falcon-shared")
RECORDED = [name for name in ARCHITECTURES if name not in (*SLIDING, *EXPERTS, "mpt")]


def generator(loaded: LoadedModel, recorded: bool, batch_size: int = 7) -> Generator:
    """One that plays its passes from recordings, or makes each; no guesses either way."""
    made = Generator(loaded.model, loaded.tokenizer, batch_size=batch_size)
    made._drafts = None
    made._recordings = GraphCache(loaded.model) if recorded else None
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_can_be_recorded(pairs: Pairs, architecture: str) -> None:
    model = load(pairs(architecture, True)[0], "float32").model
    able = architecture in RECORDED and not (model.device.type == "cuda" and architecture in MOVES_TO_THE_GPU)
    assert recordable(model) == able


def test_code_that_cannot_be_recorded_is_not(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(pairs("llama", True)[0], "float32").model

    def refuse(*_: Any) -> None:
        raise RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")

    monkeypatch.setattr(Recording, "_pass", refuse)
    assert not recordable(model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", RECORDED)
def test_answers_are_those_of_passes_made_anew(pairs: Pairs, architecture: str, tied: bool) -> None:
    loaded = load(pairs(architecture, tied)[0], "float32")
    if not recordable(loaded.model):
        pytest.skip("not on a GPU")
    stop = generator(loaded, False).encode(SHORT)[-1]
    for end in (None, stop):
        loaded.model.generation_config.eos_token_id = end
        plain = generator(loaded, False).answers(QUESTIONS, NEW)
        assert generator(loaded, True).answers(QUESTIONS, NEW) == plain
        assert generator(loaded, True, batch_size=3).answers(QUESTIONS, NEW) == plain
        assert len(set(plain)) > 1


def test_what_all_questions_begin_with_is_read_from_a_recording(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.generation_config.eos_token_id = None
    questions = [f"{LONG} {text}" for text in QUESTIONS]
    plain = generator(loaded, False).answers(questions, NEW)
    recorded = generator(loaded, True)
    assert recorded.answers(questions, NEW) == plain
    assert recorded._recordings is not None
    (beginning,) = recorded._recordings._beginnings
    assert recorded.answers(questions, NEW) == plain
    assert len(beginning) > len(recorded.encode(LONG)) - 5
    layer = loaded.model.model.layers[0].mlp.up_proj
    with torch.inference_mode():
        layer.weight.mul_(3)
    changed = generator(loaded, False).answers(questions, NEW)
    assert recorded.answers(questions, NEW) == changed != plain


def test_rows_that_are_broken_off_leave_the_others_as_they_are(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety_harness.models.decoding.batch, "FEWEST", 1)
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.generation_config.eos_token_id = None
    whole = generator(loaded, False).answers(QUESTIONS, NEW)
    # Every other answer stops early, then all but one: recordings of seven rows, three and one are played.
    for going in ({whole[0], whole[3]}, {whole[5]}):
        screen = Screen(3, lambda said, going=going: any(answer.startswith(said) for answer in going))
        plain = generator(loaded, False).answers(QUESTIONS, NEW, screen)
        recorded = generator(loaded, True)
        assert recorded._recordings is not None
        recorded._recordings.most = 2**30
        assert recorded.answers(QUESTIONS, NEW, screen) == plain
        assert len({rows for rows, _ in recorded._recordings._made}) > 1
        assert plain != whole


def test_a_recording_is_played_for_every_patch_that_is_written_in_place(pairs: Pairs) -> None:
    student, teacher = (Checkpoint(folder) for folder in pairs("llama", True))
    loaded = load(student.folder, "float32")
    loaded.model.generation_config.eos_token_id = None
    units = enumerate_units(student.config, student.shapes, None)
    transplanter = Transplanter(loaded.model, teacher)
    recorded, plain = generator(loaded, True), generator(loaded, False)
    made: list[Any] = []
    said = set()
    for patch in ((), some_channels(units), (), some_channels(units[2:])):
        with transplanter.transplanted(patch):
            answers = recorded.answers(QUESTIONS, NEW)
            assert answers == plain.answers(QUESTIONS, NEW)
        said.add(tuple(answers))
        assert recorded._recordings is not None
        made += [recording for recording in recorded._recordings._made.values() if recording not in made]
    assert len(said) == 3
    assert len(made) == 1


def some_channels(units: Any) -> tuple[Unit, ...]:
    return tuple(cut(unit, range(unit.width // 2)) for unit in units)


def test_weights_that_lie_elsewhere_are_recorded_anew(pairs: Pairs) -> None:
    model = load(pairs("llama", True)[0], "float32").model
    recordings = GraphCache(model)
    with torch.inference_mode():
        first = recordings.of(2, 1)
        assert recordings.of(2, COLUMNS) is first
        assert recordings.of(2, COLUMNS + 1) is not first
        weight = next(model.parameters())
        weight.data = weight.data.clone()
        assert recordings.of(2, COLUMNS) is not first


def test_recordings_are_made_once_and_the_last_used_are_kept(pairs: Pairs) -> None:
    model = load(pairs("llama", True)[0], "float32").model
    recordings = GraphCache(model)
    with torch.inference_mode():
        first = recordings.of(8, 1)
        recordings.most = 10 * first.size
        shapes = [(8, 1), (4, 1), (8, 2 * COLUMNS), (4, 2 * COLUMNS)]
        made = [recordings.of(*shape) for shape in shapes]
        assert [recordings.of(*shape) for shape in shapes] == made
        recordings.most = first.size
        assert recordings.of(8, 1) is first
        assert list(recordings._made) == [(8, COLUMNS)]
        for number in range(2 * KEPT):
            assert recordings.beginning([5, number]) is recordings.beginning([5, number])
        assert len(recordings._beginnings) == KEPT
        assert recordings.forget()
        assert not recordings.forget()


def test_a_batch_that_ends_row_by_row_makes_few_recordings(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    loaded.model.generation_config.eos_token_id = None
    many = [f"{SHORT} {number}" for number in range(32)]
    whole = generator(loaded, False, 32).answers(many, NEW)
    recorded = generator(loaded, True, 32)
    assert recorded._recordings is not None
    recorded._recordings.most = 2**30
    # All but one of four are broken off after three tokens, and of those left one goes on to the end.
    going = {whole[at][:12] for at in range(0, 32, 4)}
    screen = Screen(3, lambda said: any(start.startswith(said) for start in going))
    expected = generator(loaded, False, 32).answers(many, NEW, screen)
    made: list[Any] = []
    for _ in range(3):
        assert recorded.answers(many, NEW, screen) == expected
        made += [one for one in recorded._recordings._made.values() if one not in made]
    assert len(made) <= 3


def test_a_nan_that_was_left_behind_is_not_felt(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    recorded = generator(loaded, True)
    before = recorded.answers(QUESTIONS, NEW)
    weight = loaded.model.model.layers[1].mlp.up_proj.weight
    with torch.inference_mode():
        kept = weight.clone()
        weight.fill_(float("nan"))
        with pytest.raises(NotFinite):
            recorded.answers(QUESTIONS, NEW)
        weight.copy_(kept)
    assert recorded._recordings is not None
    with torch.inference_mode():
        for recording in recorded._recordings._made.values():
            for layer in recording._cache.layers:
                layer.values.fill_(float("nan"))
    assert recorded.answers(QUESTIONS, NEW) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU alone")
def test_on_a_gpu_a_pass_is_recorded(pairs: Pairs) -> None:
    loaded = load(pairs("llama", True)[0], "bfloat16")
    with torch.inference_mode():
        assert Recording(loaded.model, 2, COLUMNS)._graph is not None
    assert Generator(loaded.model, loaded.tokenizer, batch_size=2)._recordings is not None
