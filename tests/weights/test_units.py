"""Units: what their channels hold, their names, and what goes together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.errors import UnitError
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import Shape, Unit, cut, flat, group_id, grouped, named, short


def shapes(layers: int = 2, *, bias: bool = False) -> dict[str, Shape]:
    """Return the shapes of a checkpoint with hidden 8, two of four heads shared, and an MLP of 16."""
    sizes = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8), "gate": (16, 8), "up": (16, 8), "down": (8, 16)}
    named_shapes: dict[str, Shape] = {"model.embed_tokens.weight": (32, 8), "model.norm.weight": (8,)}
    for layer in range(layers):
        for role, shape in sizes.items():
            block = "self_attn" if role in "qkvo" else "mlp"
            name = f"model.layers.{layer}.{block}.{role}_proj"
            named_shapes[f"{name}.weight"] = shape
            if bias and role in "qkv":
                named_shapes[f"{name}.bias"] = shape[:1]
        named_shapes[f"model.layers.{layer}.input_layernorm.weight"] = (8,)
    return named_shapes


def modules(*, bias: bool = False) -> dict[str, Unit]:
    """Return the whole units of that checkpoint by id."""
    return {unit.id: unit for unit in enumerate_units({"model_type": "qwen2"}, shapes(bias=bias))}


@pytest.mark.parametrize(("role", "channels"), [("q", 8), ("k", 4), ("o", 8), ("gate", 16), ("down", 16)])
def test_channels_lie_on_the_inner_side_of_each_projection(role: str, channels: int) -> None:
    assert modules()[f"0.{role}"].width == channels


def test_a_cut_unit_counts_what_its_channels_hold() -> None:
    gate, down = (cut(modules()[f"1.{role}"], [3, 1, 2, 9, 3]) for role in ("gate", "down"))
    assert (gate.id, gate.channels, gate.parameters) == ("1.gate[1-3,9]", (1, 2, 3, 9), 4 * 8)
    assert (down.id, down.module, down.parameters) == ("1.down[1-3,9]", "1.down", 4 * 8)


def test_a_bias_is_cut_with_its_rows_and_has_no_column() -> None:
    known = shapes(bias=True) | {"model.layers.0.self_attn.o_proj.bias": (8,)}
    whole = {unit.id: unit for unit in enumerate_units({"model_type": "qwen2"}, known)}
    assert cut(whole["0.k"], [0, 2]).parameters == 2 * 8 + 2
    assert len(whole["0.o"].tensors) == 2
    assert cut(whole["0.o"], [5]).tensors == ("model.layers.0.self_attn.o_proj.weight",)


def test_all_channels_are_the_whole_unit() -> None:
    assert cut(modules()["0.k"], range(4)) == modules()["0.k"]


@pytest.mark.parametrize("channels", [[], [4], [-1, 0]])
def test_channels_that_a_unit_lacks_are_refused(channels: list[int]) -> None:
    with pytest.raises(UnitError, match=r"0\.k has the channels 0 to 3, not \["):
        cut(modules()["0.k"], channels)


@given(st.dictionaries(st.sampled_from(["0.q", "0.k", "1.gate", "1.down"]), st.sets(st.integers(0, 3), min_size=1)))
def test_an_id_names_its_unit(chosen: dict[str, set[int]]) -> None:
    units = [cut(modules()[module], channels) for module, channels in chosen.items()]
    assert named([unit.id for unit in units], list(modules().values())) == tuple((unit,) for unit in units)
    for together in ("module", "block", "layer"):
        groups = grouped(units, together)
        assert named(map(group_id, groups), list(modules().values())) == groups
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


# Runs of a billion channels, and of channels that are named twice or backwards; numbers and names without end.
HOSTILE = [
    "0.k[0-999999999]", "0.k[0-1,1-3]", "0.k[3-1]", "0.k[1,0]", f"0.k[{'0,' * 99_999}0]", f"0.k[{'9' * 9_999}]",
    f"{'9' * 9_999}.k", f"0.{'k' * 99_999}", "0.k[٣]",
]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["0.gate[", "0.gate[]", "0.gate[2,]", "7.gate", "0.router", "gate", "0.k[1-9]", "", *HOSTILE]
)
def test_an_id_that_names_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(UnitError, match=r"is no unit of this model|has the channels") as caught:
        named([wrong], list(modules().values()))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("3.q", "3.q"),
        ("12.gate[3,40-43]", "12.gate ×5"),
        ("0.k[0]", "0.k ×1"),
        ("3.q+4.k[0,2]", "3.q+4.k ×2"),
        ("1.q[0-999999999]", "1.q ×1000000000"),
    ],
)
def test_a_reader_sees_how_many_channels_move(identifier: str, text: str) -> None:
    assert short(identifier) == text
