"""Write a checkpoint with other numbers in some of its tensors, for a program that reads it once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from safety_harness.errors import SourceError
from safety_harness.files import explain_disk_errors
from safety_harness.patch.tensor_bytes import Raw, stored_tensors, with_channels
from safety_harness.weights.checkpoint import Checkpoint, companions


@dataclass(frozen=True)
class Change:
    """The new bits of one tensor: of its *indices* along *axis*, or of all of it where there are none."""

    bits: Raw
    axis: int
    indices: Sequence[int]


def write_changed(checkpoint: Checkpoint, changes: Mapping[str, Change], out: Path) -> None:
    """Write *checkpoint* with *changes*, by tensor, to the new folder *out*. Files that stay as they are become links.

    Raises:
        SourceError: what was written does not read back.
        HarnessError: the disk is full or may not be written to.
    """
    places = stored_tensors(checkpoint)
    touched = {places[name].file for name in changes}
    with explain_disk_errors(out):
        for file in (*checkpoint.shards, *companions(checkpoint.folder)):
            target = out / file.relative_to(checkpoint.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file in touched:
                shutil.copyfile(file, target)
            elif not target.exists():
                target.symlink_to(file.resolve())
        for name, change in changes.items():
            place = places[name]
            written = replace(place, file=out / place.file.relative_to(checkpoint.folder))
            bits = with_channels(written.read(), change.axis, change.indices, change.bits)
            place.write(bits, written.file)
            if not np.array_equal(written.read(), bits):
                raise SourceError(f"{written.file}: {name} was not written as it should be. Check the disk.")
