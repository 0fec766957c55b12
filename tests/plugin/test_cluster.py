"""Check what a run over a Ray cluster does before and after its tasks, without a cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from safety_harness.errors import HarnessError
from safety_harness.files import sha256_text
from safety_harness.patch.record import patch_folder
from safety_harness.plugin.cluster import connect, exchange, placing, task
from safety_harness.registry.load import Student, load_registry
from tests.plugin.conftest import RUN, write_project
from tests.plugin.test_workers import FOUR, without_places
from tests.ray_cluster import LOADED, LocalCluster, Runs
from tests.samples import family, write_registry

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")
KEY = sha256_text("a search")[:32]
JOURNAL = f"{KEY}.0123abcd.journal"


# --- What a task asks for ------------------------------------------------------------------------------------------


def students_of(folder: Path, memory: float) -> tuple[Student, ...]:
    return load_registry(write_registry(folder, family("alpha", {"one": "pass"}, f"memory_gib = {memory}"))).select()


def nodes_of(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": {"memory": 64 * placing.GIB, **each}} for each in resources]


@pytest.mark.parametrize(
    ("gpus", "gpu_gib", "memory", "tasks", "share", "cores"),
    [
        (8, 80.0, 70.0, 17, 1.0, 8),
        (8, 80.0, 30.0, 17, 0.5, 4),  # two fit, and each GPU has three tasks to do
        (8, 80.0, 30.0, 8, 1.0, 8),  # there is a GPU for each
        (8, 80.0, 25.0, 64, 0.3333, 2),
        (8, 80.0, 90.0, 17, 2.0, 16),
        (8, 80.0, 641.0, 1, 9.0, 72),  # no node has as many
        (8, None, 30.0, 17, 1.0, 8),  # its driver does not say how much a GPU holds
    ],
)
def test_a_task_gets_its_share_of_a_gpu_and_of_the_cores(
    tmp_path: Path, gpus: int, gpu_gib: float | None, memory: float, tasks: int, share: float, cores: int
) -> None:
    nodes = nodes_of({"CPU": 64, "GPU": gpus})
    need = placing.need_of(students_of(tmp_path, memory), nodes, tasks, gpu_gib)
    assert need == {"GPU": share, "CPU": cores}
    assert placing.fits(need, nodes) == (share <= 8)
    assert placing.options(need) == {"num_gpus": share, "num_cpus": cores, "resources": {}}


@pytest.mark.parametrize(
    ("nodes", "tasks", "threads", "cores"),
    [((8, 8), 4, None, 4), ((8, 8), 17, None, 1), ((64, 4), 2, None, 4), ((8, 8), 17, 3, 3), ((2, 2), 1, 64, 64)],
)
def test_a_task_without_a_gpu_gets_its_share_of_the_cores(
    tmp_path: Path, nodes: tuple[int, ...], tasks: int, threads: int | None, cores: int
) -> None:
    have = nodes_of(*({"CPU": cpus} for cpus in nodes))
    need = placing.need_of(students_of(tmp_path, 2.0), have, tasks, None, threads, "big")
    assert need == {"CPU": cores, "memory": 2 * placing.GIB, "big": 0.001}
    assert not placing.fits(need, have)  # none has the custom resource
    assert "0.001 big of at most 0 big a node" in placing.misfit(need, have)


@pytest.mark.parametrize(
    ("have", "threads", "need"),
    [
        ({"CPU": 64, "GPU": 8}, None, {"CPU": 24, "GPU": 3}),  # a whole GPU for each copy, though two fit
        ({"CPU": 60, "GPU": 8}, None, {"CPU": 21, "GPU": 3}),  # as many cores for each
        ({"CPU": 64, "GPU": 8}, 12, {"CPU": 12, "GPU": 3}),  # which they share
        ({"CPU": 64, "GPU": 8}, 2, {"CPU": 3, "GPU": 3}),
        ({"CPU": 8}, None, {"CPU": 3, "memory": 3 * 30 * placing.GIB}),
    ],
)
def test_probes_ahead_ask_for_each_copy(
    tmp_path: Path, have: dict[str, float], threads: int | None, need: dict[str, float]
) -> None:
    nodes = nodes_of(have)
    assert placing.need_of(students_of(tmp_path, 30.0), nodes, 17, 80.0, threads, copies=3) == need


def test_a_task_is_told_all_of_its_cores() -> None:
    """Let a task have the cores that it reserves: the copies of its student share them out in its own process."""
    from safety_harness.plugin.cluster.controller import ClusterRun
    from safety_harness.plugin.cluster.jobs import Job

    told: list[dict[str, Any]] = []
    run = ClusterRun(cast(Any, SimpleNamespace(option=SimpleNamespace(safety_ahead=3))), (), None)
    submitted = SimpleNamespace(remote=lambda order, _: told.append(json.loads(order)))
    run.submit = SimpleNamespace(options=lambda **_: submitted)
    run._submit(Job("r0", "alpha/one", [], {"CPU": 24.0, "GPU": 3.0}))
    assert told[0]["cores"] == 24


def test_tests_about_no_student_ask_for_a_core_alone() -> None:
    assert placing.need_of((), nodes_of({"CPU": 4, "GPU": 1}), 3, 80.0) == {"CPU": 1}


# --- What travels ----------------------------------------------------------------------------------------------------


def test_a_journal_is_kept_if_it_is_longer_and_a_patch_ends_it() -> None:
    folder = patch_folder(KEY)
    exchange.keep({JOURNAL: "one\n"})
    exchange.keep({JOURNAL: "one\ntwo\n"})
    exchange.keep({JOURNAL: "one\n"})
    assert exchange.files_of(KEY) == {JOURNAL: "one\ntwo\n"}
    exchange.keep({f"{KEY}/patch.json": "{}"})
    exchange.keep({JOURNAL: "one\ntwo\nthree\n", f"{KEY}/patch.json": "{...}"})
    assert exchange.files_of(KEY) == {f"{KEY}/patch.json": "{}"}
    assert sorted(path.name for path in folder.parent.iterdir()) == [KEY]


@pytest.mark.parametrize("name", ["../../x.journal", f"{KEY}/../../patch.json", f"{KEY}/x.json", "/tmp/x", f"{KEY}.j"])
def test_no_node_writes_outside_of_the_cache_of_patches(cache: Path, name: str) -> None:
    exchange.keep({name: "mine"})
    assert not cache.exists()


def test_tokens_stay_where_they_are() -> None:
    given = {
        "HF_HOME": "/data", "HF_TOKEN": "hf_x", "HF_HUB_TOKEN_PATH": "x", "https_proxy": "http://p", "PATH": "/bin",
        "PYTEST_ADDOPTS": "-x", "PYTEST_CURRENT_TEST": "t", "SAFETY_HARNESS_CACHE": "/c", "RAY_AUTH_TOKEN": "t",
    }  # fmt: skip
    assert task.environment(given).keys() == {"HF_HOME", "https_proxy", "PYTEST_ADDOPTS", "SAFETY_HARNESS_CACHE"}


def test_a_nodes_own_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the controller has, but for what the node has set itself; pytest's are the controller's."""
    monkeypatch.setenv("HF_HOME", "/mine")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-v")
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    before = dict(os.environ)
    with task._variables({"HF_HOME": "/theirs", "HTTP_PROXY": "http://p"}):
        assert (os.environ["HF_HOME"], os.environ["HTTP_PROXY"]) == ("/mine", "http://p")
        assert not [name for name in os.environ if name.startswith("PYTEST_")]
    assert dict(os.environ) == before


