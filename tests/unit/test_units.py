"""Names and shapes -> units, by each architecture's row and never by guessing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import UnitError
from safety_harness.units import (
    Shape,
    Unit,
    cut,
    enumerate_units,
    flat,
    group_id,
    grouped,
    layouts,
    named,
    short,
    width,
)

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
ARCHITECTURES = ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3")


def shapes(layers: int = 2, *, bias: bool = False) -> dict[str, Shape]:
    """A checkpoint with hidden 8, two of four heads shared, and an MLP of 16."""
    sizes = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8), "gate": (16, 8), "up": (16, 8), "down": (8, 16)}
    found: dict[str, Shape] = {"model.embed_tokens.weight": (32, 8), "model.norm.weight": (8,)}
    for layer in range(layers):
        for role, shape in sizes.items():
            block = "self_attn" if role in "qkvo" else "mlp"
            name = f"model.layers.{layer}.{block}.{role}_proj"
            found[f"{name}.weight"] = shape
            if bias and role in "qkv":
                found[f"{name}.bias"] = shape[:1]
        found[f"model.layers.{layer}.input_layernorm.weight"] = (8,)
    return found


def test_every_supported_architecture_has_a_row() -> None:
    assert set(layouts()) == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_units_are_the_roles_of_each_layer_in_order(architecture: str) -> None:
    found = enumerate_units(architecture, shapes(layers=2))
    assert [unit.id for unit in found] == [f"{layer}.{role}" for layer in (0, 1) for role in ROLES]


def test_a_unit_names_its_tensor_and_counts_its_parameters() -> None:
    by_id = {unit.id: unit for unit in enumerate_units("llama", shapes())}
    assert by_id["1.down"].tensors == ("model.layers.1.mlp.down_proj.weight",)
    assert by_id["1.down"].parameters == 8 * 16
    assert by_id["0.k"].tensors == ("model.layers.0.self_attn.k_proj.weight",)


def test_a_bias_moves_with_its_projection_where_the_model_has_it() -> None:
    with_bias = {unit.id: unit for unit in enumerate_units("qwen2", shapes(bias=True))}
    assert with_bias["0.q"].tensors == (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
    )
    assert with_bias["0.q"].parameters == 8 * 8 + 8
    assert len(with_bias["0.o"].tensors) == 1


def test_embeddings_and_norms_are_no_units() -> None:
    moved = {name for unit in enumerate_units("gemma", shapes()) for name in unit.tensors}
    assert not [name for name in moved if "norm" in name or "embed" in name]


def test_layers_are_told_apart_beyond_ten() -> None:
    found = enumerate_units("llama", shapes(layers=11), ["gate"])
    assert [unit.layer for unit in found] == list(range(11))
    assert found[1].tensors == ("model.layers.1.mlp.gate_proj.weight",)


def test_only_the_wanted_roles_come_and_each_once() -> None:
    found = enumerate_units("llama", shapes(layers=1), ["down", "gate", "down"])
    assert [unit.id for unit in found] == ["0.down", "0.gate"]


def test_a_layer_that_lacks_a_role_has_no_unit_for_it() -> None:
    partial = shapes()
    del partial["model.layers.0.mlp.gate_proj.weight"]
    assert [unit.id for unit in enumerate_units("llama", partial, ["gate"])] == ["1.gate"]


def test_unknown_architecture_suggests_the_nearest_and_lists_the_known() -> None:
    with pytest.raises(UnitError, match=r"'lama' is not supported \(did you mean 'llama'\?\)") as caught:
        enumerate_units("lama", shapes())
    assert all(name in str(caught.value) for name in ARCHITECTURES)


def test_unknown_architecture_without_a_neighbour_suggests_nothing() -> None:
    with pytest.raises(UnitError) as caught:
        enumerate_units("rwkv-7", shapes())
    assert "did you mean" not in str(caught.value)


def test_unknown_role_lists_the_roles() -> None:
    with pytest.raises(UnitError, match=r"llama has no role 'gates'\. Its roles are: q, k, v, o, gate, up, down"):
        enumerate_units("llama", shapes(), ["gate", "gates"])


def test_a_role_that_matches_nothing_shows_what_the_checkpoint_holds() -> None:
    fused = {"model.layers.0.self_attn.qkv_proj.weight": (24, 8), "model.layers.0.mlp.gate_proj.weight": (16, 8)}
    with pytest.raises(UnitError, match=r"Role 'q' of llama matches no tensor.*qkv_proj.*architectures\.toml"):
        enumerate_units("llama", fused)


def test_an_empty_checkpoint_is_said_to_be_empty() -> None:
    with pytest.raises(UnitError, match="no tensors at all"):
        enumerate_units("llama", {})


# --- channels ---------------------------------------------------------------------------------------


def modules(*, bias: bool = False) -> dict[str, Unit]:
    return {unit.id: unit for unit in enumerate_units("qwen2", shapes(bias=bias))}


@pytest.mark.parametrize(("role", "channels"), [("q", 8), ("k", 4), ("o", 8), ("gate", 16), ("down", 16)])
def test_channels_lie_on_the_inner_side_of_each_projection(role: str, channels: int) -> None:
    assert width(modules()[f"0.{role}"], shapes()) == channels


def test_a_cut_unit_counts_what_its_channels_hold() -> None:
    gate, down = (cut(modules()[f"1.{role}"], [3, 1, 2, 9, 3], shapes()) for role in ("gate", "down"))
    assert (gate.id, gate.channels, gate.parameters) == ("1.gate[1-3,9]", (1, 2, 3, 9), 4 * 8)
    assert (down.id, down.module, down.parameters) == ("1.down[1-3,9]", "1.down", 4 * 8)


def test_a_bias_is_cut_with_the_rows_it_belongs_to_and_belongs_to_no_column() -> None:
    known = shapes(bias=True) | {"model.layers.0.self_attn.o_proj.bias": (8,)}
    whole = {unit.id: unit for unit in enumerate_units("qwen2", known)}
    assert cut(whole["0.k"], [0, 2], known).parameters == 2 * 8 + 2
    assert len(whole["0.o"].tensors) == 2
    assert cut(whole["0.o"], [5], known).tensors == ("model.layers.0.self_attn.o_proj.weight",)


def test_all_channels_are_the_whole_unit() -> None:
    assert cut(modules()["0.k"], range(4), shapes()) == modules()["0.k"]


@pytest.mark.parametrize("channels", [[], [4], [-1, 0]])
def test_channels_that_a_unit_lacks_are_refused(channels: list[int]) -> None:
    with pytest.raises(UnitError, match=r"0\.k has the channels 0 to 3, not \["):
        cut(modules()["0.k"], channels, shapes())


@given(st.dictionaries(st.sampled_from(["0.q", "0.k", "1.gate", "1.down"]), st.sets(st.integers(0, 3), min_size=1)))
def test_an_id_names_its_unit(chosen: dict[str, set[int]]) -> None:
    units = [cut(modules()[module], channels, shapes()) for module, channels in chosen.items()]
    assert named([unit.id for unit in units], list(modules().values()), shapes()) == tuple((unit,) for unit in units)
    for together in ("module", "block", "layer"):
        groups = grouped(units, together)
        assert named(map(group_id, groups), list(modules().values()), shapes()) == groups
        assert sorted(flat(groups)) == sorted(units)


@pytest.mark.parametrize(
    ("together", "expected"),
    [
        ("module", ["0.q", "0.down", "0.o", "1.gate", "1.down"]),
        ("block", ["0.q+0.o", "0.down", "1.gate+1.down"]),
        ("layer", ["0.q+0.down+0.o", "1.gate+1.down"]),
    ],
)
def test_units_go_together_by_module_block_or_layer(together: str, expected: list[str]) -> None:
    units = [modules()[name] for name in ("0.q", "0.down", "0.o", "1.gate", "1.down")]
    assert [group_id(group) for group in grouped(units, together)] == expected


@pytest.mark.parametrize("wrong", ["0.gate[", "0.gate[]", "0.gate[2,]", "7.gate", "0.router", "gate", "0.k[1-9]", ""])
def test_an_id_that_names_nothing_is_said(wrong: str) -> None:
    with pytest.raises(UnitError, match=r"is no unit of this model|has the channels"):
        named([wrong], list(modules().values()), shapes())


@pytest.mark.parametrize(
    ("identifier", "text"),
    [("3.q", "3.q"), ("12.gate[3,40-43]", "12.gate ×5"), ("0.k[0]", "0.k ×1"), ("3.q+4.k[0,2]", "3.q+4.k ×2")],
)
def test_a_reader_sees_how_many_channels_move(identifier: str, text: str) -> None:
    assert short(identifier) == text
