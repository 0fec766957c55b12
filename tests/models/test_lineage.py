"""Student and teacher side by side: what is refused, what is only said."""

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
    """Mistral and Llama have the same names and shapes here; only the config tells them apart."""
    student, teacher = Checkpoint(pairs("llama", True)[0]), Checkpoint(pairs("mistral", True)[0])
    assert dict(student.shapes) == dict(teacher.shapes)
    with pytest.raises(LineageError, match=r"llama model.*mistral model"):
        check_lineage(student, teacher, units_of(student))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intermediate_size": 64}, r"gate_proj\.weight: the student has shape \(48, 32\), the teacher \(64, 32\)"),
        ({"num_hidden_layers": 2}, r"layers\.2\..*the teacher None"),
    ],
)
def test_another_shape_is_refused(pairs: Pairs, tmp_path: Path, changes: dict[str, int], said: str) -> None:
    student = Checkpoint(pairs("llama", True)[0])
    teacher = Checkpoint(save(make_model("llama", **changes), make_tokenizer(), tmp_path / "other"))
    with pytest.raises(LineageError, match=said):
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
    for one, other in ((student, spoilt), (spoilt, student)):
        with pytest.raises(SourceError, match="NaN"):
            check_lineage(one, other, units_of(student))


def altered(folder: Path, out: Path, changes: dict[str, Any]) -> Checkpoint:
    """A copy of a checkpoint with another config."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **changes}))
    return Checkpoint(out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 2}, r"num_attention_heads \(4, of the teacher 2\)"),
        ({"num_key_value_heads": 1}, r"num_key_value_heads \(2, of the teacher 1\)"),
        ({"head_dim": 16}, r"head_dim \(8, of the teacher 16\)"),
    ],
)
def test_numbers_that_would_mean_something_else_are_refused(
    pairs: Pairs, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    student, teacher = pairs("llama", True)
    own = Checkpoint(student)
    with pytest.raises(LineageError, match=said):
        check_lineage(own, altered(teacher, tmp_path / "other", changes), units_of(own))


def test_what_shifts_their_meaning_is_said(pairs: Pairs, tmp_path: Path) -> None:
    student, teacher = pairs("llama", True)
    own = Checkpoint(student)
    changes = {"rms_norm_eps": 0.1, "vocab_size": 999, "hidden_act": "gelu", "rope_parameters": {"rope_theta": 5.0}}
    other = altered(teacher, tmp_path / "other", changes)
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.warns(UserWarning, match="which moves into it, differ in hidden_act"):
        found = check_lineage(own, other, units_of(own))
    assert [said.split(" ")[0] for said in found.differs] == [
        "hidden_act", "rope_theta", "rope_parameters", "rms_norm_eps", "vocab_size", "tokenizer.json"
    ]  # fmt: skip


def test_what_one_config_leaves_out_or_says_in_older_words_is_no_difference(pairs: Pairs, tmp_path: Path) -> None:
    student, teacher = pairs("llama", True)
    own = Checkpoint(student)
    theta = own.config["rope_parameters"]["rope_theta"]
    other = altered(teacher, tmp_path / "other", {"head_dim": None, "rope_parameters": None, "rope_theta": theta})
    assert check_lineage(own, other, units_of(own)).differs == ()


def test_a_pair_of_one_build_gives_no_warning_and_its_cosines(pairs: Pairs) -> None:
    student, teacher = map(Checkpoint, pairs("llama", True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check_lineage(student, teacher, units_of(student))
    cosines = {
        name: float(
            (student.tensor(name) * teacher.tensor(name)).sum()
            / student.tensor(name).norm()
            / teacher.tensor(name).norm()
        )
        for unit in units_of(student)
        for name in unit.tensors
    }
    assert found.lowest == pytest.approx(min(cosines.values()))
    assert cosines[found.lowest_tensor] == min(cosines.values())
    assert found.median == pytest.approx(sorted(cosines.values())[len(cosines) // 2])
    assert found.differs == ()


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "mxfp4"])
def test_a_quantised_checkpoint_is_refused(pairs: Pairs, tmp_path: Path, method: str) -> None:
    with pytest.raises(SourceError, match=rf"is quantised \({method}\).*patch that, and quantise the result"):
        altered(pairs("llama", True)[0], tmp_path / "packed", {"quantization_config": {"quant_method": method}})
