"""Put the teacher's units into the student, and take them out again bit for bit.

A tensor that moves as a whole changes places with the teacher's: the student's parameter is pointed at the other
storage. Channels are overwritten, and restored from a copy. The cost of a switch is therefore the cost of what it
changes, and nothing is rounded. On a GPU, the numbers of a whole tensor are swapped instead: a CUDA graph knows weights
by their addresses, and copying costs less than capturing a graph again.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from safety_harness.errors import UnitError
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.moved import Moved, moved
from safety_harness.weights.units import Part, Spot, Unit

# How many more components are looked for than are taken: the last ones come out inexact.
_MORE = 8


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

    def factors(self, part: Part, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the *rank* largest components of what moving a whole matrix adds: float32, on the CPU.

        Their shapes are (rows, rank), times the singular values, and (rank, columns).
        """
        key = part.disk.name, rank
        if key not in self._factors:
            difference = self.difference(part).cpu()
            with torch.random.fork_rng([]):
                torch.manual_seed(0)  # where the method begins to look for the components
                left, sizes, right = torch.svd_lowrank(difference, min(rank + _MORE, *difference.shape), niter=4)
            self._factors[key] = (left * sizes)[:, :rank].contiguous(), right[:, :rank].T.contiguous()
        return self._factors[key]

    def _numbers(self, move: Moved) -> torch.Tensor:
        """Return what a move puts into the student of one tensor, in its shape on disk, in the student's dtype."""
        student, teacher = self._both(move.part)
        if not move.components:
            return _taken(teacher, move.axis, move.indices)
        left, right = self.factors(move.part, move.rank)
        at = list(move.components)
        return (student.float() + (left[:, at] @ right[at]).to(student.device)).to(student.dtype)

    def _both(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the student's own and the teacher's numbers of one tensor, wherever they are, in its shape on disk."""
        donor, inside = self._donor(part), self._in_model(part)
        student, teacher = (donor, inside) if part.disk.name in self._exchanged else (inside, donor)
        for move, own in reversed(self._overwritten[part.disk.name]):
            at = torch.tensor(move.indices or range(own.shape[move.axis]), device=student.device)
            student = student.index_copy(move.axis, at, own)
        return student, teacher

    def _in_model(self, part: Part) -> torch.Tensor:
        """Return the model's present numbers of one tensor of the checkpoint, in its shape on disk."""
        data = self._parameters[part.memory.name].data
        return data if part.alike else channels_of(data, part.memory)

    def _donor(self, part: Part) -> torch.Tensor:
        """Return the numbers that a whole tensor of the checkpoint gets from the teacher, or got in exchange."""
        name = part.disk.name
        if name not in self._donated:
            parameter = self._parameters.get(part.memory.name)
            if parameter is None:
                raise UnitError(
                    f"The student has no tensor {part.memory.name!r} in memory; its architecture's row is wrong."
                )
            student = self._in_model(part)  # unmoved so far: a tensor is read before it first moves
            tensor = self._teacher.tensor(name)
            if tensor.shape != student.shape:
                raise UnitError(f"{name}: teacher {tuple(tensor.shape)}, student {tuple(student.shape)}.")
            if self._ancestor is not None:
                tensor = student.float().cpu() + (tensor.float() - self._ancestor.tensor(name).float())
            self._donated[name] = tensor.to(device=parameter.device, dtype=parameter.dtype)
        return self._donated[name]


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
