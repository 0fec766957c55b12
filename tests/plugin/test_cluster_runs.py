"""Run suites over Ray clusters of this machine: as a local run, and never green where something is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import write_project
from tests.plugin.test_live import SLOW, in_a_terminal
from tests.ray_cluster import LOADED, ROOT, SECONDS_TO_END, LocalCluster, Runs, in_time

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,  # a cluster takes half a minute to start, and each run five seconds
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"),
]
# All nodes of the tests see one disk: a file that is at the controller alone.
NOWHERE = """
from safety_harness.plugin.cluster import jobs
found = jobs.expected
def here(*of):
    wanted = found(*of)
    return {**wanted, "files": {**wanted["files"], "/nowhere/registry.toml": "0" * 64}}
jobs.expected = here
"""
# The first attempt dies in the middle of its student.
DIES = """
import os, pathlib
def test_dies(student):
    first = pathlib.Path({folder!r}) / student.evaluator.student.name
    if student.evaluator.student.name == "two" and not (first.exists() and {once}):
        first.touch()
        os._exit(9)
"""
SLEEPS = """
import pathlib, time
def test_sleeps(student):
    pathlib.Path({folder!r}, "asleep").touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Start a cluster of two nodes, for tests that kill none."""
    with LocalCluster() as made:
        for _ in range(2):
            made.add(variables={"PYTHONPATH": str(ROOT)})
        yield made


@pytest.fixture
def runs(tmp_path: Path, cluster: LocalCluster) -> Callable[..., Runs]:
    """Write a project, and return what runs it."""

    def write(**parts: Any) -> Runs:
        write_project(tmp_path, **parts)
        (tmp_path / "loaded.py").write_text(LOADED)
        return Runs(tmp_path, cluster)

    return write


def test_a_dead_process_is_tried_again(runs: Callable[..., Runs], tmp_path: Path) -> None:
    code, said = runs(more=DIES.format(folder=str(tmp_path), once=True)).run()
    assert code == 0, said
    assert "ray: alpha/two: attempt 1 of 3 was lost. " in said
    assert "gate: PASS" in said


def test_a_student_that_is_lost_is_inconclusive(runs: Callable[..., Runs], tmp_path: Path) -> None:
    """Let each attempt die: with no retries the first is the last. The other student passes."""
    project = runs(more=DIES.format(folder=str(tmp_path), once=False))
    with in_time():
        code, said = project.run("--gate-ray-retries", "0")
    assert code == 1, said
    table = project.results()
    assert {student["id"]: student["outcome"] for student in table["students"]} == {
        "alpha/one": "pass", "alpha/two": "inconclusive",
    }  # fmt: skip
    lost = "alpha/two: no report came of this test: attempt 1 of 1 was lost. "
    assert any(lost in reason for reason in table["reasons"])


def test_a_task_that_returns_nothing_is_never_green(runs: Callable[..., Runs]) -> None:
    empty = "def pytest_collection_modifyitems(config, items):\n    if hasattr(config, 'workerinput'): items.clear()\n"
    project = runs(conftest=empty)
    with in_time():
        code, said = project.run()
    assert code == 1, said
    assert project.results()["outcome"] == "inconclusive"
    assert "no report came of this test: pytest ended with 5" in said


def test_one_failure_ends_a_run_that_asks_for_it(runs: Callable[..., Runs]) -> None:
    code, said = runs(students={"weak": "pass", "one": "pass"}).run("-x")
    assert code == 1, said
    assert "stopping after 1 failures" in said


def test_ctrl_c_ends_a_run_and_its_tasks(runs: Callable[..., Runs], tmp_path: Path, cluster: LocalCluster) -> None:
    project = runs(more=SLEEPS.format(folder=str(tmp_path)))
    process = project.start()
    project.wait_for("asleep")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert project.results()["outcome"] == "inconclusive"
    _wait_for_idle(cluster, began)


def test_a_killed_controller_ends_its_tasks(runs: Callable[..., Runs], tmp_path: Path, cluster: LocalCluster) -> None:
    project = runs(more=SLEEPS.format(folder=str(tmp_path)))
    process = project.start()
    project.wait_for("asleep")
    began = time.monotonic()
    process.kill()
    process.communicate()
    assert project.results()["outcome"] == "inconclusive"
    _wait_for_idle(cluster, began)


def _wait_for_idle(cluster: LocalCluster, began: float) -> None:
    """Wait until no process of the cluster runs a task."""
    while any(node.workers() for node in cluster.nodes):
        assert time.monotonic() - began < SECONDS_TO_END
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (
            ("--gate-threads", "64"),
            {},
            "alpha/one: no node that lives has what it needs (64 CPU of at most 1 CPU a node)",
        ),
        (("--gate-ray-resource", "gpus"), {}, "no node has the resource 'gpus' and has a core for tasks. Add one."),
        ((), {"RAY_AUTH_TOKEN": "beef" * 16}, "does not accept this machine's token, or there is none"),
        ((), {"RAY_AUTH_TOKEN": ""}, "does not accept this machine's token, or there is none"),
        (("--gate-ray-insecure",), {"RAY_AUTH_MODE": "disabled"}, "does not accept this machine's token"),
    ],
)
def test_a_run_that_cannot_begin_says_why(
    runs: Callable[..., Runs], arguments: tuple[str, ...], variables: dict[str, str], says: str
) -> None:
    with in_time():
        code, said = runs().run(*arguments, **variables)
    assert code == pytest.ExitCode.USAGE_ERROR, said
    (error,) = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    assert says in error


def test_a_cluster_without_tokens_is_refused(tmp_path: Path) -> None:
    """Refuse it, use it where that is said to be wanted, and refuse to wait for a port that is none of Ray's."""
    write_project(tmp_path, students={"one": "pass"})
    (tmp_path / "loaded.py").write_text(LOADED)
    with LocalCluster(token=False) as open_:
        open_.add()
        project = Runs(tmp_path, open_)
        code, said = project.run(RAY_AUTH_MODE="disabled")
        assert code == pytest.ExitCode.USAGE_ERROR
        assert "lets anybody in without a token, and whoever gets in runs code on its nodes" in said
        code, said = project.run("--gate-ray-insecure")
        assert code == 0, said
        assert "(authentication: NO token, as --gate-ray-insecure says)" in said


