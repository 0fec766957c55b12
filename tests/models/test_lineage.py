"""Compare student and teacher: some differences are refused, and others are only named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import LineageError, SourceError
from safety_harness.models.lineage import check_lineage
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit
from tests.builders import ARCHITECTURES, make_model, make_tokenizer, save

Pairs = Callable[[str, bool], tuple[Path, Path]]


def units_of(checkpoint: Checkpoint) -> tuple[Unit, ...]:
    return enumerate_units(checkpoint.config, checkpoint.shapes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_descendant_is_accepted(pairs: Pairs, architecture: str) -> None:
    student, teacher = map(Checkpoint, pairs(architecture, True))
    check_lineage(student, teacher, units_of(student))
    check_lineage(student, student, units_of(student))


def test_another_architecture_is_refused(pairs: Pairs) -> None:
    """Take a Mistral as the teacher of a Llama: only the config tells them apart here."""
    student, teacher = Checkpoint(pairs("llama", True)[0]), Checkpoint(pairs("mistral", True)[0])
    assert dict(student.shapes) == dict(teacher.shapes)
    with pytest.raises(LineageError, match=r"llama model.*mistral model"):
        check_lineage(student, teacher, units_of(student))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 64}, r"gate_proj\.weight: the student has shape \(48, 32\), the teacher \(64, 32\)"),
        ({"num_hidden_layers": 2}, r"other: holds no tensor 'model\.layers\.2\."),
    ],
)
def test_another_shape_is_refused(pairs: Pairs, tmp_path: Path, changes: dict[str, int], message: str) -> None:
    student = Checkpoint(pairs("llama", True)[0])
    teacher = Checkpoint(save(make_model("llama", **changes), make_tokenizer(), tmp_path / "other"))
    with pytest.raises(LineageError, match=message):
        check_lineage(student, teacher, units_of(student))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_trained_apart_are_refused(pairs: Pairs, tmp_path: Path, architecture: str) -> None:
    student = Checkpoint(pairs(architecture, True)[0])
    stranger = Checkpoint(save(make_model(architecture, seed=77), make_tokenizer(), tmp_path / "stranger"))
    with pytest.raises(LineageError, match=r"do not descend.*cosine of .* is -?0\.[01]"):
        check_lineage(student, stranger, units_of(student))


def test_a_nan_in_either_is_refused_before_any_cosine(pairs: Pairs, tmp_path: Path) -> None:
    student = Checkpoint(pairs("llama", True)[0])
    model = make_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    spoilt = Checkpoint(save(model, make_tokenizer(), tmp_path / "spoilt"))
    for left, right in ((student, spoilt), (spoilt, student)):
        with pytest.raises(SourceError, match="NaN"):
            check_lineage(left, right, units_of(student))


def altered(folder: Path, out: Path, changes: dict[str, Any]) -> Checkpoint:
    """Return a copy of a checkpoint with other values in its config."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **changes}))
    return Checkpoint(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 2}, r"num_attention_heads \(4, of the teacher 2\)"),
        ({"num_key_value_heads": 1}, r"num_key_value_heads \(2, of the teacher 1\)"),
        ({"head_dim": 16}, r"head_dim \(8, of the teacher 16\)"),
    ],
)
def test_numbers_that_would_mean_something_else_are_refused(
    pairs: Pairs, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder, teacher = pairs("llama", True)
    student = Checkpoint(folder)
    with pytest.raises(LineageError, match=message):
        check_lineage(student, altered(teacher, tmp_path / "other", changes), units_of(student))


def test_what_shifts_the_meaning_of_weights_is_named(pairs: Pairs, tmp_path: Path) -> None:
    folder, teacher_folder = pairs("llama", True)
    student = Checkpoint(folder)
    changes = {"rms_norm_eps": 0.1, "vocab_size": 999, "hidden_act": "gelu", "rope_parameters": {"rope_theta": 5.0}}
    teacher = altered(teacher_folder, tmp_path / "other", changes)
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.warns(UserWarning, match="which moves into it, differ in hidden_act"):
        lineage = check_lineage(student, teacher, units_of(student))
    assert [difference.split(" ")[0] for difference in lineage.differs] == [
        "hidden_act", "rope_theta", "rope_parameters", "rms_norm_eps", "vocab_size", "tokenizer.json"
    ]  # fmt: skip


def test_older_or_missing_settings_are_no_difference(pairs: Pairs, tmp_path: Path) -> None:
    folder, teacher_folder = pairs("llama", True)
    student = Checkpoint(folder)
    theta = student.config["rope_parameters"]["rope_theta"]
    changes = {"head_dim": None, "rope_parameters": None, "rope_theta": theta}
    teacher = altered(teacher_folder, tmp_path / "other", changes)
    assert check_lineage(student, teacher, units_of(student)).differs == ()


ROTARY = ("rope_parameters", "rope_theta", "rope_scaling", "sliding_window")
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("architecture", "own", "other", "named"),
    [
        ("llama", {"rope_theta": 1e4, "rope_scaling": YARN}, {"rope_scaling": None}, ["rope_parameters"]),
        ("llama", {}, {"rope_theta": 5e5}, ["rope_theta", "rope_parameters"]),
        ("llama", {}, {"rope_theta": 10_000}, []),
        ("llama", {"rope_scaling": YARN}, {"rope_parameters": {**YARN, "rope_theta": 1e4}}, []),
        ("llama", {"rope_scaling": YARN}, {"rope_scaling": {**YARN, "beta_fast": 32, "beta_slow": 1.0}}, []),
        ("llama", {"rope_scaling": YARN}, {"rope_scaling": {**YARN, "beta_fast": 16}}, ["rope_parameters"]),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2}}, {"rope_parameters": LINEAR}, []),
        ("llama", {"rope_scaling": {"rope_type": "default"}}, {}, []),
        ("llama", {"attention_bias": True}, {}, ["attention_bias"]),
        ("llama", {"rms_norm_eps": 1e-6}, {}, []),
        ("llama", {"mlp_bias": False, "attention_dropout": 0.1, "unsloth_version": "1", "use_cache": False}, {}, []),
        ("mistral", {"sliding_window": 8}, {"sliding_window": None}, ["sliding_window"]),
        ("mistral", {"sliding_window": 4096}, {}, []),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 8}, {"sliding_window": None}, []),
        ("gemma2", {"attn_logit_softcapping": 30.0}, {}, ["attn_logit_softcapping"]),
        ("gemma2", {"final_logit_softcapping": None}, {}, ["final_logit_softcapping"]),
        ("olmo", {"clip_qkv": 8.0}, {}, ["clip_qkv"]),
        ("gpt_neox", {"use_parallel_residual": False}, {}, ["use_parallel_residual"]),
        ("qwen3_moe", {"norm_topk_prob": True}, {"norm_topk_prob": False}, ["norm_topk_prob"]),
    ],
)  # fmt: skip
def test_settings_are_compared_by_what_they_mean(
    pairs: Pairs, tmp_path: Path, architecture: str, own: dict[str, Any], other: dict[str, Any], named: list[str]
) -> None:
    """Leave settings out, write null, and write older names."""
    folders = []
    for folder, changes in zip(pairs(architecture, True), (own, other), strict=True):
        config = json.loads((folder / "config.json").read_text())
        kept = {name: value for name, value in config.items() if name not in {*ROTARY, *own, *other}}
        folders.append(Path(shutil.copytree(folder, tmp_path / folder.name)))
        (folders[-1] / "config.json").write_text(json.dumps(kept | changes))
    student, teacher = map(Checkpoint, folders)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        differs = check_lineage(student, teacher, units_of(student)).differs
    assert [difference.split(" ")[0] for difference in differs] == named


