"""Put the teacher's units into the student, and take them out again bit for bit.

A unit goes in by pointing the student's parameter at the teacher's tensor, and comes out by pointing it back at
its own storage, which was never written to: nothing is copied, nothing is rounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from safety_harness.errors import UnitError
from safety_harness.units import Unit
from safety_harness.weights import Checkpoint


class Transplanter:
    """Moves units of *teacher* into *model*, which stays the student's between two transplants.

    The teacher's tensors are read on first use, cast to the student's dtype, and only those of units that were
    ever asked for are held.
    """

    def __init__(self, model: Any, teacher: Checkpoint) -> None:
        self._parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self._teacher = teacher
        self._donated: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def transplanted(self, units: Iterable[Unit]) -> Iterator[None]:
        """Run a block with *units* of the teacher in the student; restored also when the block raises.

        Raises:
            UnitError: the model has no such tensor, or one of another shape.
        """
        donated = {name: self._donor(name) for unit in units for name in unit.tensors}
        own = {name: self._parameters[name].data for name in donated}
        try:
            for name, tensor in donated.items():
                self._parameters[name].data = tensor
            yield
        finally:
            for name, tensor in own.items():
                self._parameters[name].data = tensor

    def difference(self, unit: Unit) -> torch.Tensor:
        """Teacher minus student over all of *unit*'s numbers: float32, shape (unit.parameters,)."""
        return torch.cat([(self._donor(n).float() - self._parameters[n].data.float()).flatten() for n in unit.tensors])

    def save(self, units: Iterable[Unit], path: Path) -> None:
        """Write the teacher's tensors of *units*, in the student's names and dtype, as safetensors."""
        save_file({name: self._donor(name).cpu().contiguous() for unit in units for name in unit.tensors}, path)

    def _donor(self, name: str) -> torch.Tensor:
        if name not in self._donated:
            parameter = self._parameters.get(name)
            if parameter is None:
                raise UnitError(f"The student has no tensor {name!r} in memory; its architecture's row is wrong.")
            tensor = self._teacher.tensor(name).to(device=parameter.device, dtype=parameter.dtype)
            if tensor.shape != parameter.shape:
                raise UnitError(f"{name}: teacher {tuple(tensor.shape)}, student {tuple(parameter.shape)}.")
            self._donated[name] = tensor
        return self._donated[name]
