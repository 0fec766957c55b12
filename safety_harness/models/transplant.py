"""Put the teacher's units into the student, and take them out again bit for bit.

A whole module goes in by pointing the student's parameter at the teacher's tensor, and comes out by pointing it back at
its own storage. Channels are written over, and written back from a copy: what a switch costs is what it changes.
Nothing is rounded either way. On a GPU a whole module's numbers change places with the teacher's: a recorded pass
(recorded.py) knows the weights by where they lie, and to copy costs less than to record anew.
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
    """Where tensors come from, by the student's names: a teacher's checkpoint, or something made of one."""

    def tensor(self, name: str) -> torch.Tensor: ...


class Transplanter:
    """Moves units of *teacher* into *model*, which stays the student's between two transplants.

    The teacher's tensors are read on first use, cast to the student's dtype, and only those of units that were
    ever asked for are held. With an *ancestor* of both, what moves is what the teacher learnt since: student +
    (teacher - ancestor), summed in float32 and rounded once (task arithmetic, arXiv 2212.04089). Of one model, at most
    one transplanter may have units in at a time.
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
        # All is read and checked before anything moves.
        moves = [(what, self._donor(what.part)) for what in moved(units)]
        with contextlib.ExitStack() as undo:
            for what, donor in moves:
                spot = what.part.memory
                parameter = self._parameters[spot.name]
                whole = not (what.indices or what.memory or spot.within)
                if whole and parameter.device.type == "cpu":
                    undo.callback(setattr, parameter, "data", parameter.data)
                    parameter.data = donor
                    continue
                if whole:
                    undo.callback(_change_places, parameter.data, donor)
                    _change_places(parameter.data, donor)
                    continue
                own = parameter.data[spot.within]
                if what.memory:
                    at = torch.tensor(what.memory, device=own.device)
                    undo.callback(own.index_copy_, what.axis, at, own.index_select(what.axis, at))
                    own.index_copy_(what.axis, at, _taken(donor, what.axis, what.indices))
                else:
                    undo.callback(own.copy_, own.clone())
                    own.copy_(donor)
            yield

    def difference(self, part: Part) -> torch.Tensor:
        """What moving a unit's part of one tensor adds to the student's, on the model's device.

        float32, in the tensor's shape on disk with the unit's channels alone along its axis, in order; all of it where
        it belongs to no channel (axis -1).

        Raises:
            UnitError, SourceError: the teacher or the ancestor has no such tensor, or one of another shape.
        """
        return channels_of(self._donor(part).float() - self._own(part).float(), part.disk)

    def moving(self, units: Iterable[Unit]) -> dict[str, torch.Tensor]:
        """What *units* put into the student, by the checkpoint's names, in the student's dtype, on the CPU.

        Of a tensor that moves in part, the indices that move, ascending.
        """
        return {
            what.name: _taken(self._donor(what.part), what.axis, what.indices).cpu().contiguous()
            for what in moved(units)
        }

    def _own(self, part: Part) -> torch.Tensor:
        """The student's numbers of one tensor of the checkpoint, in its shape there."""
        data = self._parameters[part.memory.name].data
        return data if part.alike else channels_of(data, part.memory)

    def _donor(self, part: Part) -> torch.Tensor:
        name = part.disk.name
        if name not in self._donated:
            parameter = self._parameters.get(part.memory.name)
            if parameter is None:
                raise UnitError(
                    f"The student has no tensor {part.memory.name!r} in memory; its architecture's row is wrong."
                )
            own = self._own(part)  # still the student's: nothing moves before it was read
            tensor = self._teacher.tensor(name)
            if tensor.shape != own.shape:
                raise UnitError(f"{name}: teacher {tuple(tensor.shape)}, student {tuple(own.shape)}.")
            if self._ancestor is not None:
                tensor = own.float().cpu() + (tensor.float() - self._ancestor.tensor(name).float())
            self._donated[name] = tensor.to(device=parameter.device, dtype=parameter.dtype)
        return self._donated[name]


def _change_places(one: torch.Tensor, other: torch.Tensor) -> None:
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)


def channels_of(tensor: torch.Tensor, spot: Spot) -> torch.Tensor:
    """Of a *tensor* the numbers of a unit's channels, in their order along its axis; all of it where that is -1.

    In the tensor's dtype, without the leading dimensions that the spot lies *within*.
    """
    inner = tensor[spot.within]
    if spot.whole:
        return inner
    at = torch.tensor(spot.places.of(range(len(spot.places))), device=tensor.device)
    return inner.index_select(spot.axis, at)


def _taken(tensor: torch.Tensor, axis: int, indices: Sequence[int]) -> torch.Tensor:
    return tensor.index_select(axis, torch.tensor(indices, device=tensor.device)) if indices else tensor
