"""Check gated runs whose searches have several processes: the same results, and no process that outlives its run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from safety_harness.evaluation.gpus import Gpu
from safety_harness.plugin import workers
from safety_harness.plugin.workers import GIB, affordable_workers, pin
from safety_harness.registry.load import Student, load_registry
from tests import kills
from tests.samples import family, write_registry

pytestmark = pytest.mark.slow  # each test gates in processes of its own


class Ahead(kills.Trial):
    """Runs whose searches have two processes each."""

    @property
    def command(self) -> Sequence[str]:
        """The command of a gated run, with the option."""
        return [*super().command, "--gate-ahead", "2"]


def test_a_run_with_probes_ahead_gives_the_same(tmp_path: Path) -> None:
    """Compare all facts of results.json with a plain run; then kill the process of a search, and go on."""
    registry = kills.write_world(tmp_path / "world")
    of = kills.reference("run", tmp_path, registry)
    trial = Ahead("controller", tmp_path / "ahead", registry)  # two workers
    assert trial.finish() == of.code, (trial.folder / "log").read_text()
    assert trial.facts() == of.facts
    assert trial.names() == of.names

    killed = Ahead("run", tmp_path / "killed", registry)
    running = killed.start()
    until = time.monotonic() + kills.PATIENCE_S
    while not any("spawn_main" in " ".join(_words(one)) for one in psutil.Process(running.pid).children()):
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    running.kill()
    running.wait()
    killed.group = running.pid
    until = time.monotonic() + kills.ORPHANS_S
    while left := killed.orphans():
        assert time.monotonic() < until, [_words(one) for one in left]
        time.sleep(0.2)
    assert killed.finish() == of.code
    assert killed.facts() == of.facts
    assert killed.names() == of.names


def _words(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# --- Places for the copies ------------------------------------------------------------------------


@pytest.fixture
def students(tmp_path: Path) -> tuple[Student, ...]:
    """Two students of 30 GiB each."""
    large = family("large", {"one": "pass", "two": "pass"}, "memory_gib = 30")
    return load_registry(write_registry(tmp_path, large)).select()


@pytest.mark.parametrize(
    ("free", "ahead", "shown"),
    [
        ([80] * 8, 4, ["0,1,2,3", "4,5,6,7"]),
        ([80] * 4, 2, ["0,1", "2,3"]),
        ([80, 80], 2, ["0,1", "0,1"]),
        ([80], 2, ["0"]),  # both copies of one student
        ([40], 4, ["0"]),  # room for one copy: the other processes will say that they found no memory
    ],
)
def test_each_copy_of_a_student_has_a_place_on_a_gpu(
    students: tuple[Student, ...], free: list[int], ahead: int, shown: list[str]
) -> None:
    """Count the workers of ``-n auto``, and look at what each is shown."""
    execnet = pytest.importorskip("execnet")
    gpus = [Gpu(str(at), "A100", gib * GIB) for at, gib in enumerate(free)]
    count = affordable_workers(students, available=10**15, gpus=gpus, ahead=ahead)
    assert count == len(shown) or workers._cores() // ahead < len(shown)
    specs = [execnet.XSpec("popen") for _ in shown]
    pin(specs, students, gpus, ahead)
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in specs] == shown


@pytest.mark.parametrize(("cores", "gib", "expected"), [(8, 1000, 2), (4, 1000, 1), (2, 1000, 1), (64, 130, 1)])
def test_each_copy_of_a_student_has_a_core_and_memory(
    students: tuple[Student, ...], monkeypatch: pytest.MonkeyPatch, cores: int, gib: int, expected: int
) -> None:
    """Count the workers of ``-n auto`` on a machine without a GPU, for searches of four processes."""
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    assert affordable_workers(students, available=gib * GIB, gpus=(), ahead=4) == expected
