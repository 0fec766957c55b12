"""Estimate what a fleet takes for students: waves, wall time, device-hours, bytes to read, and where it stops scaling.

The arithmetic stands next to each figure. A device is a GPU, or a core where there is none.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from safety_harness.errors import ConfigError
from safety_harness.evaluation.estimate import (
    HARMFUL_QUESTIONS,
    HARMLESS_QUESTIONS,
    TASK_QUESTIONS,
    Device,
    Sketch,
    asking_seconds,
    prior_seconds,
    probe_seconds,
    seconds_by_outcome,
)
from safety_harness.registry.load import Student
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.units import grouped

# Seconds in which a process imports torch, transformers and scipy.
IMPORTS = 12.0
# Bytes a second: sha256 of one core (measured); both models compared tensor by tensor; weights from memory to a device
# and their CUDA graphs. The last two are rounded from single runs.
HASHING, COMPARING, LOADING = 1.64e9, 2.7e9, 2.25e9
# Bytes a second that a local NVMe disk reads, where the user names no other rate.
DISK = 3e9
# Of the 17 searches in reports/smollm2.json, for each of 30 groups: 57 probes, and 23.5 groups that are kept.
PROBES_PER_GROUP, KEPT_PER_GROUP = 1.9, 0.78
# Probes in which a search looks for its start, one at a time. The rest may be asked ahead.
START_PROBES = 8
# Held-out questions of reports/smollm2.json; those that are only reported count as harmful.
HELD_OUT_HARMFUL, HELD_OUT_HARMLESS, HELD_OUT_TASK = 328, 256, 64
# How many times as fast a search is by probes ahead: the last row of benchmarks/ddmin/ahead.md.
SPEED_AHEAD = {1: 1.0, 2: 1.8, 4: 3.0, 8: 4.9}
# A further GPU is worth naming where it takes more than this share off the wall time.
WORTH = 0.01


@dataclass(frozen=True)
class Work:
    """What gating one student takes on one device. ``parts`` are seconds by what they are for, without reading.

    ``own`` is the student's bytes, and ``shared`` are those of other models by name: its teacher's. ``memory`` is in
    bytes, of one copy.
    """

    student: str
    own: int
    shared: Mapping[str, int]
    memory: int
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Fleet:
    """Nodes with devices, of which each search gets ``ahead``. Each node reads ``disk`` bytes a second."""

    devices: int
    nodes: int
    ahead: int = 1
    disk: float = DISK

    @property
    def places(self) -> int:
        """How many students one node gates at a time."""
        return self.devices // self.ahead


@dataclass(frozen=True)
class Outlay:
    """What a fleet takes: students one after the other on a device, seconds, device-hours held and bytes read."""

    used: int
    waves: int
    seconds: float
    device_hours: float
    read: int


def work(student: Student, sketches: Sequence[Sketch], memory: int, device: Device) -> Work:
    """Estimate what gating *student* takes on *device*. The last of the *sketches* is the student's own."""
    *others, model = sketches
    shared = {str(spec): sketch.disk for spec, sketch in zip(student.models, others, strict=False)}
    settings, most = student.search, student.family.max_new_tokens
    groups = len(
        grouped(enumerate_units(model.config, model.shapes, settings.roles, settings.components), settings.together)
    )
    probe = probe_seconds(student, model, device)
    lost, _, accepted = seconds_by_outcome(student, model, device)
    searched = min(settings.max_probes, PROBES_PER_GROUP * groups)

    def asking(harmful: int, harmless: int, task: int) -> float:
        """Estimate the seconds of asking so many questions in full."""
        counts = (harmful, harmless, task if student.spec.task else 0)
        return sum(asking_seconds(student, model, device, count, most) for count in counts)

    held_out = asking(HELD_OUT_HARMFUL, HELD_OUT_HARMLESS, HELD_OUT_TASK)
    parts = {
        "imports": IMPORTS,
        "hashing": model.disk / HASHING,
        "comparing with the teacher": sum(sketch.disk for sketch in sketches) / COMPARING,
        "loading": model.disk / LOADING,
        "answers of student and teacher": asking(HARMFUL_QUESTIONS, HARMLESS_QUESTIONS, TASK_QUESTIONS)
        + asking(HARMFUL_QUESTIONS, 0, 0),
        "prior": prior_seconds(student, model, device),
        "start of the search": min(START_PROBES, searched) * probe,
        "search": max(0.0, searched - START_PROBES) * probe,
        "minimality": accepted + KEPT_PER_GROUP * groups * lost,
        # The student as it is and patched, and its teacher without the task.
        "held-out questions": 2 * held_out + asking(HELD_OUT_HARMFUL - 200, HELD_OUT_HARMLESS, 0),
    }
    return Work(student.id, model.disk, shared, memory, parts)


def outlay(works: Sequence[Work], fleet: Fleet) -> Outlay:
    """Estimate what *fleet* takes for all *works*, each student on the device that is free first.

    Students are spread over the nodes. A node's devices read from one disk. Its page cache holds the teacher, which is
    also hashed once a node.

    Raises:
        ConfigError: a node has fewer devices than a search gets.
    """
    if not fleet.places:
        raise ConfigError(
            f"--ahead {fleet.ahead} takes {fleet.ahead} devices of one node, and a node has {fleet.devices}. Give more "
            "--gpus, or less --ahead."
        )
    # Free at, then in the order in which the nodes take turns.
    free = [(0.0, order, order % fleet.nodes) for order in range(min(len(works), fleet.places * fleet.nodes))]
    readers = min(fleet.places, -(-len(works) // fleet.nodes))
    # When each shared model is there, node by node.
    there: list[dict[str, float]] = [{} for _ in range(min(len(works), fleet.nodes))]
    gated = dict.fromkeys(range(len(free)), 0)
    read, end = 0, 0.0
    for one in works:
        at, order, node = heapq.heappop(free)
        begun = at
        for name, size in one.shared.items():
            if name not in there[node]:
                there[node][name] = begun + size / fleet.disk + size / HASHING
                read += size
            at = max(at, there[node][name])
        read += one.own
        at += one.own * readers / fleet.disk + seconds(one, fleet.ahead)
        gated[order] += 1
        end = max(end, at)
        heapq.heappush(free, (at, order, node))
    used = sum(count > 0 for count in gated.values()) * fleet.ahead
    return Outlay(used, max(gated.values()), end, used * end / 3600, read)


def seconds(one: Work, ahead: int) -> float:
    """Return the seconds of one student's parts, with probes *ahead*. Only the search gets shorter by them."""
    known = max(count for count in SPEED_AHEAD if count <= ahead)
    return sum(one.parts.values()) - one.parts["search"] * (1 - 1 / SPEED_AHEAD[known])


def most_useful(works: Sequence[Work], fleet: Fleet) -> int:
    """Return the number of devices that shortens *works* most: one node is filled, then nodes are added."""
    places = min(fleet.places, len(works))
    sizes = [replace(fleet, devices=count * fleet.ahead, nodes=1) for count in range(1, places + 1)]
    sizes += [replace(fleet, nodes=count) for count in range(2, -(-len(works) // places) + 1)]
    enough = (1 + WORTH) * outlay(works, sizes[-1]).seconds
    least = bisect_left(sizes, True, key=lambda size: outlay(works, size).seconds <= enough)
    return outlay(works, sizes[least]).used
