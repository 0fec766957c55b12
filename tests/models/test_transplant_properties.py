"""Any set of units goes in exactly and comes out completely, in any nesting and with any end of the block."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_harness.models.load import load
from safety_harness.models.transplant import Transplanter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Unit, cut
from tests.builders import make_pair


@dataclass(frozen=True)
class Theatre:
    """A student, its teacher's weights, and copies of both."""

    model: torch.nn.Module
    teacher: Checkpoint
    transplanter: Transplanter
    units: tuple[Unit, ...]
    student_tensors: dict[str, torch.Tensor]
    teacher_tensors: dict[str, torch.Tensor]

    def check(self, moved: set[Unit]) -> None:
        """Check that the student holds exactly these units of the teacher, and that nothing else has changed.

        What a unit would add is independent of what has moved.
        """
        expected = {name: tensor.clone() for name, tensor in self.student_tensors.items()}
        for unit in moved:
            for spot in (part.disk for part in unit.parts):
                axis, channels = max(spot.axis, 0), torch.tensor(unit.channels or range(spot.shape[spot.axis]))
                expected[spot.name].index_copy_(
                    axis, channels, self.teacher_tensors[spot.name].index_select(axis, channels)
                )
        for name, tensor in self.model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        for part in (part for unit in self.units for part in unit.parts):
            apart = self.teacher_tensors[part.disk.name] - self.student_tensors[part.disk.name]
            assert torch.equal(self.transplanter.difference(part), apart), part.disk.name
        for name, tensor in self.teacher_tensors.items():
            assert torch.equal(self.teacher.tensor(name), tensor), name

    def part(self, module: int, channels: set[int]) -> Unit:
        """Return these channels of a module, or the whole module without any."""
        whole = self.units[module]
        return cut(whole, channels) if channels else whole


class StopHere(Exception):  # noqa: N818
    """An error that ends a block."""


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    student, folder = make_pair(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=False, shard="20KB")
    loaded, teacher = load(student, "float32"), Checkpoint(folder)
    units = enumerate_units(teacher.config, teacher.shapes)
    student_tensors = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    teacher_tensors = {name: teacher.tensor(name) for name in teacher.shapes}
    return Theatre(loaded.model, teacher, Transplanter(loaded.model, teacher), units, student_tensors, teacher_tensors)


# A module and its channels; no channels mean the whole module. Every module has at least eight channels.
PART = st.tuples(st.integers(0, 20), st.one_of(st.just(set[int]()), st.sets(st.integers(0, 7), min_size=1)))
CHOICES = st.lists(st.lists(PART, max_size=12), min_size=1, max_size=4)


@settings(max_examples=60)
@given(choices=CHOICES, raises=st.booleans())
def test_nested_sets_of_units(theatre: Theatre, choices: list[list[tuple[int, set[int]]]], raises: bool) -> None:
    """Check that each level holds the union of the sets above it, channel by channel.

    Sets may overlap, repeat and be empty.
    """

    def enter(levels: list[list[tuple[int, set[int]]]], moved: set[Unit]) -> None:
        theatre.check(moved)
        if not levels:
            if raises:
                raise StopHere
            return
        chosen = [theatre.part(*part) for part in levels[0]]
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
@given(chosen=st.lists(PART, min_size=1))
def test_what_moves_is_the_teachers(theatre: Theatre, chosen: list[tuple[int, set[int]]]) -> None:
    units = [theatre.part(*part) for part in chosen]
    written = theatre.transplanter.moving(units)
    assert set(written) == {name for unit in units for name in unit.tensors}
    for name, tensor in written.items():
        movers = [unit for unit in units if name in unit.tensors]
        whole = any(not unit.channels for unit in movers)
        channels = sorted({channel for unit in movers for channel in unit.channels})
        donor, axis = theatre.teacher_tensors[name], movers[0].parts[0].disk.axis
        assert torch.equal(tensor, donor if whole else donor.index_select(axis, torch.tensor(channels)))
    theatre.check(set())
