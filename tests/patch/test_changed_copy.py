"""Write a student with units of its teacher in it as a folder: it loads as the model that was patched in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from safety_harness.evaluation.engine import changes_of
from safety_harness.models.read import read_model
from safety_harness.models.transplant import Transplanter
from safety_harness.patch.changed_copy import write_changed
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import cut

Pairs = Callable[[str, bool], tuple[Path, Path]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi3"])
def test_a_changed_copy_is_the_patched_model(pairs: Pairs, tmp_path: Path, architecture: str) -> None:
    """Move whole modules and channels, also of fused tensors. Nothing of the student's own folder changes."""
    student, teacher = pairs(architecture, True)
    before = {path: path.read_bytes() for path in student.iterdir()}
    model, checkpoint = read_model(student, torch.float32)
    units = enumerate_units(checkpoint.config, checkpoint.shapes)
    chosen = (*units[:2], *(cut(unit, (0, 2)) for unit in units[3:6]))
    transplanter = Transplanter(model, Checkpoint(teacher))
    write_changed(checkpoint, changes_of(checkpoint, transplanter, chosen, "it"), tmp_path / "out")
    written, _ = read_model(tmp_path / "out", torch.float32)
    with transplanter.transplanted(chosen):
        there = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any(not torch.equal(tensor, model.state_dict()[name]) for name, tensor in there.items())
    assert all(torch.equal(tensor, there[name]) for name, tensor in written.state_dict().items())
    assert {path: path.read_bytes() for path in student.iterdir()} == before
