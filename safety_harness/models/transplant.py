"""Put the teacher's units into the student, and take them out again bit for bit.

A tensor that moves as a whole changes places with the teacher's: the student's parameter is pointed at the other
storage. Channels are overwritten, and restored from a copy. The cost of a switch is therefore the cost of what it
changes, and nothing is rounded. On a GPU, the numbers of a whole tensor are swapped instead: a CUDA graph knows weights
by their addresses, and copying costs less than capturing a graph again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from safety_harness.errors import NotFinite, SourceError, UnitError
from safety_harness.models.components import largest_components
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.moved import Moved, moved
from safety_harness.weights.units import Part, Spot, Unit


class Donor(Protocol):
    """A source of tensors under the student's names: a teacher's checkpoint, or something made of one."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor."""


class Transplanter:
    """Moves units of *teacher* into *model*, which is the plain student between two transplants.

    The teacher's tensors are read on first use and cast to the student's dtype. Only tensors of units that were moved
    before are held. With an *ancestor* of student and teacher, what moves is what the teacher learnt since: student +
    (teacher - ancestor), summed in float32 and rounded once (task arithmetic, arXiv 2212.04089). Components are summed
    in float64. At most one transplanter may have units in one model at a time.
    """

    def __init__(self, model: Any, teacher: Donor, ancestor: Checkpoint | None = None) -> None:
        self._parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self._teacher = teacher
        self._ancestor = ancestor
        self._donated: dict[str, torch.Tensor] = {}
        self._factors: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self._exchanged: set[str] = set()
        """Tensors of the checkpoint that model and teacher have exchanged: ``_donated`` holds the student's numbers."""
        self._overwritten: defaultdict[str, list[tuple[Moved, torch.Tensor]]] = defaultdict(list)
        """What moves of a tensor in part, and the student's numbers there, the innermost transplant last."""

    @contextlib.contextmanager
    def transplanted(self, units: Iterable[Unit]) -> Iterator[None]:
        """Run a block with *units* of the teacher in the student, and restore the student even if the block raises.

        Raises:
            UnitError: the model lacks a tensor of a unit, or has it in another shape.
        """
        moves = moved(units)
        for move in moves:  # everything is read and checked before anything moves
            if move.components:
                self.factors(move.part, move.rank)
            else:
                self._donor(move.part)
        with contextlib.ExitStack() as undo:
            for move in moves:
                if move.name in self._exchanged:
                    continue  # an outer transplant has moved all of it
                if move.indices or move.components:
                    self._overwrite(move, undo)
                else:
                    undo.callback(self._restore, move)
                    self._exchange(move)
            yield

    def _restore(self, move: Moved) -> None:
        """Exchange all numbers of one tensor again, unless the first exchange failed."""
        if move.name in self._exchanged:
            self._exchange(move)

    def _exchange(self, move: Moved) -> None:
        """Let the model and the teacher exchange all numbers of one tensor. A second exchange restores both."""
        spot, donor = move.part.memory, self._donated[move.name]
        parameter = self._parameters[spot.name]
        target = parameter.data[spot.within]
        if move.memory:
            at = torch.tensor(move.memory, device=target.device)
            own = target.index_select(move.axis, at)
            target.index_copy_(move.axis, at, donor)
            donor.copy_(own)
        elif spot.within or parameter.device.type != "cpu":
            own = target.clone()
            target.copy_(donor)
            donor.copy_(own)
        else:
            parameter.data, self._donated[move.name] = donor, parameter.data
        self._exchanged ^= {move.name}

    def _overwrite(self, move: Moved, undo: contextlib.ExitStack) -> None:
        """Put channels or components of one tensor into the model, and let *undo* restore what was there."""
        spot, overwritten = move.part.memory, self._overwritten[move.name]
        target = self._parameters[spot.name].data[spot.within]
        # What an outer transplant has added stays: its components and these are summed, and rounded once.
        both = {*move.components, *(index for outer, _ in overwritten for index in outer.components)}
        new = self._numbers(replace(move, components=tuple(sorted(both))))
        at = torch.tensor(move.memory or range(new.shape[move.axis]), device=target.device)
        own = target.index_select(move.axis, at)
        undo.callback(target.index_copy_, move.axis, at, own)
        target.index_copy_(move.axis, at, new)
        overwritten.append((move, own))
        undo.callback(overwritten.pop)

    def difference(self, part: Part) -> torch.Tensor:
        """Return what moving a unit's part of one tensor adds to the student's own numbers, on their device.

        This is independent of what has moved. The result is float32 and has the tensor's shape on disk, with only the
        unit's channels along its axis, in order. A tensor that belongs to no channel (axis -1) is returned whole.

        Raises:
            UnitError, SourceError: the teacher or the ancestor lacks the tensor, or has it in another shape.
        """
        student, teacher = self._both(part)
        # One float32 copy, changed in place: a large model has no room for a second one.
        difference = channels_of(teacher, part.disk).to(torch.float32, copy=True)
        return difference.sub_(channels_of(student, part.disk))

    def moving(self, units: Iterable[Unit]) -> dict[str, torch.Tensor]:
        """Return what *units* put into the student, by the checkpoint's names, in the student's dtype, on the CPU.

        A tensor that moves in part is cut down to the indices that move, ascending.
        """
        return {move.name: self._numbers(move).cpu().contiguous() for move in moved(units)}

    def digest(self, units: Iterable[Unit]) -> str:
        """Return a sha256 over the names and the bytes of what *units* put into the student."""
        hashed = hashlib.sha256()
        for name, tensor in sorted(self.moving(units).items()):
            hashed.update(name.encode())
            hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return hashed.hexdigest()

    def factors(self, part: Part, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the *rank* largest components of what the teacher adds to a whole matrix, since the ancestor if any.

        In float32, on the CPU: shapes (rows, rank) and (rank, columns).

        Raises:
            UnitError, SourceError: as :meth:`difference`. Or it holds a NaN or an infinity.
        """
        key = part.disk.name, rank
        if key not in self._factors:
            own = self._own(part)
            teacher = self._of_teacher(part, own).float()
            base = own.cpu() if self._ancestor is None else self._ancestor.tensor(part.disk.name)
            try:
                self._factors[key] = largest_components(teacher - base.float(), rank)
            except NotFinite as error:
                raise SourceError(f"{part.disk.name}: {error} Choose another teacher.") from error
        return self._factors[key]

    def _numbers(self, move: Moved) -> torch.Tensor:
        """Return what a move puts into the student of one tensor, in its shape on disk, in the student's dtype."""
        if not move.components:
            return _taken(self._teachers(move.part), move.axis, move.indices)
        own = self._own(move.part)
        left, right = (factor.to(own.device).double() for factor in self.factors(move.part, move.rank))
        at = list(move.components)
        # In float64 products are exact, and sums differ between processors far below what is kept.
        return own.to(torch.float64, copy=True).addmm_(left[:, at], right[at]).to(own.dtype)

    def _both(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the student's own and the teacher's numbers of one tensor, wherever they are, in its shape on disk."""
        return self._own(part), self._teachers(part)

    def _teachers(self, part: Part) -> torch.Tensor:
        """Return the teacher's numbers of one tensor, wherever they are, in its shape on disk."""
        return self._in_model(part) if part.disk.name in self._exchanged else self._donor(part)

    def _own(self, part: Part) -> torch.Tensor:
        """Return the student's own numbers of one tensor, wherever they are, in its shape on disk."""
        name = part.disk.name
        own = self._donated[name] if name in self._exchanged else self._in_model(part)
        for move, before in reversed(self._overwritten[name]):
            at = torch.tensor(move.indices or range(before.shape[move.axis]), device=own.device)
            own = own.index_copy(move.axis, at, before)
        return own

    def _in_model(self, part: Part) -> torch.Tensor:
        """Return the model's present numbers of one tensor of the checkpoint, in its shape on disk."""
        parameter = self._parameters.get(part.memory.name)
        if parameter is None:
            raise UnitError(
                f"The student has no tensor {part.memory.name!r} in memory; its architecture's row is wrong."
            )
        data = parameter.data
        return data if part.alike else channels_of(data, part.memory)

    def _donor(self, part: Part) -> torch.Tensor:
        """Return the numbers that a whole tensor of the checkpoint gets from the teacher, or got in exchange."""
        name = part.disk.name
        if name not in self._donated:
            student = self._in_model(part)  # unmoved so far: a tensor is read before it first moves
            tensor = self._of_teacher(part, student)
            if self._ancestor is not None:
                tensor = student.float().cpu() + (tensor.float() - self._ancestor.tensor(name).float())
            self._donated[name] = tensor.to(device=student.device, dtype=student.dtype)
        return self._donated[name]

    def _of_teacher(self, part: Part, student: torch.Tensor) -> torch.Tensor:
        """Return the teacher's tensor, which must have the shape of the *student*'s."""
        tensor = self._teacher.tensor(part.disk.name)
        if tensor.shape != student.shape:
            raise UnitError(f"{part.disk.name}: teacher {tuple(tensor.shape)}, student {tuple(student.shape)}.")
        return tensor


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
