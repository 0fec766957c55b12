"""Gate a quantised student as it is: where transformers can compute with it, and what is said where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_harness.errors import SourceError
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.preflight import check_local_files
from safety_harness.evaluation.subject import Subject
from safety_harness.registry.load import Student, load_registry
from tests.plugin.test_as_it_is import TINY, registry

TEACHER = TINY / "models" / "llama" / "teacher"
BLOCK = 16
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK],
       "modules_to_not_convert": ["lm_head"]}  # fmt: skip


def student(folder: Path, model: Path, more: str = "") -> Student:
    """Return *model* as a student of a family without a teacher, or with one that *more* names."""
    return load_registry(registry(folder, f'path = "{model}"', more)).select()[0]


def copied(folder: Path, **quantisation: Any) -> Path:
    """Return a copy of the embedded model whose config says that it is quantised."""
    copy = folder / "quantised"
    shutil.copytree(TEACHER, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": quantisation}))
    return copy


@pytest.fixture
def fp8(tmp_path: Path) -> Path:
    """Return the embedded model with its projections in blocks of 8-bit numbers, each block with a scale."""
    copy = copied(tmp_path, **FP8)
    (shard,) = copy.glob("*.safetensors")
    tensors = load_file(shard)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].float().reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scales = blocks.abs().amax((1, 3), keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
        tensors[name] = (blocks / scales).reshape(rows, columns).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales.reshape(rows // BLOCK, columns // BLOCK).contiguous()
    save_file(tensors, shard, metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize("placed", ["", 'device_map = "auto"'])
def test_a_quantised_student_is_gated_as_it_is(fp8: Path, tmp_path: Path, placed: str) -> None:
    """Expect refusals nearly as often as before, in the registry's dtype, and a remark."""
    quantised = student(tmp_path, fp8, placed)
    check_local_files(quantised)
    with pytest.warns(UserWarning, match=r"is quantised \(fp8\), and gated as transformers computes it on this"):
        evaluator = open_evaluator(quantised)
    assert evaluator.generator.model.dtype is torch.float32
    one = Subject(evaluator)
    whole = Subject(open_evaluator(student(tmp_path, TEACHER)))
    refused = [subject.defense(subject).numbers["after"] for subject in (one, whole)]
    assert refused[0] >= refused[1] - 2 > 25
    weight = evaluator.generator.model.model.layers[0].mlp.up_proj.weight
    before = whole.weighed.generator.model.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(weight, before)
    assert torch.allclose(weight, before, atol=0.1 * before.detach().abs().max().item())
    assert one.evaluator.identity()["student"] != whole.evaluator.identity()["student"]


def test_a_quantised_student_is_not_patched(fp8: Path, tmp_path: Path) -> None:
    patched = student(tmp_path, fp8, f'teacher = "{TEACHER}"')
    for refuse in (check_local_files, open_evaluator):
        with pytest.raises(
            SourceError, match=r"is quantised \(fp8\).*quantise the result.*name no `teacher`, or serve"
        ):
            refuse(patched)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True},
        {"quant_method": "gptq", "bits": 4, "group_size": 16},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
        {"quant_method": "of tomorrow"},
        {},
    ],
    ids=lambda config: str(config.get("quant_method", "unknown")).replace(" ", "-"),
)
def test_what_cannot_be_loaded_is_to_be_served(tmp_path: Path, config: dict[str, Any]) -> None:
    """Say of the embedded model that it is quantised in a way that needs a package, or that nobody knows."""
    model = copied(tmp_path, **(config or {"bits": 4}))
    message = r"is quantised \([\w -]+\), and transformers cannot load it.*Serve it"
    with pytest.raises(SourceError, match=message) as caught:
        open_evaluator(student(tmp_path, model))
    assert "`served = { url" in str(caught.value)


def test_packed_numbers_without_a_word_in_the_config_are_refused(fp8: Path, tmp_path: Path) -> None:
    config = json.loads((fp8 / "config.json").read_text())
    del config["quantization_config"]
    (fp8 / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"is quantised \('.*' is stored as F8_E4M3\)"):
        open_evaluator(student(tmp_path, fp8))
