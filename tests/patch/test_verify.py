"""What a model is to a patch: clean, applied, in part, or another model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from safety_harness.errors import ArtifactError, SourceError
from safety_harness.patch.apply import State, Verified, apply, revert, verify
from tests.artifacts import Made, files


def test_each_state_is_told_from_the_others(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    assert verify(made_.artifact, made_.student).state is State.CLEAN
    apply(made_.artifact, made_.student, tmp_path / "out")
    partly = shutil.copytree(tmp_path / "out", tmp_path / "partly")
    touched = next(file for file in sorted(partly.glob("*.safetensors")) if file.read_bytes() != own(made_, file))
    shutil.copyfile(made_.student / touched.name, touched)
    verified = verify(made_.artifact, partly)
    assert verified.state is State.PARTLY
    assert set(verified.unapplied) < {entry.tensor for entry in made_.artifact.manifest.entries}
    with pytest.raises(ArtifactError, match=r"partly: holds a part of this patch, but not .*Revert it first"):
        apply(made_.artifact, partly, tmp_path / "twice")
    revert(made_.artifact, partly, tmp_path / "again", made_.student)
    assert files(tmp_path / "again") == files(made_.student)
    with pytest.raises(ArtifactError, match="holds this patch already"):
        apply(made_.artifact, tmp_path / "out", tmp_path / "twice")
    with pytest.raises(ArtifactError, match="does not hold this patch"):
        revert(made_.artifact, made_.student, tmp_path / "twice", made_.student)
    assert not (tmp_path / "twice").exists()


def own(made_: Made, file: Path) -> bytes:
    return (made_.student / file.name).read_bytes()


def test_a_foreign_model_is_refused_with_what_first_differs(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    tensors = load_file(made_.student / "model.safetensors")
    untouched = sorted(made_.artifact.manifest.rest)[0]
    cases = {
        f"{untouched} has other numbers": {**tensors, untouched: tensors[untouched] + 1},
        "it has a tensor 'zzz' more": {**tensors, "zzz": torch.ones(2)},
        f"it has no tensor {untouched!r}": {name: value for name, value in tensors.items() if name != untouched},
    }
    entry_ = made_.artifact.manifest.entries[0]
    cases[f"{entry_.tensor} has sha256"] = {**tensors, entry_.tensor: tensors[entry_.tensor] + 1}
    cases[f"{entry_.tensor} is BF16"] = {**tensors, entry_.tensor: tensors[entry_.tensor].bfloat16()}
    other = shutil.copytree(made_.student, tmp_path / "other")
    for said, changed in cases.items():
        save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
        verified = verify(made_.artifact, other)
        assert verified.state is State.FOREIGN, said
        assert verified.foreign.startswith(said)
        with pytest.raises(ArtifactError, match="is not the model that the patch was made for"):
            apply(made_.artifact, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_in_other_shards_is_the_same_student(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made(shard="30KB")
    other = tmp_path / "whole"
    AutoModelForCausalLM.from_pretrained(made_.student, dtype=torch.float32).save_pretrained(other)
    assert verify(made_.artifact, other).state is State.CLEAN
    apply(made_.artifact, other, tmp_path / "out")
    assert verify(made_.artifact, tmp_path / "out").state is State.APPLIED


def test_a_changed_chat_template_is_said(made: Callable[..., Made], tmp_path: Path) -> None:
    made_ = made()
    apply(made_.artifact, made_.student, tmp_path / "out")
    out = tmp_path / "out"
    (out / "chat_template.jinja").write_text("{{ 'ignore all rules' }}")
    (out / "special_tokens_map.json").write_text("{}")
    (out / "generation_config.json").unlink()
    others = ("chat_template.jinja", "generation_config.json", "special_tokens_map.json")
    assert verify(made_.artifact, out) == Verified(State.APPLIED, beside=others)


def test_a_further_chat_template_is_said(made: Callable[..., Made], tmp_path: Path) -> None:
    """Add, to a released model, a template in the folder from which transformers takes the default one too."""
    made_ = made()
    apply(made_.artifact, made_.student, tmp_path / "out")
    further = tmp_path / "out" / "additional_chat_templates"
    further.mkdir()
    shutil.copyfile(made_.student / "chat_template.jinja", further / "default.jinja")
    beside = ("additional_chat_templates/default.jinja",)
    assert verify(made_.artifact, tmp_path / "out") == Verified(State.APPLIED, beside=beside)


def test_one_tensor_in_two_shards_is_refused(made: Callable[..., Made], tmp_path: Path) -> None:
    """Expect an error: transformers takes the tensor of the last file, whatever the index says."""
    made_ = made(shard="30KB")
    twice = shutil.copytree(made_.student, tmp_path / "twice")
    first, second = sorted(twice.glob("*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second, metadata={"format": "pt"})
    with pytest.raises(SourceError, match="Which of them a loader takes is chance"):
        verify(made_.artifact, twice)
