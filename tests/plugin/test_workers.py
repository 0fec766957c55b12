"""Check runs of many processes: how many there are, who gets which student, and that the decision stays the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safety_harness.evaluation.gpus import Gpu
from safety_harness.plugin import workers
from safety_harness.plugin.workers import GIB, affordable_workers, threads_of_worker
from safety_harness.registry.load import Student, load_registry
from tests.plugin import conftest
from tests.plugin.conftest import MARK, junit_properties
from tests.samples import family, write_registry

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]
FOUR = {"one": "pass", "two": "pass", "three": "pass", "weak": "fail"}


def without_places(table: dict[str, Any]) -> dict[str, Any]:
    """Drop from results what depends on the process and the time."""
    students = [{**student, "about": None} for student in table["students"]]
    return {**table, "sha256": None, "provenance": None, "students": students}


def test_every_way_to_run_gives_the_same_results(project: Project, results: Results, pytester: pytest.Pytester) -> None:
    """Run four students in one process, on two workers and without xdist. Each student stays on one worker."""
    tables = {}
    for name, arguments in {"plain": (), "two": ("-n", "2"), "none": ("-p", "no:xdist")}.items():
        run = project(*arguments, "--junitxml", "junit.xml", "-o", "junit_family=xunit2", students=FOUR)
        assert run.ret == pytest.ExitCode.OK
        run.stdout.fnmatch_lines(["gate: KNOWN RED, 1 of 4 students may not ship"])
        tables[name] = results()
        assert junit_properties(pytester.path / "junit.xml", "test_defense[alpha/one]") == {}
    assert without_places(tables["plain"]) == without_places(tables["two"]) == without_places(tables["none"])

    places = {
        student["id"]: {place for test, place in student["about"].items() if test.startswith("test_")}
        for student in tables["two"]["students"]
    }
    assert all(len(place) == 1 for place in places.values())
    assert set.union(*places.values()) == {"gw0", "gw1"}


def test_a_crashed_worker_leaves_no_green_run(project: Project, results: Results) -> None:
    """Give both students to one worker in turn, which dies in the second's first test: the first one's result stays."""
    crash = "import os\ndef test_first(student):\n    if student.evaluator.student.name == 'two': os._exit(9)\n"
    run = project("-n", "1", "--max-worker-restart", "0", more=crash)
    assert run.ret not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    table = results()
    assert table["outcome"] == "inconclusive"
    assert {s["id"]: s["outcome"] for s in table["students"]} == {"alpha/one": "pass", "alpha/two": "inconclusive"}
    lost = next(reason for reason in table["reasons"] if "test_first" in reason)
    assert lost.startswith("suites/test_before_suite.py::test_first[alpha/two] could not be measured: ")
    assert "crashed" in lost


@pytest.mark.parametrize("marked", [True, False])
def test_auto_starts_no_more_workers_than_students(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """Start one worker where xdist alone would start three: it asks before pytest is configured.

    The suites' conftest.py marks the run, or the options alone do.
    """
    if not marked:
        monkeypatch.setattr(conftest, "MARK", MARK.partition("@pytest.hookimpl")[0])
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "3")
    junit = ("--junitxml", "junit.xml", "-o", "junit_family=xunit1")
    run = project("-n", "auto", *junit, students={"one": "pass"})
    assert run.ret == pytest.ExitCode.OK
    assert re.findall(r"created: (\d+)/", run.stdout.str()) == ["1"]
    assert junit_properties(pytester.path / "junit.xml", "test_defense[alpha/one]") == {}


# --- How many --------------------------------------------------------------------------------------------------------


@pytest.fixture
def students(tmp_path: Path) -> tuple[Student, ...]:
    """Six students: three that need 2 GiB each, and three that need half a GiB."""
    names = {"one": "pass", "two": "pass", "three": "pass"}
    large, small = family("large", names, "memory_gib = 2.0"), family("small", names, "memory_gib = 0.5")
    return load_registry(write_registry(tmp_path, large, small)).select()


@pytest.mark.parametrize(
    ("cores", "available", "expected"),
    [
        (4, 64 * GIB, 4),  # as many as cores
        (32, 64 * GIB, 6),  # as many as students
        (32, 9 * GIB, 4),  # as many of the largest as fit
        (32, 4 * GIB - 1, 1),
        (32, 0, 1),  # one must run, or nothing is ever measured
    ],
)
def test_workers_are_limited_by_cores_students_and_memory(
    students: tuple[Student, ...], monkeypatch: pytest.MonkeyPatch, cores: int, available: int, expected: int
) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    assert affordable_workers(students, available=available, gpus=()) == expected


def test_students_of_one_server_share_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve four students by two servers, on a machine with next to no memory left: two workers, none of whom loads."""
    monkeypatch.setattr(workers, "_cores", lambda: 32)
    tables = "".join(
        f'[families.a.students.{name}]\nserved = {{ url = "http://{host}/v1", model = "m" }}\n'
        for name, host in (("one", "x"), ("two", "x"), ("three", "y"), ("four", "y"))
    )
    students = load_registry(write_registry(tmp_path, f"[families.a]\n{tables}")).select()
    assert affordable_workers(students, available=0, gpus=[Gpu("GPU-0", "A100", 0)]) == 2
    nodes = [f"suites/test_x.py::test_y[{student.id}]" for student in students]
    assert [workers.place_of(node, students) for node in nodes] == ["x/v1", "x/v1", "y/v1", "y/v1"]
    assert workers.place_of("test_mine.py::test_z", students) == "test_mine.py::test_z"


def test_free_memory_is_asked_of_the_machine(students: tuple[Student, ...]) -> None:
    assert 1 <= affordable_workers(students) <= 6


@pytest.mark.parametrize(
    ("cores", "busy", "given", "asked", "threads"),
    [
        (8, 0.0, None, None, 8),
        (2, 50.0, None, None, 1),
        (2, 100.0, None, None, 1),
        (16, 10.0, None, None, 14),
        (8, 90.0, {workers.FREE_CORES: 8, "workercount": 3}, None, 2),
        (2, 0.0, {workers.FREE_CORES: 2, "workercount": 4}, None, 1),
        (2, 100.0, None, 6, 6),
    ],
)
def test_threads_are_a_share_of_the_idle_cores(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    busy: float,
    given: dict[str, int] | None,
    asked: int | None,
    threads: int,
) -> None:
    """Let a worker trust what the controller saw: the workers themselves keep the cores busy."""
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    monkeypatch.setattr("psutil.cpu_percent", lambda **_: busy)
    config: Any = SimpleNamespace(option=SimpleNamespace(safety_threads=asked))
    if given:
        config.workerinput = given
    assert threads_of_worker(config) == threads


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_threads_must_be_a_count(project: Project, value: str) -> None:
    run = project("--gate-threads", value, students={"one": "pass"})
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*--gate-threads*{value}*"])


def test_workers_hear_how_many_cores_were_idle(project: Project) -> None:
    """Ask the fixture's own function in a worker of two."""
    probe = (
        "from safety_harness.plugin import workers\n"
        "def test_threads(student, request):\n"
        "    given = request.config.workerinput\n"
        "    expected = max(1, given[workers.FREE_CORES] // given['workercount'])\n"
        "    assert workers.threads_of_worker(request.config) == expected\n"
    )
    assert project("-n", "2", students={"one": "pass", "two": "pass"}, more=probe).ret == pytest.ExitCode.OK