# --- Addresses and options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379", "http://head:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(HarnessError, match=r"is no HOST:PORT\. Give the address that"):
        connect._reach(address)


def test_an_address_where_nothing_listens_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HarnessError, match=r"does not answer \(.*refused\)\. Check the address"):
        connect._reach(address)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "did not let this machine in within 25 s. Run on a node of the cluster"),
        (ConnectionError("Failed to connect to Ray cluster at x"), "does not accept this machine's token"),
        (RuntimeError("Version mismatch: The cluster was started\n with: Ray: 2.52"), "runs another Ray or Python"),
        (RuntimeError("No node info found matching"), "Run on a node of the cluster"),
        (RuntimeError("odd"), "no connection (RuntimeError: odd)"),
    ],
)
def test_a_connection_that_fails_says_why_in_one_line(error: Exception, says: str) -> None:
    advice = connect._advice(error)
    assert says in advice
    assert "\n" not in advice


@needs_ray
def test_a_machine_that_is_no_node_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name no cluster where there is none; then find one that does not live any more."""
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(HarnessError, match=r"auto: Could not find any running Ray instance\. Start one here"):
        connect.connect("auto", insecure=False)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: "127.0.0.3:1")
    with pytest.raises(HarnessError, match=r"--gate-ray 127\.0\.0\.3:1: does not answer"):
        connect.connect("auto", insecure=False)


def test_without_ray_the_option_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(HarnessError, match=r"--gate-ray needs Ray, which is not installed: pip install '.*\[ray\]'"):
        connect.connect("127.0.0.1:1", insecure=False)


@pytest.mark.parametrize("flag", [("-n", "2"), ("--pdb",)])
def test_options_that_are_of_no_use_with_ray_are_refused(
    project: Callable[..., pytest.RunResult], flag: tuple[str, ...]
) -> None:
    run = project("--gate-ray", "127.0.0.1:1", *flag)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"ERROR: --gate-ray runs tests on other machines, where {flag[0]} is of no use. Leave *"])


IMPORTED = """
import sys
def pytest_unconfigure(config):
    print("LOADED", sorted({"ray", "torch"} & sys.modules.keys()), file=sys.__stdout__)