# --- Nodes that differ, and nodes that die ---------------------------------------------------------------------------


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    """Start a cluster whose head runs no task."""
    with LocalCluster() as made:
        made.add(cpus=0)
        yield made


@pytest.mark.parametrize("kind", ["other code", "no code", "no registry"])
def test_a_node_that_differs_is_named(own_cluster: LocalCluster, tmp_path: Path, kind: str) -> None:
    """Let a node have another version of the package, one that cannot be imported, or no registry."""
    copy, folder = tmp_path / "copy", tmp_path / "project"
    says = "node 127.0.0.3: has another safety_harness than the machine where the run was started."
    folder.mkdir()
    write_project(folder)
    (folder / "loaded.py").write_text(LOADED)
    copy.mkdir()
    if kind == "other code":
        shutil.copytree(ROOT / "safety_harness", copy / "safety_harness", ignore=shutil.ignore_patterns("families"))
    elif kind == "no code":
        says = "node 127.0.0.3: cannot be compared with this machine ("
        (copy / "safety_harness.py").touch()  # which hides a package that is installed
    else:
        copy, says = ROOT, "node 127.0.0.3: lacks /nowhere/registry.toml. Copy it there, to the same path, or share"
        (folder / "loaded.py").write_text(NOWHERE)
    own_cluster.add(variables={"PYTHONPATH": str(copy)})
    project = Runs(folder, own_cluster)
    with in_time():
        process = project.start()
        said, _ = process.communicate(timeout=4 * SECONDS_TO_END)
    assert process.returncode == pytest.ExitCode.USAGE_ERROR, said
    assert says in said, said


def test_the_only_fitting_node_may_die(tmp_path: Path) -> None:
    """Kill the node that a student runs on, where no other has what it needs: the run says so, and ends in time.

    Ray takes a quarter of a minute of that to notice, as it is set up by default.
    """
    write_project(tmp_path, students={"one": "pass"}, more=SLEEPS.format(folder=str(tmp_path)))
    (tmp_path / "loaded.py").write_text(LOADED)
    with LocalCluster(fast=False) as own:
        own.add(cpus=0)
        node = own.add()
        project = Runs(tmp_path, own)
        process = project.start()
        project.wait_for("asleep")
        node.kill()
        with in_time():
            said, _ = process.communicate(timeout=4 * SECONDS_TO_END)
    assert process.returncode == 1, said
    assert "no node that lives has what it needs" in said
    assert project.results()["outcome"] == "inconclusive"


