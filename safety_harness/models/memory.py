"""Tell running out of memory from other errors, and say what a user can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from safety_harness.errors import SourceError, remark

# On a CPU, torch raises a plain RuntimeError that quotes the operating system.
_CPU_ALLOCATOR_TEXTS = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether *error* says that torch or Python found no memory."""
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return named or any(text in str(error) for text in _CPU_ALLOCATOR_TEXTS)


def memory_error(activity: str, further_advice: str = "") -> SourceError:
    """Return the error for memory that ends during *activity*, where no batch is left to halve."""
    return SourceError(
        f"Out of memory while {activity}. Use fewer workers (-n), or raise `memory_gib` in the registry, by which -n "
        f"auto counts them{further_advice}."
    )


def halved(rows: int) -> int:
    """Return the size of smaller batches than of *rows*, and warn: in bfloat16 an answer depends on its batch."""
    remark(
        f"Out of memory with {rows} questions at once; going on with {rows // 2}. Set `batch_size = {rows // 2}` in "
        "the registry, so that other runs ask alike."
    )
    return rows // 2


@contextlib.contextmanager
def enough_memory(activity: str, further_advice: str = "") -> Iterator[None]:
    """Run a block that does *activity*, and say what the user can do if memory ends within it.

    Raises:
        SourceError: memory ended.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise memory_error(activity, further_advice) from error
