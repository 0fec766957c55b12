"""Compare two artifacts: which tensors both move, and whether to the same numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safety_harness.patch.folder import Artifact
from safety_harness.patch.manifest import Entry
from safety_harness.patch.tensor_bytes import taken


@dataclass(frozen=True)
class Difference:
    """One tensor of two patches, in counts of its channels (all of them if the tensor moves as a whole).

    ``only_first`` and ``only_second`` count the channels that one patch moves. ``same`` and ``different`` count the
    channels that both move, to equal or to different numbers. If shape, dtype or axis differ, every number counts as
    different.
    """

    tensor: str
    only_first: int
    only_second: int
    same: int
    different: int

    @property
    def equal(self) -> bool:
        """Whether both patches change the tensor alike."""
        return not (self.only_first or self.only_second or self.different)


def compare(first: Artifact, second: Artifact) -> tuple[Difference, ...]:
    """Return a difference for every tensor that either patch moves, by name."""
    entries = [{entry.tensor: entry for entry in artifact.manifest.entries} for artifact in (first, second)]
    return tuple(
        _difference(name, first, entries[0].get(name), second, entries[1].get(name))
        for name in sorted(entries[0].keys() | entries[1])
    )


def _difference(
    name: str, first: Artifact, first_entry: Entry | None, second: Artifact, second_entry: Entry | None
) -> Difference:
    entries = [entry for entry in (first_entry, second_entry) if entry]
    axes = {entry.axis for entry in entries if entry.axis is not None}
    if len({(entry.shape, entry.dtype) for entry in entries}) > 1 or len(axes) > 1:
        return Difference(name, 0, 0, 0, different=max(math.prod(entry.patch_shape) for entry in entries))
    axis = min(axes, default=0)
    in_first, in_second = _channels(first_entry, axis), _channels(second_entry, axis)
    shared = sorted(in_first & in_second)
    same = 0
    if first_entry and second_entry and shared:
        first_bits = taken(first.new(first_entry), axis, _positions(first_entry, shared))
        second_bits = taken(second.new(second_entry), axis, _positions(second_entry, shared))
        across = tuple(at for at in range(first_bits.ndim) if at != axis)
        same = int(np.count_nonzero((first_bits == second_bits).all(axis=across)))
    return Difference(name, len(in_first - in_second), len(in_second - in_first), same, len(shared) - same)


def _channels(entry: Entry | None, axis: int) -> set[int]:
    """Return the channels along *axis* that *entry* moves: all of them if the tensor moves as a whole."""
    if entry is None:
        return set()
    return set(entry.moved or range(entry.shape[axis] if entry.shape else 1))


def _positions(entry: Entry, channels: list[int]) -> list[int]:
    """Return where *channels* are in the tensor of the patch, which holds only those that it moves."""
    place = {channel: at for at, channel in enumerate(entry.moved)}
    return [place[channel] for channel in channels] if place else channels
