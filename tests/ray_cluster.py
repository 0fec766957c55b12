"""Start Ray clusters of several nodes on this machine, each on an address of 127.0.0.0/8, and kill nodes of them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from tests.plugin.conftest import RUN

ROOT = Path(__file__).parents[1]
TOKEN = "5afe" * 16
# Two starts of Python, on a machine that may be busy.
PATIENCE_S = 120
# Nothing of a run that cannot go on may take longer, on a machine that has time.
SECONDS_TO_END = 30


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Check that what runs inside ends in time: later only as far as this machine has more to do than it has cores."""
    began = time.monotonic()
    yield
    took, busy = time.monotonic() - began, psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    print(f"ended after {took:.1f} s, with {busy:.1f} processes a core")
    assert took < SECONDS_TO_END * max(1.0, busy)


# What the head of a run may not import.
LOADED = """
import sys
def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        print("LOADED", "torch" in sys.modules, file=sys.__stdout__)
"""


@dataclass
class Node:
    """A node that runs: its address, and the process that all of its processes descend from."""

    host: str
    process: psutil.Popen

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run a task now."""
        return [each for each in self._all() if "ray::gate" in " ".join(_command(each))]

    def kill(self) -> None:
        """Kill all of the node at once, as when its machine loses power."""
        for process in [*self._all(), self.process]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()

    def _all(self) -> list[psutil.Process]:
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@dataclass
class LocalCluster:
    """A cluster. *fast* lets it notice a dead node within seconds, for which Ray takes a quarter of a minute."""

    token: bool = True
    fast: bool = True
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the path of a socket has at most 107 bytes
        with socket.socket() as free:
            free.bind(("", 0))
            self.address = f"127.0.0.2:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return the variables of whoever may use the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
        access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} if self.token else {"RAY_AUTH_MODE": "disabled"}
        return {**kept, **access, "HOME": str(self.folder), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}

    def add(self, *, cpus: int = 1, gpus: int = 0, variables: Mapping[str, str] | None = None, **more: float) -> Node:
        """Start a node with *variables* and *more* custom resources. The first one is the head."""
        number = len(self.nodes) + 2
        host, log = f"127.0.0.{number}", self.folder / f"node-{number}.log"
        head = ["--head", "--port", self.address.partition(":")[2], "--include-dashboard", "false"]
        joins = ["--address", self.address] if self.nodes else [*head, "--temp-dir", str(self.folder)]
        has = ["--num-cpus", str(cpus), "--num-gpus", str(gpus), "--resources", json.dumps(more)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *joins, "--node-ip-address", host]
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"} if self.fast else {}
        # As a node that is ours; Ray would let its tasks run behind everything else.
        given = {**self.environment(), **quick, "RAY_worker_niceness": "0", **(variables or {})}
        with log.open("wb") as stream:
            started = psutil.Popen(
                [*command, *has, "--object-store-memory", "80000000"],
                env=given, cwd=self.folder, stdout=stream, stderr=stream, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        self.nodes.append(Node(host, started))
        until = time.monotonic() + PATIENCE_S
        while "--block" not in log.read_text(errors="replace").partition("Ray runtime started")[2]:
            if started.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no node was started: {log.read_text(errors='replace')}")
            time.sleep(0.2)
        return self.nodes[-1]


def _end_with_parent() -> None:
    """Let a node end when whoever started it is killed; Linux alone can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Runs:
    """A project, and the runs of its suites."""

    def __init__(self, folder: Path, cluster: LocalCluster) -> None:
        self.folder, self.cluster = folder, cluster

    def start(self, *arguments: str, ray: bool = True, **variables: str) -> subprocess.Popen[str]:
        """Start a run, over the cluster if *ray* is set."""
        over = ("--gate-ray", self.cluster.address) if ray else ()
        command = [sys.executable, "-m", "pytest", "-p", "loaded", *RUN, *over, *arguments]
        environment = {**self.cluster.environment(), "PYTHONPATH": f"{ROOT}:{self.folder}", **variables}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def start_suites(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the real suites over the cluster."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--gate-ray", self.cluster.address]
        return subprocess.Popen(
            [*command, *arguments], cwd=ROOT, env=self.cluster.environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def patch(self) -> dict[str, Any]:
        """Return the patch of the only student of the last run."""
        (student,) = self.results()["students"]
        found: dict[str, Any] = student["about"]["patch"]
        return found

    def run(self, *arguments: str, ray: bool = True, **variables: str) -> tuple[int, str]:
        """Run to the end. Return the exit code and what was printed."""
        process = self.start(*arguments, ray=ray, **variables)
        said, _ = process.communicate(timeout=10 * SECONDS_TO_END)
        return process.returncode, said

    def results(self) -> dict[str, Any]:
        """Return what the last run left in results.json."""
        table: dict[str, Any] = json.loads((self.folder / "reports" / "latest" / "results.json").read_text())
        return table

    def wait_for(self, name: str) -> None:
        """Wait until a test has left a file of this *name*."""
        until = time.monotonic() + 4 * SECONDS_TO_END
        while not (self.folder / name).exists():
            assert time.monotonic() < until
            time.sleep(0.1)
