"""A model whose layers carry accelerate's hooks answers, scores, learns and takes units as a plain one does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from safety_harness.errors import Remark, SourceError
from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Identity
from safety_harness.models import read, speedups, spread
from safety_harness.models.decoding.batch import DecodingBatch
from safety_harness.models.generate import Generator
from safety_harness.models.likelihood import answer_logprobs
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.speedups import Speedups
from safety_harness.models.transplant import Transplanter
from safety_harness.search.priors import Importance
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import LONG, SHORT, placed
from tests.refusal_world import entry

Pairs = Callable[[str, bool], tuple[Path, Path]]
QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", LONG[::-1][:40]]
NEW = 12
# accelerate takes the text for memory, from which weights are fetched for each pass, and the object for a device.
OUTSIDE, DEVICE = "cpu", torch.device("cpu")


def hooked(model: Any) -> Any:
    """Return *model* with the hooks of a spread model, which move to the processor what is there."""
    return dispatch_model(model, placed(model, "cpu", "cpu"), force_hooks=True)


def hooks(model: Any) -> dict[str, Any]:
    """Return what each module of *model* has for ``forward`` of its own, by name."""
    return {name: vars(module)["forward"] for name, module in model.named_modules() if "forward" in vars(module)}


def generator(loaded: LoadedModel, parts: Speedups | None = None) -> Generator:
    return Generator(loaded.model, loaded.tokenizer, batch_size=4, speedups=parts)


def patches(units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """Return no unit, all units, and some units with half of others."""
    return [(), units, [*units[::3], *(cut(unit, range(unit.width // 2)) for unit in units[1::3])]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "phi3", "mixtral"])
def test_answers_and_scores_are_those_of_a_plain_model(pairs: Pairs, architecture: str, dtype: str) -> None:
    """Compare with units in both models, and see every hook survive each reading."""
    student, teacher = (Checkpoint(folder) for folder in pairs(architecture, True))
    plain, spread_out = load(student.folder, dtype), load(student.folder, dtype)
    hooked(spread_out.model)
    before = hooks(spread_out.model)
    assert len(before) > 10
    units = enumerate_units(student.config, student.shapes)
    asked, expected = generator(spread_out), generator(plain)
    ours, theirs = Transplanter(spread_out.model, teacher), Transplanter(plain.model, teacher)
    for patch in patches(units):
        with ours.transplanted(patch), theirs.transplanted(patch):
            answers = expected.answers(QUESTIONS, NEW)
            assert asked.answers(QUESTIONS, NEW) == answers
            assert hooks(spread_out.model) == before
            scores = zip(*(answer_logprobs(one, QUESTIONS, answers) for one in (asked, expected)), strict=True)
            assert all(torch.equal(*pair) for pair in scores)
    assert hooks(spread_out.model) == before
    assert all(torch.equal(*pair) for pair in zip(spread_out.model.parameters(), plain.model.parameters(), strict=True))


@pytest.mark.parametrize("prior", ["norm", "descent"])
def test_a_prior_is_that_of_a_plain_model(world: Path, prior: str) -> None:
    """Compare the scores of all channels, and see every hook survive."""

    def scores(evaluator: Evaluator) -> list[torch.Tensor]:
        importance = Importance(evaluator)
        return [importance.of_channels(unit) for unit in evaluator.units]

    student = entry(world, search={"prior": prior})
    plain, spread_out = open_evaluator(student), open_evaluator(student)
    before = hooks(hooked(spread_out.generator.model))
    assert all(torch.equal(*pair) for pair in zip(scores(spread_out), scores(plain), strict=True))
    assert hooks(spread_out.generator.model) == before


def test_a_device_map_of_the_registry_is_obeyed(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a student of a family that has one; without a GPU, all of it comes to the processor."""
    asked: list[Any] = []
    monkeypatch.setattr(read, "check_in_place", lambda *_: asked.append(_))
    plain, evaluator = open_evaluator(entry(world)), open_evaluator(entry(world, device_map="auto"))
    assert len(asked) == 1
    prompts = evaluator.questions.harmful.search
    assert evaluator.answers((), prompts) == plain.answers((), prompts)
    assert evaluator.identity() == plain.identity()


@pytest.mark.parametrize("outside", ["model.layers.1", "lm_head"])
def test_weights_outside_the_gpus_are_refused(pairs: Pairs, outside: str) -> None:
    """Leave a part of the model where it is fetched from for each pass."""
    parts = [
        "model.embed_tokens",
        *(f"model.layers.{at}" for at in range(3)),
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    ]
    places: Any = {part: OUTSIDE if part == outside else DEVICE for part in parts}
    with pytest.raises(SourceError, match=rf"does not fit into the GPUs .*{outside}.*Show it more GPUs"):
        load(pairs("llama", False)[0], "float32", device_map=places)


def of(*devices: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return a model with one tensor on each of *devices*."""
    tensors = [SimpleNamespace(device=torch.device(device)) for device in devices]
    return SimpleNamespace(parameters=lambda: tensors, device=tensors[0].device, dtype=dtype)


def test_a_layout_tells_kinds_of_gpus_and_not_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread a model over equal and over unequal GPUs."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100" if device.index < 2 else "A100")
    assert spread.layout(of("cuda:0", "cuda:0")) == []
    assert spread.layout(of("cuda:0", "cuda:1", "cuda:1")) == [("H100", 3)]
    assert spread.layout(of("cuda:0", "cuda:1", "cuda:2")) == [("H100", 2), ("A100", 1)]


def test_a_layout_makes_another_patch(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare identities, of which a patch's key and a journal are made; the layout is part of its record."""
    evaluator = open_evaluator(entry(world))
    plain = evaluator.identity()
    monkeypatch.setattr("safety_harness.evaluation.evaluator.layout", lambda _: [("H100", 2), ("A100", 1)])
    spread_out = json.loads(json.dumps(evaluator.identity()))
    assert spread_out == {**plain, "layout": [["H100", 2], ["A100", 1]]}
    assert Identity.model_validate(spread_out).model_dump() == spread_out


def test_a_spread_model_is_not_recorded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that nothing is captured, even for a trial."""
    monkeypatch.setattr(speedups, "capturable", lambda _: pytest.fail("a capture was tried"))
    with pytest.warns(Remark, match="several GPUs, so its passes are not recorded"):
        assert Speedups.for_model(of("cuda:0", "cuda:1")).graphs is None
    assert Speedups.for_model(of("cuda:0", "cuda:1", dtype=torch.float32)).graphs is None


def test_rows_of_each_layer_are_kept_on_its_device() -> None:
    """Keep rows of a cache whose second layer lies elsewhere: on the device that holds no numbers."""
    kept: list[torch.device] = []
    layers = [
        SimpleNamespace(device=torch.device(device), batch_select_indices=lambda rows: kept.append(rows.device))
        for device in ("cpu", "meta")
    ]
    batch = DecodingBatch(SimpleNamespace(device=DEVICE), SimpleNamespace(layers=layers), 3, 1)  # type: ignore[arg-type]
    batch.keep([0, 2])
    assert [device.type for device in kept] == ["cpu", "meta"]
