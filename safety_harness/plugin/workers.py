"""How a run is spread over processes: as many as memory allows, one student whole on one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safety_harness.gate.incidents import student_of

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student

GIB = 2**30


def affordable_workers(students: Sequence[Student], *, available: int | None = None, on_gpu: int | None = None) -> int:
    """Processes for these students: no more than cores, than students, and than fit into free memory (bytes).

    Where there is a GPU every worker puts its model on the first one, so that they share the free memory *on_gpu*.
    """
    import psutil

    free = psutil.virtual_memory().available if available is None else available
    shared = _free_on_gpu() if on_gpu is None else on_gpu
    largest = max(student.family.memory_gib for student in students) * GIB
    fitting = min(free, shared) if shared is not None else free
    return max(1, min(_cores(), len(students), int(fitting // largest)))


def threads_per_worker() -> int:
    """This process's share of the cores; two threads beside a busy process can be far slower than one."""
    return max(1, _cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


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


def _free_on_gpu() -> int | None:
    """Free memory of the first GPU that torch sees, in bytes, as its driver says, which takes no torch; None without
    one."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if shutil.which("nvidia-smi") is None or first in ("", "-1"):
        return None
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
