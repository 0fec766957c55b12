"""Make room for a judge: beside its student, or in its place while the judge reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safety_harness.registry.judges import JudgeRow, ModelJudge

if TYPE_CHECKING:
    from safety_harness.evaluation.answering import Answering
    from safety_harness.evaluation.evaluator import Evaluator
    from safety_harness.judges.kept import Kept

GIB = 2**30


@contextlib.contextmanager
def room_for(row: JudgeRow, evaluator: Answering, judge: Kept) -> Iterator[None]:
    """Let a judge have the memory that its *row* says, while it is asked.

    Beside the student, where a GPU has room for both. Otherwise the student waits in the machine's memory, and the
    judge is released before the student comes back.
    """
    if evaluator.student.spec.served or not isinstance(row, ModelJudge) or not _too_small(row.memory_gib):
        yield
        return
    with _aside(evaluator.weighed):
        try:
            yield
        finally:
            judge.judge.close()


@contextlib.contextmanager
def _aside(evaluator: Evaluator) -> Iterator[None]:
    """Let a student wait in the machine's memory. One that is spread over several devices stays where it is."""
    import torch

    model = evaluator.generator.model
    first, *others = {parameter.device for parameter in model.parameters()}
    if others:
        yield
        return
    evaluator.generator.forget()
    model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        model.to(first)


def _too_small(memory_gib: float) -> bool:
    """Return whether a GPU is in use that has less than so much memory left."""
    import torch

    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < memory_gib * GIB
