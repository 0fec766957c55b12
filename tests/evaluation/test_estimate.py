"""Check what a run is estimated to need, and that the paper's families open as all families do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from safety_harness.errors import SourceError
from safety_harness.evaluation.estimate import (
    BACKWARD_ROWS,
    HARMLESS_QUESTIONS,
    KEPT_TOKENS,
    ROWS_PER_PASS,
    Device,
    Sketch,
    needed_memory,
    plan,
    sketch,
)
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.schema import ModelSpec
from safety_harness.search.priors import contrast, descent, gradients
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.moved import changed
from tests.builders import make_config, make_model, make_pair, make_tokenizer, save, vary
from tests.fake_hub import Hub
from tests.refusal_world import entry

DEVICE = Device(flops=1e12, bandwidth=1e10)
ARCHITECTURES = {
    "llama2-7b": "llama", "llama2-13b": "llama", "mistral-7b": "mistral", "gemma-7b": "gemma", "gemma-2b": "gemma",
}  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def served(hub: Hub, tmp_path: Path) -> Hub:
    """A hub that holds a tiny random model of the real class under every name of the paper's families."""
    folders = {name: make_pair(tmp_path / name, name) for name in set(ARCHITECTURES.values())}
    for student in load_registry().select(family="paper"):
        model, teacher = folders[ARCHITECTURES[student.family.name]]
        hub.add(str(student.spec.hf), content(model))
        hub.add(str(student.family.teacher.hf), content(teacher))
    return hub


def test_the_papers_families_open_as_all_others_do(served: Hub, home: Path, world: Path) -> None:
    """Ask small questions in float32; and open one again from the cache, when the hub is gone."""
    questions = entry(world).family
    asked = {name: getattr(questions, name) for name in ("harmful", "harmless", "text", "further", "search", "dtype")}
    students = [
        Student(student.name, student.family.model_copy(update=asked), student.spec)
        for student in load_registry().select(family="paper")
    ]
    assert len(students) == 26
    for student in (*students, None, students[0]):
        if student is None:
            served.stop()
            continue
        evaluator = open_evaluator(student)
        assert evaluator.checkpoint.folder.parent.name == "snapshots"
        assert evaluator.checkpoint.folder.is_relative_to(home)
        with evaluator.transplanter.transplanted([evaluator.units[4]]):
            state = evaluator.generator.model.state_dict()
            assert all(torch.equal(state[name], evaluator.teacher.tensor(name)) for name in evaluator.units[4].tensors)


@pytest.mark.usefixtures("served")
def test_of_a_hub_only_headers_are_read(home: Path) -> None:
    """Check that no weights lie here afterwards, and that the sizes are right."""
    student = load_registry().select(family="paper")[0]
    need = plan(student, DEVICE)
    assert not list(home.rglob("*.safetensors"))
    sizes = [sum(tensor.numel() * 4 for tensor in make_model("llama").parameters())] * 2
    assert need.download == sum(sizes)
    assert need.parameters == sizes[0] // 4


def test_what_is_here_needs_no_download_and_no_hub(served: Hub) -> None:
    """Fetch the models, and plan again without the hub."""
    student = load_registry().select(family="paper")[0]
    before = plan(student, DEVICE)
    from safety_harness.models.load import prepare

    for spec in student.models:
        prepare(spec)
    served.stop()
    after = plan(student, DEVICE)
    assert after.download == 0
    assert (after.parameters, after.movable, after.memory) == (before.parameters, before.movable, before.memory)


@pytest.mark.usefixtures("hub")
def test_headers_that_are_nowhere_are_reported(world: Path) -> None:
    """Check a repository that the hub does not know, and a GGUF file that is not unpacked."""
    student = entry(world)
    for spec in (ModelSpec(hf="org/none"), ModelSpec(gguf=world / "x.gguf")):
        family = student.family.model_copy(update={"teacher": spec})
        with pytest.raises(SourceError, match=r"headers cannot be had from the hub|not known before it is unpacked"):
            plan(Student(student.name, family, student.spec), DEVICE)