"""


@pytest.mark.parametrize("arguments", [
    (*RUN, "--collect-only", "--gate-ray", "x:1"), pytest.param(("--help",), marks=pytest.mark.slow),
    pytest.param((*RUN, "-n", "1"), marks=pytest.mark.slow),
])  # fmt: skip
def test_neither_help_nor_a_local_run_imports_ray_or_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Ask for help, collect, and run in a worker: the process that decides imports neither."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    write_project(tmp_path)
    (tmp_path / "loaded.py").write_text(IMPORTED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "loaded", *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOADED []" in done.stdout


# --- A whole run -----------------------------------------------------------------------------------------------------

REMARKS = """
from safety_harness.errors import remark
def test_remarks(student):
    remark(f"odd: {student.evaluator.student.name}")
def test_about_nobody():
    pass
"""


@pytest.mark.slow
@pytest.mark.ray
@needs_ray
def test_a_run_over_ray_gives_the_results_of_a_local_run(tmp_path: Path) -> None:
    """Run four students here and on two nodes: results and remarks are equal, and no torch is imported here."""
    write_project(tmp_path, students=FOUR, more=REMARKS)
    (tmp_path / "loaded.py").write_text(LOADED)
    with LocalCluster() as cluster:
        cluster.add()
        cluster.add()
        project = Runs(tmp_path, cluster)
        assert project.run(ray=False)[0] == 0
        local = without_places(project.results())
        code, said = project.run("-v")
    assert code == 0, said
    assert "LOADED False" in said
    assert "(authentication: token). Verdicts, questions, which may be harmful, cross its network unencrypted" in said
    remarks, over_ray = sorted(local.pop("remarks")), without_places(project.results())
    assert sorted(over_ray.pop("remarks")) == remarks  # they come in any order
    assert over_ray == local
    assert remarks == [f"odd: {name}" for name in sorted(FOUR)]
