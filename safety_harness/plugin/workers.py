"""Spread a run over as many processes as memory allows, each student on one of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safety_harness.evaluation.gpus import VISIBLE, Gpu, visible_gpus
from safety_harness.evaluation.machine import cores as _cores
from safety_harness.gate.incidents import student_of
from safety_harness.plugin.placement import Share, deal

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student

GIB = 2**30
FREE_CORES = "safety_free_cores"
"""Key of a worker's input: how many cores of its host were idle when the run began."""
NEIGHBOURS = "safety_neighbours"
"""Key of a worker's input: how many workers its host has."""
ROOM = "safety_room"
"""Attribute of a worker's xdist spec: how many bytes of its GPUs are its own. A restarted worker has the same spec."""


def affordable_workers(
    students: Sequence[Student],
    *,
    available: int | None = None,
    gpus: Sequence[Gpu] | None = None,
    ahead: int = 1,
) -> int:
    """Return the number of processes for *students*: at most one a core, one a place, and as many as fit in memory.

    *available* is the machine's free memory in bytes, which has room for as many of the largest student. *gpus* have
    room for students of unequal size. Each is measured when it is None. Each process has *ahead* copies of its student.
    """
    import psutil

    free = psutil.virtual_memory().available if available is None else available
    devices = visible_gpus() if gpus is None else gpus
    needs = _needs(students)
    largest = max(needs.values(), default=0)
    fitting = [int(free // (largest * ahead))] if largest else []
    most = max(1, min(_cores() // ahead, len(needs), *fitting))
    return max(1, len(_dealt(needs, devices, most, ahead))) if devices else most


def pin(specs: Sequence[Any], students: Sequence[Student], gpus: Sequence[Gpu], ahead: int = 1) -> list[str]:
    """Show each worker of *specs* its share of *gpus* and no other GPU. Return lines that a user should know.

    A spec of another machine, or whose GPUs the user chose in it (``env:CUDA_VISIBLE_DEVICES=``), is left as it is.
    Each worker has *ahead* copies of its student.
    """
    local = [spec for spec in specs if spec.popen and not spec.via and VISIBLE not in spec.env]
    if not (local and gpus):
        return []
    needs = _needs(students)
    shares = _dealt(needs, gpus, len(local), ahead)
    without = [Share(tuple(gpus[:1]), 0)] * (len(local) - len(shares))  # they may run tests of no student
    for spec, share in zip(local, [*shares, *without], strict=True):
        setattr(spec, ROOM, share.room)
        if names := [gpu.id for gpu in share.gpus if gpu.id is not None]:
            spec.env[VISIBLE] = ",".join(names)
    lines = list(_too_large(students, gpus, shares))
    if len(shares) < min(len(local), len(needs)):
        lines.append(
            f"-n {len(local)}: by memory_gib the GPUs have room for {len(shares)} workers, and the others get no "
            "student. Lower memory_gib in the registry if the students take less."
        )
    return lines


def _dealt(needs: Mapping[str, int], gpus: Sequence[Gpu], most: int, ahead: int) -> list[Share]:
    """Return what up to *most* workers get of *gpus*: the places of *ahead* copies, as far as there is room."""
    dealt = deal([need for need in needs.values() for _ in range(ahead)], gpus, most * ahead)
    workers = [dealt[at : at + ahead] for at in range(0, len(dealt), ahead)]
    whole = [places for places in workers if len(places) == ahead] or workers
    return [
        Share(tuple(dict.fromkeys(gpu for place in places for gpu in place.gpus)), min(place.room for place in places))
        for places in whole
    ]


def _too_large(students: Sequence[Student], gpus: Sequence[Gpu], shares: Sequence[Share]) -> Iterator[str]:
    """Yield a line for each family that no GPU has room for."""
    largest = max(math.inf if gpu.free is None else gpu.free for gpu in gpus)
    families = {student.family.name: student.family for student in students if not student.spec.served}
    for family in families.values():
        if (need := family.memory_gib * GIB) > largest and not getattr(family, "device_map", None):
            home = min((share for share in shares if share.room >= round(need)), key=lambda share: share.room)
            yield (
                f"{family.name}: memory_gib is {family.memory_gib:g}, and no GPU has more than {largest / GIB:.1f} GiB "
                f"free. Its worker sees {len(home.gpus)} of {len(gpus)} GPUs: spread the model over several with "
                "`device_map` in the registry, gate it alone, or lower memory_gib if it takes less."
            )


def _needs(students: Sequence[Student]) -> dict[str, int]:
    """Return the bytes that each place takes; 0 where servers answer and judge."""
    return {_place(student): round(student.memory_gib * GIB) for student in students}


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

    All students of one server go to one worker, too. A worker gets the largest student that it has room for.

    ``--dist=loadgroup`` would send them so too, but has no effect with pytest 9.2 and xdist 3.8, and does not say so.
    """
    from xdist.scheduler import LoadScopeScheduling

    needs = _needs(students)

    class StudentScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not followed
        def _split_scope(self, nodeid: str) -> str:
            return place_of(nodeid, students)

        def schedule(self) -> None:
            # Where there are more workers than students, xdist ends the last ones: let these be the smallest.
            by_room = sorted(self.assigned_work.items(), key=lambda entry: -_room(entry[0]))
            self.assigned_work: dict[Any, Any] = dict(by_room)
            super().schedule()

        def _assign_work_unit(self, node: Any) -> None:
            if not (place := _largest_fitting(self.workqueue, needs, _room(node))):
                node.shutdown()  # what is left has room in another worker
                return
            self.workqueue.move_to_end(place, last=False)
            # Of a worker that is lost, xdist hears later, and gives its tests to others then.
            with contextlib.suppress(OSError):
                super()._assign_work_unit(node)

    return StudentScheduling(config, log)


def _room(node: Any) -> float:
    """Return how many bytes a student may take in the worker *node*."""
    room = getattr(node.gateway.spec, ROOM, None)
    return math.inf if room is None else float(room)


def _largest_fitting(places: Sequence[str] | Mapping[str, Any], needs: Mapping[str, int], room: float) -> str | None:
    """Return the place that takes most of those that fit into *room*, the first of equals; None if none fits."""
    fitting = [place for place in places if needs.get(place, 0) <= room]
    return max(fitting, key=lambda place: needs.get(place, 0), default=None)
