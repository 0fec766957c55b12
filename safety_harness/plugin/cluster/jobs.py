"""Make one job of each student's tests, and compare every node with this machine before any runs."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safety_harness.errors import ConfigError, masked
from safety_harness.gate.incidents import student_of
from safety_harness.plugin import alike
from safety_harness.plugin.cluster import placing, task
from safety_harness.plugin.options import by_subject
from safety_harness.plugin.workers import place_of

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student

# A process of Ray takes seconds to start, and a minute on a node that is busy.
SECONDS_TO_SURVEY = 120
_NOBODYS = "tests about no student"


@dataclass
class Job:
    """The tests of a student, or of all whom one server answers for, and what their task needs."""

    line: str
    """The name of its live line."""
    name: str
    items: list[pytest.Item]
    need: placing.Need
    attempts: int = 0
    unfit_since: float | None = None


def prepared(
    session: pytest.Session, students: Sequence[Student], say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Job]]:
    """Return what every task is told, and one job for each student, each of which some node can run.

    *say* is told what a user should know of the nodes.

    Raises:
        ConfigError: no node runs tests, one differs from this machine, or none has what a student needs.
    """
    config, option = session.config, session.config.option
    if not (nodes := placing.nodes_with(option.safety_ray_resource)):
        marked = f" has the resource {option.safety_ray_resource!r} and" if option.safety_ray_resource else ""
        raise ConfigError(f"--gate-ray {option.safety_ray}: no node{marked} has a core for tasks. Add one.")
    order = {
        "expected": expected(session, students),
        "searches": not option.safety_patches and "patched" in by_subject(config, students),
        "environment": task.environment(os.environ),
        "arguments": [str(argument) for argument in config.invocation_params.args],
        "folder": str(config.invocation_params.dir),
        # Settled when the run began: since then it is itself the latest.
        "results": {name: str(getattr(option, name) or "") for name in ("safety_patches", "safety_earlier")},
    }
    smallest_gpu = _surveyed(nodes, order, say)
    places = {student.id: place_of(f"[{student.id}]", students) for student in students}
    groups: dict[str, list[pytest.Item]] = {}
    for item in session.items:
        groups.setdefault(places.get(student_of(item.nodeid, list(places)), _NOBODYS), []).append(item)
    jobs = []
    for number, (name, items) in enumerate(groups.items()):
        own = [student for student in students if places[student.id] == name]
        need = placing.need_of(
            own,
            nodes,
            len(groups),
            smallest_gpu,
            option.safety_threads,
            option.safety_ray_resource,
            option.safety_ahead,
        )
        if not placing.fits(need, nodes):
            raise ConfigError(f"--gate-ray {option.safety_ray}: {name}: {placing.misfit(need, nodes)}.")
        jobs.append(Job(f"r{number}", name, items, need))
    return order, jobs


def expected(session: pytest.Session, students: Sequence[Student]) -> dict[str, Any]:
    """Return what each node must have, with the files that this run reads by their path."""
    config = session.config
    conftests = [plugin.__file__ for plugin in config.pluginmanager.get_plugins() if _is_conftest(plugin)]
    files = [*config.option.safety_registry, *(item.path for item in session.items), *conftests]
    option = config.option
    given = [
        config.inipath, config.invocation_params.dir, option.safety_patches, option.safety_earlier,
        option.safety_labels,
    ]  # fmt: skip
    return alike.described({*files, *filter(None, given), *alike.sources(students)})


def _is_conftest(plugin: object) -> bool:
    return str(getattr(plugin, "__file__", None) or "").endswith("conftest.py")


def _surveyed(nodes: Sequence[Mapping[str, Any]], order: Mapping[str, Any], say: Callable[[str], None]) -> float | None:
    """Let each node compare itself with this machine. Return the memory of the smallest GPU, in GiB, if it is known.

    Raises:
        ConfigError: a node differs, or does not answer.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked, gpus = ray.remote(num_cpus=0, max_retries=0)(task.survey), []
    answers = {
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            json.dumps(order)
        ): node
        for node in nodes
    }
    ray.wait(list(answers), num_returns=len(answers), timeout=SECONDS_TO_SURVEY)
    for answer, node in answers.items():
        try:
            found = json.loads(ray.get(answer, timeout=0))
            fault, nice = found["fault"], found["nice"]
            if nice:
                say(
                    f"node {node['NodeManagerAddress']} runs tasks at nice {nice}, behind all other work there. Start "
                    "Ray with RAY_worker_niceness=0, unless it has nothing else to do."
                )
            gpus += [found["gpu_gib"]] if node["Resources"].get("GPU") else []
        except GetTimeoutError:
            fault = f"does not answer within {SECONDS_TO_SURVEY} s. Start Ray there again, or take the node out."
        except RayError as error:
            fault = f"cannot be compared with this machine ({cause_of(error)}). Use one environment on all machines."
        except (ValueError, TypeError, KeyError):
            fault = "answers as another safety_harness does. Use one environment on all machines."
        if fault:
            raise ConfigError(f"--gate-ray: node {node['NodeManagerAddress']}: {fault}")
    return min(gpus) if gpus and None not in gpus else None


def cause_of(error: BaseException) -> str:
    """Return in one line why a task of Ray failed."""
    import ray

    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # The last line of a traceback is the error. Of Ray's own words the first say what happened.
    line = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
    return masked(textwrap.shorten(line, 300, placeholder=" …"))
