"""Compare every architecture's row with transformers itself: what it saves, and what its modules compute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from safety_harness.models.load import LoadedModel, load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import ARCHITECTURES, in_turns

Pairs = Callable[[str, bool], tuple[Path, Path]]
State = Mapping[str, torch.Tensor]
IDS = torch.arange(24).reshape(2, 12) + 5


def opened(pairs: Pairs, architecture: str, tied: bool = True) -> tuple[LoadedModel, Checkpoint, tuple[Unit, ...]]:
    student, teacher = pairs(architecture, tied)
    loaded = load(student, "float32")
    return loaded, Checkpoint(teacher), enumerate_units(loaded.checkpoint.config, loaded.checkpoint.shapes)


def saved(model: Any, folder: Path) -> State:
    """Return the tensors that transformers writes of a model."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(("architecture", "tied"), in_turns(True, False))
def test_a_unit_moves_exactly_its_own_numbers_on_disk(
    pairs: Pairs, tmp_path: Path, architecture: str, tied: bool
) -> None:
    loaded, teacher, units = opened(pairs, architecture, tied)
    transplanter = Transplanter(loaded.model, teacher)
    before = saved(loaded.model, tmp_path / "before")
    assert before.keys() == loaded.checkpoint.shapes.keys()
    for number, unit in enumerate([*units, *(cut(unit, [0, unit.width - 2]) for unit in units)]):
        expected = {name: tensor.clone() for name, tensor in before.items()}
        for spot in (part.disk for part in unit.parts):
            assert not spot.within
            donor = teacher.tensor(spot.name)
            axis = max(spot.axis, 0)
            at = spot.places.of(unit.channels or range(unit.width)) if spot.axis >= 0 else range(donor.shape[0])
            expected[spot.name].index_copy_(axis, torch.tensor(at), donor.index_select(axis, torch.tensor(at)))
        with transplanter.transplanted([unit]):
            now = saved(loaded.model, tmp_path / str(number))
        changed = {name for name in before if not torch.equal(before[name], now[name])}
        assert changed == set(unit.tensors), unit.id
        assert all(torch.equal(now[name], expected[name]) for name in before), unit.id
    after = saved(loaded.model, tmp_path / "after")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_units_share_nothing_and_leave_no_projection_out(pairs: Pairs, architecture: str) -> None:
    loaded, _, units = opened(pairs, architecture)
    shapes = loaded.checkpoint.shapes
    counted = dict.fromkeys(shapes, 0)
    for part in itertools.chain.from_iterable(unit.parts for unit in units):
        spot = part.disk
        indices = set(spot.places.of(range(len(spot.places)))) if spot.axis >= 0 else {0}
        assert len(indices) == len(spot.places)
        assert max(indices) < shapes[spot.name][spot.axis]
        counted[spot.name] += len(indices) if spot.axis >= 0 else shapes[spot.name][0]
    for name, count in counted.items():
        assert count in {0, *shapes[name]}, name
    left = {name for name, count in counted.items() if not count}
    kinds = ("norm", "ln_", "embed", "lm_head", "wte", "wpe", "vision", "multi_modal", "sinks", "router", "gate.weight")
    assert not [name for name in left if not any(kind in name for kind in kinds)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_neurons_are_as_many_in_every_role_of_an_mlp(pairs: Pairs, architecture: str) -> None:
    _, _, units = opened(pairs, architecture)
    widths: dict[tuple[int, str], set[int]] = {}
    for unit in units:
        if unit.role not in "qkvo":
            widths.setdefault((unit.layer, unit.role.partition("_")[0] if "_" in unit.role else ""), set()).add(
                unit.width
            )
    assert all(len(numbers) == 1 for numbers in widths.values()), widths


@contextmanager
def products(attention: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """Yield a list that holds query, key and value, as *attention* multiplies them, once it has run."""
    seen: list[torch.Tensor] = []
    inside = [False]
    handles = [
        attention.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True)),
        attention.register_forward_hook(lambda *_: inside.__setitem__(0, False)),
    ]
    real, matmul = torch.nn.functional.scaled_dot_product_attention, torch.matmul

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if inside[0]:
            seen.extend(tensor.clone() for tensor in (query, key, value))
        return real(query, key, value, *args, **kwargs)

    def multiply(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if inside[0] and one.ndim == 4:
            seen.extend([one.clone(), other.transpose(-1, -2).clone()] if not seen else [other.clone()])
        return matmul(one, other)

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
        patched.setattr(torch, "matmul", multiply)
        yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_q_k_and_v_are_what_attention_takes_for_them(
    pairs: Pairs, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, teacher, units = opened(pairs, architecture)
    first = {unit.role: unit for unit in units if unit.layer == 0}
    name = first["q"].parts[0].memory.name.removesuffix(".weight").rpartition(".")[0]
    attention = loaded.model.get_submodule(name)
    transplanter = Transplanter(loaded.model, teacher)

    def seen_with(*roles: str) -> list[torch.Tensor]:
        with (
            transplanter.transplanted([first[role] for role in roles]),
            products(attention, monkeypatch) as seen,
            torch.inference_mode(),
        ):
            loaded.model(input_ids=IDS, use_cache=False)
        return seen[:3]

    unmoved, all_moved = seen_with(), seen_with("q", "k", "v")
    assert len(unmoved) == 3
    assert not any(torch.equal(one, other) for one, other in zip(unmoved, all_moved, strict=True))
    for place, role in enumerate("qkv"):
        expected = [all_moved[place] if at == place else unmoved[at] for at in range(3)]
        assert all(torch.equal(one, other) for one, other in zip(seen_with(role), expected, strict=True)), role


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gate_is_what_the_activation_takes(
    pairs: Pairs, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, teacher, units = opened(pairs, architecture)
    transplanter = Transplanter(loaded.model, teacher)
    beginning = units[0].parts[0].memory.name.partition(".0.")[0] + ".0."
    activations = [
        module
        for name, module in loaded.model.named_modules()
        if name.startswith(beginning) and name.rpartition(".")[2] in ("act", "act_fn", "activation_fn", "activation")
    ]

    def seen_with(*roles: str) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        sigmoid = torch.sigmoid

        def squash(value: torch.Tensor) -> torch.Tensor:  # gpt-oss writes its activation out
            seen.append(value.clone())
            return sigmoid(value)

        handles = [
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone())) for module in activations
        ]
        moved = [unit for unit in units if unit.layer == 0 and unit.role in roles]
        with monkeypatch.context() as patched, transplanter.transplanted(moved), torch.inference_mode():
            if not activations:
                patched.setattr(torch, "sigmoid", squash)
            loaded.model(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()
        first = len(seen) // 3 if not activations else len(seen)
        return seen[:first]

    unmoved = seen_with()
    assert unmoved
    gated = any(unit.role == "gate" for unit in units)
    shared = any(unit.role == "shared_gate" for unit in units)
    same = all(torch.equal(one, other) for one, other in zip(unmoved, seen_with("up", "shared_up"), strict=True))
    assert same == gated
    if gated:
        changed = [not torch.equal(one, other) for one, other in zip(unmoved, seen_with("gate"), strict=True)]
        assert sum(changed) == len(unmoved) - shared
        assert all(
            not torch.equal(one, other) for one, other in zip(unmoved, seen_with("gate", "shared_gate"), strict=True)
        )


@pytest.mark.parametrize("role", ["o", "down"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_channel_of_what_writes_is_one_of_its_inputs(pairs: Pairs, architecture: str, role: str) -> None:
    loaded, teacher, units = opened(pairs, architecture)
    unit = next(unit for unit in units if unit.layer == 1 and unit.role == role)
    name = unit.parts[0].memory.name
    if not name.endswith(".weight"):
        pytest.skip("experts are no module of their own")
    module = loaded.model.get_submodule(name.removesuffix(".weight"))
    inputs = torch.randn(4, unit.width, generator=torch.Generator().manual_seed(0))
    silent = inputs.clone()
    silent[:, 3] = 0
    with torch.inference_mode():
        unmoved = module(inputs), module(silent)
        with Transplanter(loaded.model, teacher).transplanted([cut(unit, [3])]):
            moved = module(inputs), module(silent)
    assert not torch.equal(unmoved[0], moved[0])
    assert torch.equal(unmoved[1], moved[1])
