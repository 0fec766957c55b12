"""Spread a run over as many processes as memory allows, each student on one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safety_harness.evaluation.machine import cores as _cores
from safety_harness.gate.incidents import student_of

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student

GIB = 2**30
FREE_CORES = "safety_free_cores"
"""Key of a worker's input: how many cores of its host were idle when the run began."""
NEIGHBOURS = "safety_neighbours"
"""Key of a worker's input: how many workers its host has."""


def affordable_workers(students: Sequence[Student], *, available: int | None = None, on_gpu: int | None = None) -> int:
    """Return the number of processes for *students*: at most one a core, one a place, and as many as fit in memory.

    *available* is the machine's free memory in bytes, and *on_gpu* the free memory of the first GPU, which all workers
    share. Each is measured when it is None.
    """
    import psutil

    free = psutil.virtual_memory().available if available is None else available
    free_on_gpu = _free_on_gpu() if on_gpu is None else on_gpu
    scarcest = free if free_on_gpu is None else min(free, free_on_gpu)
    largest = max((student.family.memory_gib for student in students if not student.spec.served), default=0.0) * GIB
    fitting = [int(scarcest // largest)] if largest else []
    return max(1, min(_cores(), len({_place(student) for student in students}), *fitting))


def place_of(nodeid: str, students: Sequence[Student]) -> str:
    """Return what a test has to stay in one process with; the test itself, if it is about no student."""
    places = {student.id: _place(student) for student in students}
    name = student_of(nodeid, list(places))
    return places.get(name, name)


def _place(student: Student) -> str:
    """Return what has to stay in one process: a student, or all of whom one server answers for.

    A server's `concurrency` and `requests_per_minute` hold in one process.
    """
    return student.spec.served.host if student.spec.served else student.id


def free_cores() -> int:
    """Return how many cores are idle, at least 1, by a look of a fifth of a second.

    Two threads on a core that another process keeps busy can be several times slower than one.
    """
    import psutil

    return max(1, round(_cores() * (1 - psutil.cpu_percent(interval=0.2) / 100)))


def threads_of_worker(config: pytest.Config) -> int:
    """Return how many threads torch gets in this process: ``--gate-threads``, or its share of the idle cores."""
    if config.option.safety_threads:
        return int(config.option.safety_threads)
    # The controller looks before its workers begin, because these keep the cores busy themselves.
    given = getattr(config, "workerinput", None)
    return free_cores() if given is None else max(1, given[FREE_CORES] // given.get(NEIGHBOURS, given["workercount"]))


def student_scheduler(config: pytest.Config, log: Any, students: Sequence[Student]) -> Any:
    """Return an xdist scheduler that sends all tests of a student to one worker, which loads the student once.

    All students of one server go to one worker, too.

    ``--dist=loadgroup`` would do that too, but has no effect with pytest 9.2 and xdist 3.8, and does not say so.
    """
    from xdist.scheduler import LoadScopeScheduling

    class StudentScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not followed
        def _split_scope(self, nodeid: str) -> str:
            return place_of(nodeid, students)

    return StudentScheduling(config, log)


def _free_on_gpu() -> int | None:
    """Return the free memory, in bytes, of the first GPU that torch would see, or None without one.

    The driver's own program is asked, because importing torch would slow down the start of pytest.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if shutil.which("nvidia-smi") is None or first in ("", "-1"):
        return None
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
