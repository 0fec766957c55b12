"""Check that a run uses every GPU of a machine, and none beyond its memory, with a stand-in for `nvidia-smi`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_harness.evaluation.gpus import Gpu
from safety_harness.plugin import workers
from safety_harness.plugin.placement import deal
from safety_harness.plugin.workers import GIB, ROOM, affordable_workers, pin, student_scheduler
from safety_harness.registry.load import Student, load_registry
from tests.fake_driver import A100, install
from tests.samples import family, write_registry

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]
# Each test says which GPUs its process sees, and whether torch was imported before pytest was told.
SEEN = """
import os, sys

def test_gpus(student, measure):
    measure.about(gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), on=os.environ["PYTEST_XDIST_WORKER"])
    assert "torch" not in sys.modules
"""


def box(*free: int | None) -> list[Gpu]:
    """Return GPUs of so many free GiB."""
    return [Gpu(f"GPU-{at}", "A100", None if gib is None else gib * GIB) for at, gib in enumerate(free)]


def dealt(needs: Sequence[int], gpus: Sequence[Gpu], most: int = 99) -> list[tuple[str, float]]:
    """Return the shares of students of so many GiB: the numbers of a worker's GPUs, and its room in GiB."""
    shares = deal([need * GIB for need in needs], gpus, most)
    return [("".join(str(gpu.id)[4:] for gpu in share.gpus), share.room / GIB) for share in shares]


# --- Shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "free", "most", "expected"),
    [
        ([5, 5], [80] * 8, 99, [("0", 80), ("1", 80)]),  # two GPUs rather than one
        ([40] * 5, [80, 80], 99, [("0", 40), ("1", 40), ("0", 40), ("1", 40)]),  # the fifth waits
        ([5, 30, 70, 30, 30, 5], [80, 80], 99, [("0", 70), ("1", 30), ("1", 30), ("0", 10), ("1", 20)]),
        ([40, 5, 5, 5, 5], [80, 80], 2, [("0", 80), ("1", 80)]),  # what is left of a GPU is its worker's
        ([30, 30], [10, 80, 40], 99, [("1", 80), ("2", 40)]),  # most room first, and no GPU twice while one is idle
        ([100, 100, 20], [80] * 5, 99, [("01", 160), ("23", 160), ("4", 80)]),  # larger than any GPU
        ([600, 15, 15], [80] * 8, 99, [("01234567", 640)]),
        ([2000, 5], [80, 80], 99, [("01", 2000)]),  # larger than all: it is tried, and alone
        ([90, 0], [80], 99, [("0", 90), ("0", 0)]),  # a server answers for the second
        ([5, 5, 5], [None, None], 99, [("0", math.inf), ("1", math.inf)]),  # memory unknown: one worker each
        ([], [80], 99, []),
    ],
)
def test_shares_are_dealt_by_room(
    needs: list[int], free: list[int | None], most: int, expected: list[tuple[str, float]]
) -> None:
    assert dealt(needs, box(*free), most) == expected


@given(
    needs=st.lists(st.sampled_from([0, 1, 5, 15, 39, 40, 70, 100, 500]), min_size=1, max_size=20),
    free=st.lists(st.sampled_from([0, 10, 40, 79, 80]), min_size=1, max_size=8),
    most=st.integers(1, 20),
)
def test_no_gpu_is_dealt_beyond_its_memory(needs: list[int], free: list[int], most: int) -> None:
    """Deal any students to any GPUs. Every student has a worker that holds it."""
    gpus = box(*free)
    shares = deal([need * GIB for need in needs], gpus, most)
    assert 1 <= len(shares) <= min(most, len(needs))
    assert max(share.room for share in shares) >= max(needs) * GIB
    if max(needs) > sum(free):
        shares = shares[1:]  # the student that even all GPUs are too small for
    for gpu in gpus:
        assert gpu.free is not None
        alone = [share.room for share in shares if share.gpus == (gpu,)]
        spread = [share.room for share in shares if gpu in share.gpus and len(share.gpus) > 1]
        assert sum(alone) <= gpu.free
        assert len(spread) <= 1
        assert not (spread and sum(alone))


# --- Workers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def students(tmp_path: Path) -> tuple[Student, ...]:
    """Six students: three that need 2 GiB each, and three that need half a GiB."""
    names = {"one": "pass", "two": "pass", "three": "pass"}
    small, large = family("small", names, "memory_gib = 0.5"), family("large", names, "memory_gib = 2.0")
    return load_registry(write_registry(tmp_path, small, large)).select()