def test_a_search_goes_on_on_another_node_without_a_shared_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the node that searches, whose disk is lost with it: the other node goes on from the controller's copy.

    At the end the patch is in the controller's cache, from where a third node has it without a search.
    """
    here = tmp_path / "here"
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(here))
    asked = ("suites", "--gate-student", "tiny-llama/arithmetic", "--gate-report-dir", str(tmp_path / "reports"))
    with LocalCluster() as own:
        own.add(cpus=0)
        project = Runs(tmp_path, own)
        nodes = [own.add(variables={"SAFETY_HARNESS_CACHE": str(tmp_path / name)}) for name in ("a", "b")]
        process = project.start_suites(*asked)
        until = time.monotonic() + 4 * SECONDS_TO_END
        while (held := _answers(here)) < 8:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.1)
        (busy,) = [node for node in nodes if node.workers()]
        busy.kill()
        shutil.rmtree(tmp_path / ("a" if busy is nodes[0] else "b"))
        said, _ = process.communicate(timeout=8 * SECONDS_TO_END)
        assert process.returncode == 0, said
        assert "tiny-llama/arithmetic: attempt 1 of 3 was lost. " in said
        patch = project.patch()
        assert patch["probes"] - len(patch["course"]) >= held
        (kept,) = (here / "patches").glob("*/patch.json")
        assert json.loads(kept.read_text())["units"] == patch["units"]
        assert _answers(here) == 0

        (other,) = [node for node in nodes if node is not busy]
        other.kill()
        own.add(variables={"SAFETY_HARNESS_CACHE": str(tmp_path / "c")})
        process = project.start_suites(*asked)
        said, _ = process.communicate(timeout=8 * SECONDS_TO_END)
        assert process.returncode == 0, said
        assert project.patch() == patch


def _answers(cache: Path) -> int:
    """Return how many answers the journals in *cache* hold."""
    journals = (cache / "patches").glob("*.journal")
    return sum(max(0, len(journal.read_text().splitlines()) - 1) for journal in journals)


WHERE = """
import os
import ray
def test_where(student, measure):
    cores = ray.get_runtime_context().get_assigned_resources()["CPU"]
    measure.about(gpu=os.environ["CUDA_VISIBLE_DEVICES"], process=os.getpid(), cores=cores)
"""


def test_each_task_sees_its_own_gpu_from_a_fresh_process(own_cluster: LocalCluster, tmp_path: Path) -> None:
    """Give a node a stand-in for the driver, and two GPUs that two students of 30 GiB share at a time."""
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 81920\necho 81920\n")
    driver.chmod(0o755)
    path = f"{driver.parent}:{os.environ['PATH']}"
    own_cluster.add(cpus=8, gpus=2, variables={"PATH": path, "CUDA_VISIBLE_DEVICES": "0,1"})
    names = {f"s{number}": "pass" for number in range(6)}
    write_project(tmp_path, students=names, more=WHERE)
    registry = tmp_path / "registry.toml"
    registry.write_text(registry.read_text().replace("[families.alpha]\n", "[families.alpha]\nmemory_gib = 30\n"))
    (tmp_path / "loaded.py").write_text(LOADED)
    project = Runs(tmp_path, own_cluster)
    code, said = project.run()
    assert code == 0, said
    about = [student["about"] for student in project.results()["students"]]
    assert {one["gpu"] for one in about} == {"0", "1"}
    assert {one["cores"] for one in about} == {2}
    assert len({one["process"] for one in about}) == 6


def test_a_terminal_sees_what_tasks_do(tmp_path: Path, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    write_project(tmp_path, {"one": "pass"}, SLOW.replace("range(4)", "range(15)"))
    code, written = in_a_terminal(tmp_path, "--gate-ray", cluster.address)
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
    assert code == 0, plain
    assert re.search(r"r0   alpha/one +[━╸╺]+ 9 units, \d+ probes, 3/9 refused, ~0:01:00 left", plain)
