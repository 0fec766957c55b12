"""Two artifacts side by side: what both move, and whether they move it to the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safety_harness.patch.folder import Artifact
from safety_harness.patch.manifest import Entry
from safety_harness.patch.tensor_bytes import taken


@dataclass(frozen=True)
class Difference:
    """One tensor of two patches: how many indices (all of them where a tensor moves as a whole) only the first moves,
    only the second, both to the same numbers, and both to different ones. Of tensors that are no two versions of one,
    every number is different."""

    tensor: str
    only_first: int
    only_second: int
    same: int
    different: int

    @property
    def equal(self) -> bool:
        """Whether both patches do the same to it."""
        return not (self.only_first or self.only_second or self.different)


def compare(first: Artifact, second: Artifact) -> tuple[Difference, ...]:
    """Every tensor that either patch moves, by name."""
    ours = {entry.tensor: entry for entry in first.manifest.entries}
    theirs = {entry.tensor: entry for entry in second.manifest.entries}
    return tuple(
        _difference(name, first, ours.get(name), second, theirs.get(name)) for name in sorted(ours.keys() | theirs)
    )


def _difference(name: str, first: Artifact, ours: Entry | None, second: Artifact, theirs: Entry | None) -> Difference:
    entries = [entry for entry in (ours, theirs) if entry]
    axes = {entry.axis for entry in entries if entry.axis is not None}
    if len({(entry.shape, entry.dtype) for entry in entries}) > 1 or len(axes) > 1:
        return Difference(name, 0, 0, 0, different=max(math.prod(entry.patch_shape) for entry in entries))
    axis = min(axes, default=0)
    mine, other = _channels(ours, axis), _channels(theirs, axis)
    shared = sorted(mine & other)
    same = 0
    if ours and theirs and shared:
        one = taken(first.new(ours), axis, _positions(ours, shared))
        two = taken(second.new(theirs), axis, _positions(theirs, shared))
        beside = tuple(at for at in range(one.ndim) if at != axis)
        same = int(np.count_nonzero((one == two).all(axis=beside)))
    return Difference(name, len(mine - other), len(other - mine), same, len(shared) - same)


def _channels(entry: Entry | None, axis: int) -> set[int]:
    if entry is None:
        return set()
    return set(entry.moved or range(entry.shape[axis] if entry.shape else 1))


def _positions(entry: Entry, channels: list[int]) -> list[int]:
    """Where *channels* lie in the tensor of the patch."""
    place = {channel: at for at, channel in enumerate(entry.moved)}
    return [place[channel] for channel in channels] if place else channels
