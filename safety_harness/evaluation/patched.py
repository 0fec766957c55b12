"""Write a student with any units in it as a checkpoint folder, and begin its answers here, to compare them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from safety_harness.conversation import Asked
from safety_harness.errors import SourceError
from safety_harness.files import cache_dir, staging
from safety_harness.models.memory import enough_memory
from safety_harness.models.transplant import Transplanter
from safety_harness.patch.changed_copy import Change, write_changed
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.moved import moved
from safety_harness.weights.units import Unit

if TYPE_CHECKING:
    from safety_harness.evaluation.evaluator import Evaluator


@contextlib.contextmanager
def patched_folder(evaluator: Evaluator, units: Sequence[Unit]) -> Iterator[Path]:
    """Yield a checkpoint folder of the student with *units* moved; as it is, its own. A copy goes with the block.

    Raises:
        SourceError: the checkpoint's number format cannot hold what was moved.
        HarnessError: the disk is full or may not be written to.
    """
    checkpoint = evaluator.checkpoint
    if not units:
        yield checkpoint.folder
        return
    changes = changes_of(checkpoint, evaluator.transplanter, units, evaluator.student.id)
    with staging(cache_dir() / "engines" / secrets.token_hex(4)) as stage:
        write_changed(checkpoint, changes, stage / "model")
        yield stage / "model"


def changes_of(
    checkpoint: Checkpoint, transplanter: Transplanter, units: Sequence[Unit], student: str
) -> dict[str, Change]:
    """Return what *units* change in the *checkpoint* of *student*, tensor by tensor, in its own number formats.

    Raises:
        SourceError: a number format of the checkpoint cannot hold what was moved.
    """
    measured = transplanter.moving(units)
    changes = {}
    for part in moved(units):
        tensor = measured[part.name].to(checkpoint.dtype(part.name))
        if not torch.equal(tensor.to(measured[part.name].dtype), measured[part.name]):
            raise SourceError(
                f"{student}: {part.name} was moved in {measured[part.name].dtype}, and the checkpoint stores "
                f"{tensor.dtype}, which cannot hold it. Set `dtype` to that of the student, or leave out `backend`."
            )
        bits = tensor.contiguous().view(torch.uint8).numpy().view(f"u{tensor.element_size()}")
        changes[part.name] = Change(bits.reshape(tensor.shape), part.axis, part.indices)
    return changes


def beginnings(evaluator: Evaluator, units: Sequence[Unit], questions: Sequence[Asked], tokens: int) -> list[list[int]]:
    """Return the first *tokens* of the answer to each of *questions*, with *units* moved; fewer where it ends."""
    generator = evaluator.generator
    with enough_memory(f"{evaluator.student.id} is measured"), evaluator.transplanter.transplanted(units):
        return [generator.decode([generator.encode(question)], tokens)[0] for question in questions]