@pytest.mark.parametrize(
    ("free", "cores", "available", "expected"),
    [
        ([5], 32, 64, 4),  # two large ones and two small ones
        ([1], 32, 64, 1),  # too small for a large one, which is tried all the same
        ([64], 32, 64, 6),
        ([2, 2, 2], 32, 64, 3),
        ([3, 3, 3], 32, 64, 6),
        ([64, 64], 4, 64, 4),  # as many as cores
        ([64, 64], 32, 6, 3),  # as many of the largest as fit into the machine's memory
        ([None, None], 32, 64, 2),
    ],
)
def test_auto_counts_over_all_gpus(
    students: tuple[Student, ...],
    monkeypatch: pytest.MonkeyPatch,
    free: list[int | None],
    cores: int,
    available: int,
    expected: int,
) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    assert affordable_workers(students, available=available * GIB, gpus=box(*free)) == expected


def specs(*texts: str) -> list[Any]:
    execnet = pytest.importorskip("execnet")
    return [execnet.XSpec(text) for text in texts]


def test_each_worker_is_shown_its_gpu(students: tuple[Student, ...]) -> None:
    """Start seven workers on two GPUs, two on another machine, and one whose GPU the user chose."""
    here = specs(*["popen"] * 7, "popen//via=there", "ssh=elsewhere", "popen//env:CUDA_VISIBLE_DEVICES=7")
    assert pin(here, students, box(3, 5)) == []
    shown = [(spec.env.get("CUDA_VISIBLE_DEVICES"), getattr(spec, ROOM)) for spec in here]
    gib = [(gpus, room and room / GIB) for gpus, room in shown]
    assert gib[:3] == [("GPU-1", 2), ("GPU-0", 2), ("GPU-1", 2)]
    assert gib[3:6] == [("GPU-0", 0.5), ("GPU-1", 1), ("GPU-0", 0.5)]
    assert gib[6] == ("GPU-0", 0)  # it may run tests of no student
    assert gib[7:] == [(None, None), (None, None), ("7", None)]


def test_a_gpu_without_a_name_is_left_to_cuda(students: tuple[Student, ...]) -> None:
    """Start a worker on whatever instance of a partitioned GPU CUDA shows."""
    (spec,) = specs("popen")
    assert pin([spec], students, [Gpu(None, "an instance", None)]) == []
    assert (spec.env, getattr(spec, ROOM)) == ({}, math.inf)
    assert pin([spec], students, []) == []


def test_too_many_workers_are_one_line(students: tuple[Student, ...]) -> None:
    """Ask for six workers where four have room."""
    (line,) = pin(specs(*["popen"] * 6), students, box(5))
    assert line.startswith("-n 6: by memory_gib the GPUs have room for 4 workers")


def test_a_student_that_no_gpu_holds_is_one_line(students: tuple[Student, ...]) -> None:
    """Give the larger family GPUs of one GiB: its worker sees two of them."""
    here = specs("popen", "popen")
    (line,) = pin(here, students, box(1, 1, 1))
    assert line.startswith("large: memory_gib is 2, and no GPU has more than 1.0 GiB free. Its worker sees 2 of 3 GPUs")
    assert "`device_map`" in line
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in here] == ["GPU-0,GPU-1", "GPU-2"]


# --- The scheduler ---------------------------------------------------------------------------------------------------


class Node:
    """A worker as xdist's scheduler knows it. It notes the tests that it is sent, and whether it was ended."""

    def __init__(self, name: str, room: float | None) -> None:
        self.gateway = SimpleNamespace(id=name, spec=SimpleNamespace(**{ROOM: room}))
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Run:
    """A run of *students* with three tests each on *nodes*, of which the scheduler hears in this order."""

    def __init__(self, students: Sequence[Student], nodes: Sequence[Node], request: pytest.FixtureRequest) -> None:
        self.tests = [f"s.py::test_{n}[{student.id}]" for student in students for n in range(3)]
        self.of = {test: student for student in students for test in self.tests if f"[{student.id}]" in test}
        config = SimpleNamespace(
            getvalue=lambda _: ["popen"] * len(nodes), option=SimpleNamespace(loadscopereorder=False),
            hook=request.config.hook,
        )  # fmt: skip
        log = SimpleNamespace(loadscopesched=lambda *_: None)
        self.scheduler = student_scheduler(config, log, students)  # type: ignore[arg-type]
        self.ran: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            self.join(node)
        self.scheduler.schedule()

    def join(self, node: Node) -> None:
        self.scheduler.add_node(node)
        self.scheduler.add_node_collection(node, self.tests)

    def step(self, node: Node) -> None:
        """Run the next test of *node*, if it has one."""
        if node.sent:
            test = node.sent.pop(0)
            self.ran[node.gateway.id].append(self.tests[test])
            self.scheduler.mark_test_complete(node, test)


