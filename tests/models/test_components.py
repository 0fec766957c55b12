"""Components of what a teacher adds go into a student exactly and alone, and come out bit for bit."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safety_harness.errors import SourceError, UnitError
from safety_harness.models.components import largest_components
from safety_harness.models.load import load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.moved import moved
from safety_harness.weights.units import Unit, cut, named, rank_of, ranked, short

Pairs = Callable[[str, bool], tuple[Path, Path]]
EVERY = 999  # more components than any matrix here has


def opened(
    folders: tuple[Path, Path], rank: int, dtype: str = "float32"
) -> tuple[Transplanter, Checkpoint, tuple[Unit, ...]]:
    student, teacher = load(folders[0], dtype), Checkpoint(folders[1])
    units = enumerate_units(student.checkpoint.config, student.checkpoint.shapes, rank=rank)
    return Transplanter(student.model, teacher), student.checkpoint, units


class LowRank:
    """A teacher that adds three terms of sizes 3, 2 and 1 to each matrix of a student."""

    def __init__(self, student: Checkpoint) -> None:
        self._student = student

    def tensor(self, name: str) -> torch.Tensor:
        return self._student.tensor(name) + sum(self.terms(name))

    def terms(self, name: str) -> list[torch.Tensor]:
        """Return the terms, the largest first."""
        numbers = torch.Generator().manual_seed(len(name))
        left, right = (
            torch.linalg.qr(torch.randn(size, 3, generator=numbers)).Q for size in self._student.shapes[name]
        )
        return [size * torch.outer(left[:, i], right[:, i]) for i, size in enumerate((3.0, 2.0, 1.0))]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen2"])
def test_some_components_are_terms_of_the_decomposition(pairs: Pairs, architecture: str) -> None:
    """Move components 0 and 2 of three modules: each gets these two terms, and no other tensor changes."""
    folder = pairs(architecture, True)[0]
    student, checkpoint = load(folder, "float32"), Checkpoint(folder)
    units = enumerate_units(checkpoint.config, checkpoint.shapes, rank=4)
    teacher = LowRank(checkpoint)
    transplanter, model = Transplanter(student.model, teacher), student.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = [cut(unit, (0, 2)) for unit in units[::5]]
    moving = {unit.parts[0].memory.name: unit.tensors[0] for unit in chosen}
    with transplanter.transplanted(chosen):
        for name, value in model.state_dict().items():
            if name in moving:
                first, _, third = teacher.terms(moving[name])
                assert torch.allclose(value, before[name] + first + third, atol=1e-4), name
            else:
                assert torch.equal(value, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    written = transplanter.moving(chosen)
    assert set(written) == set(moving.values())
    assert sum(unit.parameters for unit in chosen) == 2 * sum(sum(checkpoint.shapes[name]) for name in written)


def test_all_components_are_the_teacher(pairs: Pairs) -> None:
    transplanter, student, units = opened(pairs("llama", True), rank=EVERY)
    teacher = Checkpoint(pairs("llama", True)[1])
    assert {unit.rank for unit in units} == {min(student.shapes[name]) for unit in units for name in unit.tensors}
    for name, numbers in transplanter.moving(units).items():
        assert torch.allclose(numbers, teacher.tensor(name), atol=1e-5), name


def test_components_within_components_are_summed_and_rounded_once(pairs: Pairs) -> None:
    """Nest two sets in bfloat16: inside there is their union, and afterwards what was there before."""
    transplanter, _, units = opened(pairs("llama", True), rank=4, dtype="bfloat16")
    name, unit = units[0].tensors[0], units[0]
    value = transplanter._parameters[name]
    before = value.detach().clone()
    with transplanter.transplanted([cut(unit, (0, 1, 2))]):
        together = value.detach().clone()
    with transplanter.transplanted([cut(unit, (0, 2))]):
        outer = value.detach().clone()
        with transplanter.transplanted([cut(unit, (1, 2))]):
            assert torch.equal(value, together)
        assert torch.equal(value, outer)
    assert torch.equal(value, before)
    assert not torch.equal(together, outer)


def test_factors_are_the_same_each_time_and_leave_random_numbers_alone(pairs: Pairs) -> None:
    (one, _, units), (other, _, _) = (opened(pairs("llama", True), rank=3) for _ in range(2))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    left, right = one.factors(units[0].parts[0], 3)
    assert torch.equal(torch.rand(1), expected)
    again_left, again_right = other.factors(units[0].parts[0], 3)
    assert torch.equal(left, again_left)
    assert torch.equal(right, again_right)
    sizes = torch.linalg.svdvals(one.difference(units[0].parts[0]))
    assert torch.allclose(left.norm(dim=0), sizes[:3], rtol=1e-4)
    assert torch.allclose(right.norm(dim=1), torch.ones(3), rtol=1e-5)


def decomposed() -> str:
    """Return a sha256 of the components of matrices of low rank, rounded as a merged adapter's are and exact."""
    numbers, hashed = torch.Generator().manual_seed(0), hashlib.sha256()
    for _ in range(50):
        left, right = (torch.randint(-99, 100, shape, generator=numbers).float() for shape in ((192, 8), (8, 256)))
        for added in ((left @ right).bfloat16(), left[:, :3] @ right[:3]):  # the second one has three components
            for factor in largest_components(added, 8):
                hashed.update(factor.numpy().tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("environment", [{"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}])
def test_another_processor_finds_the_same_components(environment: dict[str, str]) -> None:
    """Decompose with the kernels of older processors, which sum in another order."""
    run = "from tests.models.test_components import decomposed; print(decomposed())"
    other = subprocess.run(
        [sys.executable, "-c", run], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == decomposed()


def test_the_rank_of_a_group_is_that_of_its_largest_matrix() -> None:
    """Name a group whose first matrix has fewer rows than the rank."""
    assert [rank_of(name) for name in ("0.k~4[1]+0.gate~8[0,2]", "0.gate~8", "0.gate[1]+0.up", "")] == [8, 8, 0, 0]


def test_components_since_the_ancestor_are_not_rounded_to_the_students_dtype(pairs: Pairs) -> None:
    """Expect the exact terms in a student of bfloat16, whose own numbers would round small ones away."""
    folder = pairs("llama", True)[0]
    checkpoint = Checkpoint(folder)
    teacher = LowRank(checkpoint)
    transplanter = Transplanter(load(folder, "bfloat16").model, teacher, checkpoint)
    unit = enumerate_units(checkpoint.config, checkpoint.shapes, rank=3)[0]
    left, right = transplanter.factors(unit.parts[0], 3)
    for i, term in enumerate(teacher.terms(unit.tensors[0])):
        assert torch.allclose(torch.outer(left[:, i], right[i]), term, atol=1e-5)


def test_what_is_not_finite_is_not_decomposed(pairs: Pairs) -> None:
    transplanter, _, units = opened(pairs("llama", True), rank=3)
    transplanter._parameters[units[0].tensors[0]].data[0, 0] = torch.nan
    with pytest.raises(SourceError, match=r"q_proj\.weight: What the teacher adds holds a NaN or an infinity"):
        transplanter.factors(units[0].parts[0], 3)


def test_more_components_than_numbers_count_as_the_numbers(pairs: Pairs) -> None:
    _, student, units = opened(pairs("llama", True), rank=EVERY)
    assert all(unit.parameters == math.prod(student.shapes[unit.tensors[0]]) for unit in units)


def test_ids_name_components(pairs: Pairs) -> None:
    _, _, units = opened(pairs("llama", True), rank=4)
    some = cut(units[3], (0, 2, 3))
    assert some.id == f"{units[3].module}~4[0,2-3]"
    assert [short(one.id) for one in (some, units[3])] == [f"{some.module} ×3 of 4", f"{some.module} ×all of 4"]
    assert named([some.id], units) == ((some,),)
    assert [(move.indices, move.components, move.rank) for move in moved([some])] == [((), (0, 2, 3), 4)]
    assert cut(units[3], range(4)) == units[3]
    with pytest.raises(UnitError, match="has the channels 0 to 3"):
        cut(units[3], [4])
    for other in (f"{some.module}[0,2-3]", f"{some.module}~8[0]", some.module):
        with pytest.raises(UnitError, match=r"was searched with another `grain` or `rank`: here .*~4'"):
            named([other], units)


def test_biases_stay(pairs: Pairs) -> None:
    _, _, units = opened(pairs("qwen2", True), rank=2)
    assert not [name for unit in units for name in unit.tensors if name.endswith(".bias")]


@pytest.mark.parametrize("architecture", ["phi3", "gpt2"])
def test_modules_that_share_a_tensor_have_none(pairs: Pairs, architecture: str) -> None:
    checkpoint = Checkpoint(pairs(architecture, True)[0])
    with pytest.raises(UnitError, match=r'0\.q: components cannot be taken of it.*Search with grain = "channel"'):
        enumerate_units(checkpoint.config, checkpoint.shapes, rank=4)


def test_a_module_without_a_matrix_has_none(pairs: Pairs) -> None:
    _, _, units = opened(pairs("llama", True), rank=0)
    bare = replace(units[0], parts=())
    with pytest.raises(UnitError, match="components cannot be taken"):
        ranked(bare, 4)
