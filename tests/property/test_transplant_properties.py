"""Whatever set of units goes in, in whatever nesting and with whatever end: exactly that, and all of it back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from safety_harness.models import load
from safety_harness.transplant import Transplanter
from safety_harness.units import Unit, enumerate_units
from safety_harness.weights import Checkpoint
from tests.builders import make_pair


@dataclass(frozen=True)
class Theatre:
    """A student on the table, its teacher's weights beside it."""

    model: torch.nn.Module
    transplanter: Transplanter
    units: tuple[Unit, ...]
    own: dict[str, torch.Tensor]
    donor: dict[str, torch.Tensor]

    def check(self, moved: set[Unit]) -> None:
        names = {name for unit in moved for name in unit.tensors}
        for name, tensor in self.model.state_dict().items():
            assert torch.equal(tensor, (self.donor if name in names else self.own)[name]), name


class StopHere(Exception):  # noqa: N818
    """What a block may end with."""


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    student, folder = make_pair(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=False, shard="20KB")
    loaded, teacher = load(student, "float32"), Checkpoint(folder)
    units = enumerate_units(teacher.model_type, teacher.shapes)
    own = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    donor = {name: teacher.tensor(name) for name in teacher.shapes}
    return Theatre(loaded.model, Transplanter(loaded.model, teacher), units, own, donor)


CHOICES = st.lists(st.lists(st.integers(0, 20), max_size=12), min_size=1, max_size=4)


@settings(max_examples=40)
@given(choices=CHOICES, raises=st.booleans())
def test_nested_sets_of_units(theatre: Theatre, choices: list[list[int]], raises: bool) -> None:
    """Each level holds the union of the sets above it; repeated units and empty sets are nothing special."""

    def enter(levels: list[list[int]], moved: set[Unit]) -> None:
        theatre.check(moved)
        if not levels:
            if raises:
                raise StopHere
            return
        chosen = [theatre.units[i] for i in levels[0]]
        try:
            with theatre.transplanter.transplanted(iter(chosen)):
                enter(levels[1:], moved | set(chosen))
        finally:
            theatre.check(moved)

    try:
        enter(choices, set())
    except StopHere:
        assert raises
    theatre.check(set())


@settings(max_examples=20)
@given(chosen=st.sets(st.integers(0, 20), min_size=1))
def test_saved_patch_is_what_was_moved(
    theatre: Theatre, chosen: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    units = [theatre.units[i] for i in sorted(chosen)]
    file = Path(tmp_path_factory.mktemp("patch")) / "patch.safetensors"
    theatre.transplanter.save(units, file)
    written = load_file(file)
    assert set(written) == {name for unit in units for name in unit.tensors}
    assert all(torch.equal(tensor, theatre.donor[name]) for name, tensor in written.items())
    theatre.check(set())
