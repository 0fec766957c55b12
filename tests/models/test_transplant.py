"""Units go in and come out of every supported architecture, exactly and alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from safety_harness.errors import SourceError, UnitError
from safety_harness.models.load import LoadedModel, load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Part, Places, Spot, Unit, cut
from tests.builders import SEPARATE

Pairs = Callable[[str, bool], tuple[Path, Path]]
State = Mapping[str, torch.Tensor]
BOTH = [(name, tied) for name in SEPARATE for tied in (True, False)]


def state(model: torch.nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: State, after: State) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def whole(name: str, *shape: int) -> Part:
    spot = Spot(name, shape, 0, Places(((shape[0], 1),)))
    return Part(spot, spot)


def opened(folders: tuple[Path, Path]) -> tuple[LoadedModel, Checkpoint, tuple[Unit, ...]]:
    loaded, teacher = load(folders[0], "float32"), Checkpoint(folders[1])
    return loaded, teacher, enumerate_units(loaded.checkpoint.config, loaded.checkpoint.shapes)


@pytest.mark.parametrize(("architecture", "tied"), BOTH)
def test_each_unit_moves_its_own_tensors_and_nothing_else(pairs: Pairs, architecture: str, tied: bool) -> None:
    loaded, teacher, units = opened(pairs(architecture, tied))
    transplanter, before = Transplanter(loaded.model, teacher), state(loaded.model)
    for unit in units:
        with transplanter.transplanted([unit]):
            now = state(loaded.model)
            assert changed(before, now) == set(unit.tensors), unit
            for name in unit.tensors:
                assert torch.equal(now[name], teacher.tensor(name))
        assert changed(before, state(loaded.model)) == set()


@pytest.mark.parametrize("architecture", SEPARATE)
def test_units_are_all_projections_of_all_layers(pairs: Pairs, architecture: str) -> None:
    loaded, _, units = opened(pairs(architecture, True))
    names = [name for unit in units for name in unit.tensors]
    assert len(names) == len(set(names))
    linear = {f"{name}.weight" for name, m in loaded.model.named_modules() if isinstance(m, torch.nn.Linear)}
    biases = {name for name in loaded.checkpoint.shapes if name.endswith(".bias")}
    assert set(names) == (linear - {"lm_head.weight"}) | biases
    assert bool(biases) == (architecture == "qwen2")


@pytest.mark.parametrize(("architecture", "tied"), BOTH)
def test_all_units_compute_what_a_model_of_the_parts_does(pairs: Pairs, architecture: str, tied: bool) -> None:
    loaded, teacher, units = opened(pairs(architecture, tied))
    built = load(pairs(architecture, tied)[0], "float32").model
    moved = {name: teacher.tensor(name) for unit in units for name in unit.tensors}
    built.load_state_dict({**built.state_dict(), **moved})
    ids = torch.arange(60).reshape(2, 30) + 5
    with torch.inference_mode():
        unmoved = loaded.model(input_ids=ids).logits
        with Transplanter(loaded.model, teacher).transplanted(units):
            assert torch.equal(loaded.model(input_ids=ids).logits, built(input_ids=ids).logits)
        assert torch.equal(loaded.model(input_ids=ids).logits, unmoved)
        assert not torch.equal(unmoved, built(input_ids=ids).logits)


def test_restored_after_an_exception_and_after_nesting(pairs: Pairs) -> None:
    loaded, teacher, units = opened(pairs("llama", True))
    transplanter, before = Transplanter(loaded.model, teacher), state(loaded.model)

    def interrupted() -> None:
        with transplanter.transplanted(units):
            assert changed(before, state(loaded.model))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert changed(before, state(loaded.model)) == set()
    with transplanter.transplanted(units[:3]):
        outer = state(loaded.model)
        with transplanter.transplanted(units[2:5]):
            assert changed(before, state(loaded.model)) == {name for u in units[:5] for name in u.tensors}
        assert changed(outer, state(loaded.model)) == set()
    assert changed(before, state(loaded.model)) == set()


def test_tied_embeddings_stay_tied_and_untouched(pairs: Pairs) -> None:
    loaded, teacher, units = opened(pairs("gemma3_text", True))
    embedding = loaded.model.get_input_embeddings().weight
    unmoved = embedding.detach().clone()
    with Transplanter(loaded.model, teacher).transplanted(units):
        assert loaded.model.get_output_embeddings().weight is embedding
        assert torch.equal(embedding, unmoved)
        assert not torch.equal(embedding, teacher.tensor("model.embed_tokens.weight"))


def test_only_tensors_that_were_asked_for_are_read_and_only_once(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Checkpoint.tensor

    def counted(self: Checkpoint, name: str) -> torch.Tensor:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(Checkpoint, "tensor", counted)
    loaded, teacher, units = opened(pairs("qwen2", True))
    transplanter = Transplanter(loaded.model, teacher)
    assert read == []
    for _ in range(3):
        with transplanter.transplanted([units[0], units[4]]):
            pass
    assert sorted(read) == sorted([*units[0].tensors, *units[4].tensors])
    assert len(units[0].tensors) == 2  # a weight and its bias


def test_what_moves_is_exactly_the_teachers_tensors(pairs: Pairs) -> None:
    loaded, teacher, units = opened(pairs("qwen2", True))
    chosen = [units[1], units[9]]
    before = state(loaded.model)
    written = Transplanter(loaded.model, teacher).moving(chosen)
    assert set(written) == {name for unit in chosen for name in unit.tensors}
    for name, tensor in written.items():
        assert torch.equal(tensor, teacher.tensor(name))
    assert changed(before, state(loaded.model)) == set()


def test_teacher_is_cast_to_the_students_dtype(pairs: Pairs) -> None:
    student, folder = pairs("llama", True)
    loaded, teacher = load(student, "bfloat16"), Checkpoint(folder)
    units = enumerate_units(teacher.config, teacher.shapes)
    transplanter = Transplanter(loaded.model, teacher)
    name = units[0].tensors[0]
    with transplanter.transplanted(units):
        inside = state(loaded.model)[name]
    assert inside.dtype == torch.bfloat16
    assert torch.equal(inside, teacher.tensor(name).to(torch.bfloat16))
    assert transplanter.moving(units[:1])[name].dtype == torch.bfloat16


def test_difference_is_teacher_minus_student(pairs: Pairs) -> None:
    loaded, teacher, units = opened(pairs("qwen2", True))
    before = state(loaded.model)
    for part in (*units[0].parts, *units[6].parts):
        name = part.disk.name
        assert torch.equal(Transplanter(loaded.model, teacher).difference(part), teacher.tensor(name) - before[name])


@pytest.mark.parametrize(("architecture", "tied"), BOTH)
def test_a_channel_moves_its_row_or_column_and_nothing_else(pairs: Pairs, architecture: str, tied: bool) -> None:
    loaded, teacher, units = opened(pairs(architecture, tied))
    transplanter, before = Transplanter(loaded.model, teacher), state(loaded.model)
    for unit in units:
        some = cut(unit, [0, 3])
        with transplanter.transplanted([some]):
            now = state(loaded.model)
        assert changed(before, now) == set(some.tensors), unit
        rows = unit.role not in ("o", "down")
        for name in some.tensors:
            moved = teacher.tensor(name) if rows else teacher.tensor(name).T
            was, now_there = (t[name] if rows else t[name].T for t in (before, now))
            assert torch.equal(now_there[[0, 3]], moved[[0, 3]])
            assert torch.equal(now_there[[1, 2]], was[[1, 2]])
            assert torch.equal(now_there[4:], was[4:])
        assert changed(before, state(loaded.model)) == set()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_an_ancestor_what_the_teacher_learnt_since_is_added(pairs: Pairs, dtype: str) -> None:
    student, folder = pairs("qwen2", True)
    loaded, teacher = load(student, dtype), Checkpoint(folder)
    units = enumerate_units(teacher.config, teacher.shapes)
    before, ancestor = state(loaded.model), Checkpoint(pairs("qwen2", False)[0])
    transplanter = Transplanter(loaded.model, teacher, ancestor)
    some = cut(units[6], [1, 2])

    def summed(name: str) -> torch.Tensor:
        return (before[name].float() + (teacher.tensor(name) - ancestor.tensor(name))).to(before[name].dtype)

    with transplanter.transplanted([units[0], some]):
        now = state(loaded.model)
    assert changed(before, now) == {*units[0].tensors, *some.tensors}
    for name in units[0].tensors:
        assert torch.equal(now[name], summed(name))
        assert not torch.equal(now[name], teacher.tensor(name).to(now[name].dtype))
    (down,) = some.tensors
    assert torch.equal(now[down][:, 1:3], summed(down)[:, 1:3])
    assert torch.equal(now[down][:, 3:], before[down][:, 3:])
    assert changed(before, state(loaded.model)) == set()
    assert torch.equal(transplanter.moving([some])[down], summed(down)[:, 1:3])
    part = units[0].parts[0]
    name = part.disk.name
    assert torch.equal(transplanter.difference(part), summed(name).float() - before[name].float())


def test_a_unit_that_does_not_fit_changes_nothing(pairs: Pairs) -> None:
    loaded, teacher, units = opened(pairs("llama", True))
    before = state(loaded.model)
    nowhere = Unit(9, "q", (whole("model.layers.9.self_attn.q_proj.weight", 32, 32),))
    with (
        pytest.raises(UnitError, match=r"layers\.9"),
        Transplanter(loaded.model, teacher).transplanted([*units, nowhere]),
    ):
        pytest.fail("the block must not run")
    norm = Unit(0, "q", (whole("model.norm.weight", 32),))
    spoilt = Checkpoint(pairs("llama", True)[1])
    spoilt.shapes  # noqa: B018  (read before it is spoilt)
    spoilt.tensor = lambda _name: torch.zeros(3)  # type: ignore[method-assign]
    with pytest.raises(UnitError, match=r"\(3,\).*\(32,\)"), Transplanter(loaded.model, spoilt).transplanted([norm]):
        pytest.fail("the block must not run")
    with pytest.raises(SourceError, match="holds no tensor"):
        teacher.tensor("model.layers.9.self_attn.q_proj.weight")
    assert changed(before, state(loaded.model)) == set()
