"""Put the teacher's units into the student, and take them out again bit for bit.

A whole module goes in by pointing the student's parameter at the teacher's tensor, and comes out by pointing it back at
its own storage. Channels are overwritten, and restored from a copy. The cost of a switch is therefore the cost of what
it changes, and nothing is rounded. On a GPU, the numbers of a whole module are swapped with the teacher's: a CUDA graph
knows weights by their addresses, and copying costs less than capturing a graph again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from safety_harness.errors import UnitError
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Part, Spot, Unit, moved


class Donor(Protocol):
    """A source of tensors under the student's names: a teacher's checkpoint, or something made of one."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor."""


class Transplanter:
    """Moves units of *teacher* into *model*, which is the plain student between two transplants.

    The teacher's tensors are read on first use and cast to the student's dtype. Only tensors of units that were moved
    before are held. With an *ancestor* of student and teacher, what moves is what the teacher learnt since: student +
    (teacher - ancestor), summed in float32 and rounded once (task arithmetic, arXiv 2212.04089). At most one
    transplanter may have units in one model at a time.
    """

    def __init__(self, model: Any, teacher: Donor, ancestor: Checkpoint | None = None) -> None:
        self._parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self._teacher = teacher
        self._ancestor = ancestor
        self._donated: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def transplanted(self, units: Iterable[Unit]) -> Iterator[None]:
        """Run a block with *units* of the teacher in the student, and restore the student even if the block raises.

        Raises:
            UnitError: the model lacks a tensor of a unit, or has it in another shape.
        """
        # Everything is read and checked before anything moves.
        moves = [(move, self._donor(move.part)) for move in moved(units)]
        with contextlib.ExitStack() as undo:
            for move, donor in moves:
                spot = move.part.memory
                parameter = self._parameters[spot.name]
                whole = not (move.indices or move.memory or spot.within)
                if whole and parameter.device.type == "cpu":
                    undo.callback(setattr, parameter, "data", parameter.data)
                    parameter.data = donor
                    continue
                if whole:
                    undo.callback(_swap, parameter.data, donor)
                    _swap(parameter.data, donor)
                    continue
                target = parameter.data[spot.within]
                if move.memory:
                    at = torch.tensor(move.memory, device=target.device)
                    undo.callback(target.index_copy_, move.axis, at, target.index_select(move.axis, at))
                    target.index_copy_(move.axis, at, _taken(donor, move.axis, move.indices))
                else:
                    undo.callback(target.copy_, target.clone())
                    target.copy_(donor)
            yield

    def difference(self, part: Part) -> torch.Tensor:
        """Return what moving a unit's part of one tensor adds to the student's numbers, on the model's device.

        The result is float32 and has the tensor's shape on disk, with only the unit's channels along its axis, in
        order. A tensor that belongs to no channel (axis -1) is returned whole.

        Raises:
            UnitError, SourceError: the teacher or the ancestor lacks the tensor, or has it in another shape.
        """
        return channels_of(self._donor(part).float() - self._student(part).float(), part.disk)

    def moving(self, units: Iterable[Unit]) -> dict[str, torch.Tensor]:
        """Return what *units* put into the student, by the checkpoint's names, in the student's dtype, on the CPU.

        A tensor that moves in part is cut down to the indices that move, ascending.
        """
        return {
            move.name: _taken(self._donor(move.part), move.axis, move.indices).cpu().contiguous()
            for move in moved(units)
        }

    def _student(self, part: Part) -> torch.Tensor:
        """Return the student's numbers of one tensor of the checkpoint, in its shape on disk."""
        data = self._parameters[part.memory.name].data
        return data if part.alike else channels_of(data, part.memory)

    def _donor(self, part: Part) -> torch.Tensor:
        """Return the numbers that a whole tensor of the checkpoint would get from the teacher."""
        name = part.disk.name
        if name not in self._donated:
            parameter = self._parameters.get(part.memory.name)
            if parameter is None:
                raise UnitError(
                    f"The student has no tensor {part.memory.name!r} in memory; its architecture's row is wrong."
                )
            student = self._student(part)  # unmoved so far: a tensor is read before it first moves
            tensor = self._teacher.tensor(name)
            if tensor.shape != student.shape:
                raise UnitError(f"{name}: teacher {tuple(tensor.shape)}, student {tuple(student.shape)}.")
            if self._ancestor is not None:
                tensor = student.float().cpu() + (tensor.float() - self._ancestor.tensor(name).float())
            self._donated[name] = tensor.to(device=parameter.device, dtype=parameter.dtype)
        return self._donated[name]


def _swap(one: torch.Tensor, other: torch.Tensor) -> None:
    """Exchange the numbers of two tensors in place."""
    copy = one.clone()
    one.copy_(other)
    other.copy_(copy)


def channels_of(tensor: torch.Tensor, spot: Spot) -> torch.Tensor:
    """Return the numbers of a unit's channels in *tensor*, in their order along its axis, or all if the axis is -1.

    The result has the tensor's dtype, without the leading dimensions that the spot lies *within*.
    """
    inner = tensor[spot.within]
    if spot.whole:
        return inner
    at = torch.tensor(spot.places.of(range(len(spot.places))), device=tensor.device)
    return inner.index_select(spot.axis, at)


def _taken(tensor: torch.Tensor, axis: int, indices: Sequence[int]) -> torch.Tensor:
    """Return *tensor* cut down to *indices* along *axis*, or all of it without indices."""
    return tensor.index_select(axis, torch.tensor(indices, device=tensor.device)) if indices else tensor