def test_a_config_that_cannot_be_read_is_named(pairs: Pairs, tmp_path: Path) -> None:
    folder, teacher = pairs("llama", True)
    student = Checkpoint(folder)
    spoilt = altered(teacher, tmp_path / "other", {"rms_norm_eps": "small"})
    with pytest.raises(SourceError, match=r"other/config\.json: transformers cannot read it"):
        check_lineage(student, spoilt, units_of(student))


def test_a_pair_of_one_build_gives_no_warning_and_its_cosines(pairs: Pairs) -> None:
    student, teacher = map(Checkpoint, pairs("llama", True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lineage = check_lineage(student, teacher, units_of(student))
    cosines = {
        name: float(
            (student.tensor(name) * teacher.tensor(name)).sum()
            / student.tensor(name).norm()
            / teacher.tensor(name).norm()
        )
        for unit in units_of(student)
        for name in unit.tensors
    }
    assert lineage.lowest == pytest.approx(min(cosines.values()))
    assert cosines[lineage.lowest_tensor] == min(cosines.values())
    assert lineage.median == pytest.approx(sorted(cosines.values())[len(cosines) // 2])
    assert lineage.differs == ()


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "mxfp4"])
def test_a_quantised_checkpoint_is_refused(pairs: Pairs, tmp_path: Path, method: str) -> None:
    with pytest.raises(SourceError, match=rf"is quantised \({method}\).*patch that, and quantise the result"):
        altered(pairs("llama", True)[0], tmp_path / "packed", {"quantization_config": {"quant_method": method}})
