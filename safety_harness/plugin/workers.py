"""How a run is spread over processes: as many as memory allows, one student whole on one of them."""

from __future__ import annotations

import os
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


def student_of(nodeid: str, students: Sequence[str]) -> str:
    """What must stay on one worker: the student that a test's brackets name, or the test itself.

    A suite may have parameters of its own: ``test_x[alpha/one-hot]`` is alpha/one's.
    """
    _, _, parameters = nodeid.partition("[")
    named = [name for name in students if f"-{name}-" in f"-{parameters.removesuffix(']')}-"]
    return max(named, key=len, default=nodeid)


def student_scheduler(config: pytest.Config, log: Any, students: Sequence[Student]) -> Any:
    """An xdist scheduler that sends all tests of a student to the same worker, which loads it once.

    ``--dist=loadgroup`` would do, but is silently ineffective with pytest 9.2 and xdist 3.8.
    """
    from xdist.scheduler import LoadScopeScheduling

    ids = [student.id for student in students]

    class StudentScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not followed
        def _split_scope(self, nodeid: str) -> str:
            return student_of(nodeid, ids)

    return StudentScheduling(config, log)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
