"""Names and shapes become units by each architecture's row, never by guessing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from safety_harness.errors import UnitError
from safety_harness.weights.architectures import enumerate_units, layouts
from safety_harness.weights.units import Shape, Unit
from tests.builders import ARCHITECTURES, SEPARATE
from tests.weights.test_units import shapes

ROLES = ("q", "k", "v", "o", "gate", "up", "down")


def units(model_type: str, known: dict[str, Shape], roles: Sequence[str] | None = None) -> tuple[Unit, ...]:
    return enumerate_units({"model_type": model_type}, known, roles)


def test_every_supported_architecture_has_a_row() -> None:
    assert set(layouts()) == {name.partition("-")[0] for name in ARCHITECTURES}


@pytest.mark.parametrize("architecture", SEPARATE)
def test_units_are_the_roles_of_each_layer_in_order(architecture: str) -> None:
    listed = units(architecture, shapes(layers=2))
    assert [unit.id for unit in listed] == [f"{layer}.{role}" for layer in (0, 1) for role in ROLES]


def test_a_unit_names_its_tensor_and_counts_its_parameters() -> None:
    by_id = {unit.id: unit for unit in units("llama", shapes())}
    assert by_id["1.down"].tensors == ("model.layers.1.mlp.down_proj.weight",)
    assert by_id["1.down"].parameters == 8 * 16
    assert by_id["0.k"].tensors == ("model.layers.0.self_attn.k_proj.weight",)


def test_a_bias_moves_with_its_projection_where_the_model_has_it() -> None:
    with_bias = {unit.id: unit for unit in units("qwen2", shapes(bias=True))}
    assert with_bias["0.q"].tensors == (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
    )
    assert with_bias["0.q"].parameters == 8 * 8 + 8
    assert len(with_bias["0.o"].tensors) == 1


def test_embeddings_and_norms_are_no_units() -> None:
    moved = {name for unit in units("gemma", shapes()) for name in unit.tensors}
    assert not [name for name in moved if "norm" in name or "embed" in name]


def test_layers_are_told_apart_beyond_ten() -> None:
    listed = units("llama", shapes(layers=11), ["gate"])
    assert [unit.layer for unit in listed] == list(range(11))
    assert listed[1].tensors == ("model.layers.1.mlp.gate_proj.weight",)


def test_only_the_wanted_roles_come_and_each_once() -> None:
    listed = units("llama", shapes(layers=1), ["down", "gate", "down"])
    assert [unit.id for unit in listed] == ["0.down", "0.gate"]


def test_a_layer_that_lacks_a_role_has_no_unit_for_it() -> None:
    partial = shapes()
    del partial["model.layers.0.mlp.gate_proj.weight"]
    assert [unit.id for unit in units("llama", partial, ["gate"])] == ["1.gate"]


def test_an_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(UnitError, match=r"'lama' is not supported\. Did you mean 'llama'\?") as caught:
        units("lama", shapes())
    assert all(name in str(caught.value) for name in SEPARATE)


def test_an_unknown_architecture_may_suggest_nothing() -> None:
    with pytest.raises(UnitError) as caught:
        units("rwkv-7", shapes())
    assert "Did you mean" not in str(caught.value)


def test_unknown_role_lists_the_roles() -> None:
    with pytest.raises(UnitError, match=r"llama has no role 'gates'\. Its roles are: q, k, v, o, gate, up, down"):
        units("llama", shapes(), ["gate", "gates"])


def test_a_role_that_matches_nothing_shows_the_checkpoint() -> None:
    fused = {"model.layers.0.self_attn.qkv_proj.weight": (24, 8), "model.layers.0.mlp.gate_proj.weight": (16, 8)}
    with pytest.raises(UnitError, match=r"Role 'q' of llama matches no tensor.*qkv_proj.*architectures\.toml"):
        units("llama", fused)


def test_an_empty_checkpoint_is_named_as_such() -> None:
    with pytest.raises(UnitError, match="no tensors at all"):
        units("llama", {})


PREFIXES = {
    "module.": "have 'module.' too many",
    "base_model.model.": "have 'base_model.model.' too many",
    "_orig_mod.": "have '_orig_mod.' too many",
    "model.": "have 'model.' too many",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_with_a_part_too_many_are_told_as_such(prefix: str) -> None:
    """Expect the part, and no word of architectures.toml."""
    named = {prefix + name: shape for name, shape in shapes().items()}
    with pytest.raises(UnitError, match=PREFIXES[prefix]) as caught:
        units("llama", named)
    assert "architectures.toml" not in str(caught.value)


def test_names_with_a_part_in_the_middle_are_told_as_such() -> None:
    named = {name.replace(".mlp.", "._orig_mod.mlp."): shape for name, shape in shapes().items()}
    with pytest.raises(UnitError, match=r"have '_orig_mod\.' too many"):
        units("llama", named)


def test_names_with_a_part_too_few_are_told_as_such() -> None:
    named = {name.removeprefix("model."): shape for name, shape in shapes().items()}
    with pytest.raises(UnitError, match=r"lack 'model\.' in their names"):
        units("llama", named)


@pytest.mark.parametrize("beginning", ["language_model.model.", "model.language_model."])
def test_gemma3_is_known_by_both_of_its_names(beginning: str) -> None:
    named = {name.replace("model.", beginning, 1): shape for name, shape in shapes().items()}
    listed = units("gemma3", named)
    assert [unit.id for unit in listed] == [f"{layer}.{role}" for layer in (0, 1) for role in ROLES]
    assert {part.memory.name.partition("layers")[0] for unit in listed for part in unit.parts} == {
        "model.language_model."
    }