def test_the_memory_of_a_plan_holds_both_models(tmp_path: Path, world: Path) -> None:
    """Compare with torch's own count of the parameters, and leave room for what a batch takes."""
    tokenizer = make_tokenizer()
    student = save(vary(make_model("llama", hidden_size=64), 1, 0.05), tokenizer, tmp_path / "student")
    teacher = save(make_model("llama", hidden_size=64), tokenizer, tmp_path / "teacher")
    need = plan(entry(world, student=str(student), teacher=str(teacher)), DEVICE)
    parameters = sum(tensor.numel() for tensor in make_model("llama", hidden_size=64).parameters())
    assert need.parameters == parameters
    assert 4 * (parameters + need.movable) < need.memory
    assert need.memory < 4 * 40 * (parameters + need.movable)


def test_a_prior_of_seven_billion_numbers_fits_35_gib(world: Path) -> None:
    """Plan for Llama-2-7B's shape and answers of 48 tokens, in batches that take less than the prior."""
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
             "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000}  # fmt: skip
    config = make_config("llama", tied=False, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    sketch = Sketch(config.to_dict(), shapes, 0, here=True)
    student = entry(world, dtype="bfloat16", max_new_tokens=48, batch_size=32)
    both = 2 * sketch.parameters + 2 * sum(unit.parameters for unit in enumerate_units(sketch.config, sketch.shapes))
    memory = needed_memory(student, sketch, enumerate_units(sketch.config, sketch.shapes))
    assert 6.7e9 < sketch.parameters < 6.8e9
    assert both < memory < 35 * 2**30
    components = enumerate_units(sketch.config, sketch.shapes, rank=8)
    by_component = entry(world, dtype="bfloat16", max_new_tokens=48, batch_size=32, search={"grain": "component"})
    held = 2 * changed(components) + 4 * sum(unit.parameters for unit in components)
    assert 2 * sketch.parameters + held < needed_memory(by_component, sketch, components) < memory + held


def test_a_plan_is_of_what_may_move(world: Path) -> None:
    """Plan for channels and for components: these hold fewer numbers, and the student's own beside them."""
    channels, components = (plan(entry(world, search={"grain": grain}), DEVICE) for grain in ("channel", "component"))
    sketched = sketch(entry(world).spec)
    units = enumerate_units(sketched.config, sketched.shapes, rank=8)
    assert components.movable == sum(unit.parameters for unit in units) != channels.movable
    assert components.memory - channels.memory == 4 * components.movable + 4 * changed(units) - 4 * channels.movable


def test_a_slower_device_takes_longer(world: Path) -> None:
    """Check seconds and probes on a device of a tenth of the speed."""
    student = entry(world)
    fast, slow = plan(student, DEVICE), plan(student, Device(DEVICE.flops / 10, DEVICE.bandwidth))
    few, many = slow.seconds
    assert few < many
    assert fast.seconds[0] < few <= 10 * fast.seconds[0]
    assert slow.probes == fast.probes
    assert fast.probes[0] == 21


def test_a_prior_that_asks_more_costs_more(world: Path) -> None:
    """Check seconds and memory of all priors."""
    priors = ("norm", "contrast", "descent")
    # Batches of one question, and nothing kept of them, so that the gradients are the larger part.
    norm, contrasted, descended = (plan(entry(world, search={"prior": p}, batch_size=1), DEVICE) for p in priors)
    assert norm.seconds[0] < contrasted.seconds[0] < descended.seconds[0]
    assert norm.memory == contrasted.memory < descended.memory


def test_a_plan_counts_what_the_priors_ask() -> None:
    """Compare the estimate's numbers with those of the priors, which the estimate does not import."""
    places, answers = 3, 2
    contrasted = places * answers * (contrast.HARMFUL_QUESTIONS + contrast.HARMLESS_QUESTIONS)
    schedule = descent.DEFAULT
    stepped = schedule.steps * (schedule.harmful_rows + schedule.harmless_rows + schedule.task_rows)
    assert {"norm": 0, "contrast": contrasted, "descent": contrasted + stepped} == BACKWARD_ROWS
    assert gradients.ROWS_PER_PASS == schedule.rows_per_pass == ROWS_PER_PASS
    assert (contrast.HARMLESS_QUESTIONS, descent.KEPT_TOKENS) == (HARMLESS_QUESTIONS, KEPT_TOKENS)
