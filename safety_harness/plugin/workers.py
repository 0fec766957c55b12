"""How a run is spread over processes: as many as memory allows, one student whole on one of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry import Student

GIB = 2**30


def affordable_workers(students: Sequence[Student], *, available: int | None = None) -> int:
    """Processes for these students: no more than cores, than students, and than fit into free memory (bytes)."""
    import psutil

    free = psutil.virtual_memory().available if available is None else available
    largest = max(student.family.memory_gib for student in students) * GIB
    return max(1, min(_cores(), len(students), int(free // largest)))


def threads_per_worker() -> int:
    """This process's share of the cores; two threads beside a busy process can be far slower than one."""
    return max(1, _cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def student_of(nodeid: str) -> str:
    """What must stay on one worker: the student in a test's brackets, or the test itself."""
    match = re.search(r"\[([^\[\]]+)\]$", nodeid)
    return match.group(1) if match else nodeid


def student_scheduler(config: pytest.Config, log: Any) -> Any:
    """An xdist scheduler that sends all tests of a student to the same worker, which loads it once.

    ``--dist=loadgroup`` would do, but is silently ineffective with pytest 9.2 and xdist 3.8.
    """
    from xdist.scheduler import LoadScopeScheduling

    class StudentScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not followed
        def _split_scope(self, nodeid: str) -> str:
            return student_of(nodeid)

    return StudentScheduling(config, log)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
