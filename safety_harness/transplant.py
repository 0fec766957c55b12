"""Put the teacher's units into the student, and take them out again bit for bit.

A whole module goes in by pointing the student's parameter at the teacher's tensor, and comes out by pointing it back at
its own storage. Channels are written over, and written back from a copy: what a switch costs is what it changes.
Nothing is rounded either way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from safety_harness.errors import UnitError
from safety_harness.units import Unit, moved
from safety_harness.weights import Checkpoint


class Donor(Protocol):
    """Where tensors come from, by the student's names: a teacher's checkpoint, or something made of one."""

    def tensor(self, name: str) -> torch.Tensor: ...


@dataclass(frozen=True)
class _Move:
    """What goes into one tensor: all of it, or some channels along a dimension."""

    name: str
    donated: torch.Tensor
    axis: int
    channels: torch.Tensor | None


class Transplanter:
    """Moves units of *teacher* into *model*, which stays the student's between two transplants.

    The teacher's tensors are read on first use, cast to the student's dtype, and only those of units that were
    ever asked for are held. With an *ancestor* of both, what moves is what the teacher learnt since: student +
    (teacher - ancestor), summed in float32 and rounded once (task arithmetic, arXiv 2212.04089).
    """

    def __init__(self, model: Any, teacher: Donor, ancestor: Checkpoint | None = None) -> None:
        self._parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self._teacher = teacher
        self._ancestor = ancestor
        self._donated: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def transplanted(self, units: Iterable[Unit]) -> Iterator[None]:
        """Run a block with *units* of the teacher in the student; restored also when the block raises.

        Raises:
            UnitError: the model has no such tensor, or one of another shape.
        """
        moves = self._moves(units)  # all is read and checked before anything moves
        with contextlib.ExitStack() as undo:
            for move in moves:
                parameter = self._parameters[move.name]
                own = parameter.data
                if move.channels is None:
                    undo.callback(setattr, parameter, "data", own)
                    parameter.data = move.donated
                else:
                    undo.callback(own.index_copy_, move.axis, move.channels, own.index_select(move.axis, move.channels))
                    own.index_copy_(move.axis, move.channels, move.donated)
            yield

    def difference(self, name: str) -> torch.Tensor:
        """What moving all of one tensor adds to the student's: float32, in its shape."""
        return self._donor(name).float() - self._parameters[name].data.float()

    def save(self, units: Iterable[Unit], path: Path) -> None:
        """Write what *units* put into the student, in the student's names and dtype, as safetensors.

        Of a tensor that moves in part, the channels that move, in ascending order.
        """
        save_file({move.name: move.donated.cpu().contiguous() for move in self._moves(units)}, path)

    def _moves(self, units: Iterable[Unit]) -> list[_Move]:
        """What *units* do to each tensor, whatever of it they share."""
        moves = []
        for what in moved(units):
            donor = self._donor(what.name)
            at = torch.tensor(what.channels, device=donor.device) if what.channels else None
            donated = donor if at is None else donor.index_select(what.axis, at)
            moves.append(_Move(what.name, donated, what.axis, at))
        return moves

    def _donor(self, name: str) -> torch.Tensor:
        if name not in self._donated:
            parameter = self._parameters.get(name)
            if parameter is None:
                raise UnitError(f"The student has no tensor {name!r} in memory; its architecture's row is wrong.")
            tensor = self._teacher.tensor(name)
            if self._ancestor is not None:
                own = parameter.data.float().cpu()  # still the student's: nothing moves before it was read
                tensor = own + (tensor.float() - self._ancestor.tensor(name).float())
            tensor = tensor.to(device=parameter.device, dtype=parameter.dtype)
            if tensor.shape != parameter.shape:
                raise UnitError(f"{name}: teacher {tuple(tensor.shape)}, student {tuple(parameter.shape)}.")
            self._donated[name] = tensor
        return self._donated[name]
