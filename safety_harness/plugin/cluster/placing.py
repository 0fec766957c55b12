"""Say what a student's task asks of a node, and which nodes have as much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safety_harness.registry.load import Student

GIB = 2**30
Need = Mapping[str, float]
"""Ray's name of a resource -> amount."""
# Of a node's custom resource a task takes so little that the resource marks nodes, and limits nothing.
_MARK = 0.001


def nodes_with(resource: str | None) -> list[dict[str, Any]]:
    """Return Ray's records of the nodes that live and run tasks; of those with *resource* alone, if it is given."""
    import ray

    return [
        node for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1 and (not resource or resource in node["Resources"])
    ]  # fmt: skip


def need_of(
    students: Sequence[Student],
    nodes: Sequence[Mapping[str, Any]],
    tasks: int,
    smallest_gpu: float | None,
    threads: int | None = None,
    resource: str | None = None,
    copies: int = 1,
) -> dict[str, float]:
    """Return what the task of *students*, who stay in one process, asks for, where *tasks* tasks share *nodes*.

    A GPU is shared by as many tasks as fit into the *smallest_gpu*, in GiB, once there are more tasks than GPUs. A task
    gets the cores of its share of a node, or *threads*. With probes ahead it holds several *copies* of a student, each
    with its own memory and its share of the cores, one at least, and where there are GPUs, with whole ones of its own.
    """
    marked = {resource: _MARK} if resource else {}
    memory = max((student.memory_gib for student in students), default=0.0)
    if not memory:  # asks a server, or is about no student
        return {"CPU": 1.0, **marked}
    have = [node["Resources"] for node in nodes]
    if gpus := sum(one.get("GPU", 0) for one in have):
        share = _share(memory, smallest_gpu, most=math.ceil(tasks / gpus))
        share = share if copies == 1 else float(copies * math.ceil(share))
        cores = min(one["CPU"] / one["GPU"] * share for one in have if one.get("GPU"))
        return {"CPU": _cores(cores, threads, copies), "GPU": share, **marked}
    cores = min(sum(one["CPU"] for one in have) / tasks, *(one["CPU"] for one in have))
    return {"CPU": _cores(cores, threads, copies), "memory": copies * memory * GIB, **marked}


def _cores(own: float, threads: int | None, copies: int) -> float:
    """Return how many cores a task asks for, of its *own*: as many for each of *copies*, or *threads* for all."""
    return float(max(copies, threads or int(own) // copies * copies))


def _share(memory: float, gpu: float | None, most: int) -> float:
    """Return how many GPUs *memory* GiB need: 1/k of one that at *most* so many tasks share, or several whole ones."""
    fitting = (gpu or memory) / memory
    if fitting < 1:
        return float(math.ceil(memory / (gpu or memory)))
    return math.floor(10_000 / min(most, int(fitting))) / 10_000  # Ray counts to four places


def fits(need: Need, nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether one of *nodes*, were it idle, has what is needed."""
    return any(all(node["Resources"].get(name, 0) >= amount for name, amount in need.items()) for node in nodes)


def misfit(need: Need, nodes: Sequence[Mapping[str, Any]]) -> str:
    """Return in words what is needed and no node has, with the way out."""
    most = {name: max((node["Resources"].get(name, 0) for node in nodes), default=0) for name in need}
    asked = ", ".join(
        f"{_amount(name, amount)} of at most {_amount(name, most[name])} a node"
        for name, amount in need.items() if amount > most[name]
    )  # fmt: skip
    return (
        f"no node that lives has what it needs ({asked or 'all of it on one node'}). Add one, or ask for less by "
        "`memory_gib` in the registry, --gate-threads or --gate-ahead"
    )


def options(need: Need) -> dict[str, Any]:
    """Return *need* as Ray's options of a task."""
    known = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    given: dict[str, Any] = {known[name]: amount for name, amount in need.items() if name in known}
    return given | {"resources": {name: amount for name, amount in need.items() if name not in known}}


def _amount(name: str, amount: float) -> str:
    return f"{amount / GIB:.1f} GiB" if name == "memory" else f"{amount:g} {name}"