def finish(run: Run, nodes: Sequence[Node]) -> Mapping[str, list[str]]:
    """Let *nodes* run until none has a test."""
    while any(node.sent for node in nodes):
        for node in nodes:
            run.step(node)
    return run.ran


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_no_worker_gets_a_student_beyond_its_room(
    students: tuple[Student, ...], request: pytest.FixtureRequest, order: Sequence[int]
) -> None:
    """Let workers of 2, 2, half a GiB and nothing report in any order. All tests run, each where it has room."""
    nodes = [Node("a", 2 * GIB), Node("b", 2 * GIB), Node("c", 0.5 * GIB), Node("d", 0)]
    run = Run(students, [nodes[at] for at in order], request)
    ran = finish(run, nodes)
    assert sorted(test for tests in ran.values() for test in tests) == sorted(run.tests)
    assert {run.of[test].family.name for test in ran["c"]} == {"small"}
    assert ran["d"] == []
    assert {run.of[test].family.name for test in (ran["a"][0], ran["b"][0])} == {"large"}  # the largest first
    assert all(node.shutting_down for node in nodes)


def test_the_largest_worker_is_never_the_spare_one(
    students: tuple[Student, ...], request: pytest.FixtureRequest
) -> None:
    """Start more workers than there are students; the one that all need is ready last."""
    nodes = [Node("a", 0.5 * GIB), Node("b", 0), Node("c", 0), Node("d", 2 * GIB)]
    run = Run(students[2:4], nodes, request)
    assert [len(finish(run, nodes)[node.gateway.id]) for node in nodes] == [3, 0, 0, 3]


def test_what_a_dead_worker_leaves_waits_for_room(
    students: tuple[Student, ...], request: pytest.FixtureRequest
) -> None:
    """Kill the large worker in its first student: the small one takes none of its tests, and its clone all."""
    large, small = Node("large", 2 * GIB), Node("small", 0.5 * GIB)
    run = Run(students, [large, small], request)
    run.step(large)
    run.scheduler.remove_node(large)
    clone = Node("clone", 2 * GIB)
    run.join(clone)
    run.scheduler.schedule()
    ran = finish(run, [small, clone])
    assert {run.of[test].family.name for test in ran["small"]} == {"small"}
    assert sorted(chain(*ran.values())) == sorted(run.tests)


def test_a_lost_worker_breaks_nobody_elses_run(students: tuple[Student, ...], request: pytest.FixtureRequest) -> None:
    """Lose a worker before xdist knows: its student goes to the other worker, once xdist does."""

    class Lost(Node):
        def send_runtest_some(self, _: Sequence[int]) -> None:
            raise OSError("cannot send (already closed?)")

    lost, well = Lost("lost", None), Node("well", None)
    run = Run(students, [lost, well], request)
    run.scheduler.remove_node(lost)
    assert sorted(chain(*finish(run, [well]).values())) == sorted(run.tests)


def test_without_gpus_every_worker_takes_every_student(
    students: tuple[Student, ...], request: pytest.FixtureRequest
) -> None:
    nodes = [Node("a", None), Node("b", None)]
    run = Run(students, nodes, request)
    assert sorted(chain(*finish(run, nodes).values())) == sorted(run.tests)


# --- Real workers ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_uses_every_gpu_and_each_worker_sees_one(
    project: Project, results: Results, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gate students of 30 and 1 GiB on eight of nine GPUs, in real workers: three have room for the large ones."""
    monkeypatch.setattr(workers, "_cores", lambda: 8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=999 * GIB))
    free = [80_000, *[6_000] * 5, *[34_000] * 3]
    install(pytester.path, monkeypatch, [A100] * 9, ",".join(map(str, range(1, 9))), free)
    large = family("large", {f"student-{at}": "pass" for at in range(4)}, "memory_gib = 30.0")
    small = {f"student-{at}": "pass" for at in range(6)}
    assert project("-n", "auto", students=small, more=SEEN, last=large).ret == pytest.ExitCode.OK
    about = {student["id"]: student["about"] for student in results()["students"]}
    seen = {(facts["on"], facts["gpus"]) for facts in about.values()}
    assert len(seen) == len({gpu for _, gpu in seen}) == 8
    assert {gpu for _, gpu in seen} == {f"GPU-{at}-of-the-box" for at in range(1, 9)}
    assert {facts["gpus"] for name, facts in about.items() if name.startswith("large")} == {
        f"GPU-{at}-of-the-box" for at in (6, 7, 8)
    }


def test_a_restarted_worker_keeps_its_gpu(
    project: Project, results: Results, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the only worker die once: what the second one measures was measured on the same GPU."""
    install(pytester.path, monkeypatch, [A100] * 2, None)
    crash = "\n\ndef test_that_dies(student):\n    if not os.path.exists('died'): open('died', 'w'); os._exit(9)\n"
    again = "\n\ndef test_again(student, measure): measure.about(then=os.environ['CUDA_VISIBLE_DEVICES'])\n"
    run = project("-n", "1", students={"one": "pass"}, more=SEEN + crash + again)
    assert run.ret != pytest.ExitCode.OK
    run.stdout.fnmatch_lines(["replacing crashed worker gw0"])
    about = results()["students"][0]["about"]
    assert (about["on"], about["test_the_rest"]) == ("gw0", "gw1")
    assert about["gpus"] == about["then"] == "GPU-1-of-the-box"
