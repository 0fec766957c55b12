"""Two patches compared channel by channel, and a patch in the formats of other tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from safety_harness.errors import ArtifactError
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.patch.apply import apply
from safety_harness.patch.compare import Difference, compare
from safety_harness.patch.export import mergekit, peft_adapter
from safety_harness.registry.load import Student
from safety_harness.search.write_patch import build
from safety_harness.weights.units import cut
from tests.artifacts import Made, patch_of, some_units
from tests.builders import make_pair


def test_two_patches_are_compared_channel_by_channel(made: Callable[..., Made], tmp_path: Path) -> None:
    first = made()
    same = made(name="same")
    assert all(differences.equal for differences in compare(first.artifact, same.artifact))
    evaluator = first.evaluator
    up, down = (unit for unit in evaluator.units if unit.id in ("1.up", "1.down"))
    one = build(evaluator, patch_of(evaluator, (cut(up, [1, 2, 3]), down)), tmp_path / "one")
    two = build(evaluator, patch_of(evaluator, (cut(up, [3, 4]), cut(down, [0]))), tmp_path / "two")
    names = {unit.id: unit.tensors[0] for unit in (up, down)}
    assert set(compare(one, two)) == {
        Difference(names["1.up"], only_first=2, only_second=1, same=1, different=0),
        Difference(names["1.down"], only_first=47, only_second=0, same=1, different=0),
    }
    shutil.rmtree(first.teacher)
    make_pair(tmp_path / "other", "llama")
    shutil.copytree(first.student, first.teacher)
    save_file(
        {name: value * 1.5 for name, value in load_file(first.student / "model.safetensors").items()},
        first.teacher / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    other = build(made(name="unused").evaluator, patch_of(evaluator, (cut(up, [1, 2]),)), tmp_path / "three")
    differences = {difference.tensor: difference for difference in compare(one, other)}
    assert differences[names["1.up"]] == Difference(names["1.up"], only_first=1, only_second=0, same=0, different=2)
    wider = make_pair(tmp_path / "wider", "llama", intermediate_size=64)
    questions_ = first.evaluator.student
    spec = questions_.spec.model_copy(update={"path": wider[0]})
    family = questions_.family.model_copy(update={"teacher": spec.model_copy(update={"path": wider[1], "task": None})})
    stranger = open_evaluator(Student("wider", family, spec))
    up = next(unit for unit in stranger.units if unit.id == "1.up")
    foreign = build(stranger, patch_of(stranger, (cut(up, [1, 2]),)), tmp_path / "foreign")
    differences = {difference.tensor: difference for difference in compare(one, foreign)}
    assert differences[names["1.up"]] == Difference(names["1.up"], 0, 0, 0, different=3 * 32)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "phi3", "gpt2", "falcon-grouped"])
def test_a_peft_adapter_is_the_patched_model(made: Callable[..., Made], tmp_path: Path, architecture: str) -> None:
    made_ = made(architecture)
    peft_adapter(made_.artifact, made_.student, tmp_path / "adapter")
    apply(made_.artifact, made_.student, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(made_.student, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(60).reshape(2, 30) + 5
    with torch.inference_mode():
        assert torch.equal(adapted(input_ids=ids).logits, expected(input_ids=ids).logits)
        merged = adapted.merge_and_unload().state_dict()
    assert all(torch.equal(value, merged[name]) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("architecture", ["mixtral", "gemma3", "gpt2-bare"])
def test_peft_refuses_tensors_that_have_another_name_in_memory(
    made: Callable[..., Made], tmp_path: Path, architecture: str
) -> None:
    """Expect an error where the loaded model keeps the tensor elsewhere."""
    name, _, bare = architecture.partition("-")
    made_ = made(name, bare=bool(bare), seed=1)
    with pytest.raises(ArtifactError, match="PEFT has no name for it"):
        peft_adapter(made_.artifact, made_.student, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_recipe_cannot_say_channels_or_another_teacher(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    with pytest.raises(ArtifactError, match="mergekit moves whole tensors"):
        mergekit(made_.artifact, made_.student, made_.teacher, tmp_path / "recipe.yml")
    units = some_units(made_.evaluator, 0, whole=True)
    added = build(made_.evaluator, patch_of(made_.evaluator, units, transfer="add"), tmp_path / "added")
    mergekit(added, made_.student, made_.teacher, tmp_path / "fine.yml")  # here the teacher's numbers moved after all
    with pytest.raises(ArtifactError, match=r"what the patch moves is not what .*student holds"):
        mergekit(added, made_.student, made_.student, tmp_path / "recipe.yml")
    with pytest.raises(ArtifactError, match="is not the model that the patch was made for"):
        mergekit(added, made_.teacher, made_.teacher, tmp_path / "recipe.yml")
    assert not (tmp_path / "recipe.yml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma"])
def test_mergekit_makes_the_patched_model_of_the_recipe(
    made: Callable[..., Made], tmp_path: Path, mergekit_path: Path, architecture: str
) -> None:
    """Expect the same values; only -0.0 becomes 0.0 on its way through a sum."""
    made_ = made(architecture, whole=True)
    mergekit(made_.artifact, made_.student, made_.teacher, tmp_path / "recipe.yml")
    apply(made_.artifact, made_.student, tmp_path / "out")
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", tmp_path / "recipe.yml", tmp_path / "merged"]
    environment = {**os.environ, "PYTHONPATH": str(mergekit_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    assert all(torch.equal(value, merged[name]) for name, value in expected.items())


@pytest.fixture(scope="module")
def mergekit_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mergekit from PyPI, in addition to the packages that are installed."""
    folder = tmp_path_factory.mktemp("mergekit")
    packages = ["mergekit==0.1.5", "immutables", "sentencepiece", "protobuf"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *packages]
    subprocess.run(command, check=True, capture_output=True)
    return folder
