"""Run workers behind xdist's proxies, which stand for other hosts: the same results, and one line where that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import ROOT, RUN, write_project

STUDENTS = {"one": "pass", "two": "pass", "three": "pass", "weak": "fail"}
TWO = (
    "--px", "id=a//popen//execmodel=thread", "--px", "id=b//popen//execmodel=thread",
    "--tx", "2*popen//via=a", "--tx", "popen//via=b", "-d",
)  # fmt: skip
pytestmark = pytest.mark.slow  # each test gates in processes of its own
KILLED = """
import psutil, time
def test_first(student):
    if student.evaluator.student.name == "two":
        psutil.Process().parent().kill()
        time.sleep(60)
"""


def gate(folder: Path, *arguments: str, **parts: Any) -> subprocess.CompletedProcess[str]:
    """Gate the students of a project in *folder*, each in seconds, by a pytest of its own."""
    write_project(folder, **{"students": STUDENTS, **parts})
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *RUN, *arguments]
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True, timeout=120)


def results(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "reports" / "latest" / "results.json").read_text())
    return table


def checked(students: list[dict[str, Any]]) -> str:
    """Return as JSON what was decided of *students*, without the places where they ran."""
    return json.dumps([{**student, "about": None} for student in students], sort_keys=True)


def test_two_hosts_give_what_one_gives(tmp_path: Path) -> None:
    """Compare checks, outcomes and units as JSON. The workers know their ids and how many share a host."""
    threads = (
        "import pytest\nfrom safety_harness.plugin import workers\n"
        "@pytest.fixture(autouse=True)\ndef of_host(request, student):\n"
        "    given = getattr(request.config, 'workerinput', {})\n"
        "    assert given.get(workers.NEIGHBOURS) in (None, 1, 2)\n"
        "def test_folder(student): import os; assert os.path.isdir('suites')\n"
    )
    plain, hosts = (tmp_path / name for name in ("plain", "hosts"))
    # As the command `gate` names the plugins.
    alone = ("--disable-plugin-autoload", "-p", "safety_harness.plugin", "-p", "xdist.plugin")
    for folder, arguments in ((plain, ()), (hosts, (*alone, *TWO))):
        folder.mkdir()
        run = gate(folder, *arguments, more=threads)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Warning" not in run.stdout
    one, two = (results(folder)["students"] for folder in (plain, hosts))
    assert checked(one) == checked(two)
    places = [{place for test, place in each["about"].items() if test.startswith("test_")} for each in two]
    assert all(len(place) == 1 for place in places)
    assert set.union(*places) == {"gw0", "gw1", "gw2"}


def test_a_lost_host_is_no_green_run(tmp_path: Path) -> None:
    """Kill a proxy, and with it each host that takes over: the student is INCONCLUSIVE, others keep their outcome."""
    run = gate(tmp_path, *TWO, more=KILLED)
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert "INTERNALERROR" not in said
    assert "Traceback" not in said
    assert "The host of proxy" in run.stdout
    table = results(tmp_path)
    assert table["outcome"] == "inconclusive"
    outcomes = {student["id"]: student["outcome"] for student in table["students"]}
    assert outcomes["alpha/two"] == "inconclusive"
    assert "pass" in outcomes.values()
    assert any("crashed" in reason for reason in table["reasons"])


ENDED = """
import psutil, time
from pathlib import Path
def test_first(student):
    until = time.monotonic() + 60
    while student.evaluator.student.name == "two" and time.monotonic() < until:
        if Path("ended").exists():
            time.sleep(1)
            psutil.Process().parent().kill()
            time.sleep(60)
        time.sleep(0.05)
"""
LEAVES = """
import time
def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):
        open("ended", "w").close()
        time.sleep({seconds})
"""
ONE = ("--px", "id=a//popen//execmodel=thread", "--tx", "2*popen//via=a", "-d")
ONE_EACH = (*TWO[:4], "--tx", "popen//via=a", "--tx", "popen//via=b", "-d")


@pytest.mark.parametrize(("workers", "seconds"), [(ONE, 0), (ONE_EACH, 4)], ids=["ended", "ending"])
def test_a_host_may_be_lost_when_no_worker_can_take_over(
    tmp_path: Path, workers: tuple[str, ...], seconds: int
) -> None:
    """Kill a proxy once the other worker has no test left and has ended, or is just ending: no traceback."""
    leaves = LEAVES.format(seconds=seconds)
    run = gate(tmp_path, *workers, students={"one": "pass", "two": "pass"}, more=ENDED, conftest=leaves)
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    assert "gate: INCONCLUSIVE" in run.stdout
    outcomes = {student["id"]: student["outcome"] for student in results(tmp_path)["students"]}
    assert outcomes == {"alpha/one": "pass", "alpha/two": "inconclusive"}


def test_a_host_is_reached_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program of that name run the command here, without any variable: it has time limits, after the user's own.

    The workers get the variables that decide what a run finds, and no others.
    """
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" >> "$NOTES"\nfor last; do :; done\nexec env -i PATH="$PATH" HOME="$HOME" sh -c "$last"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("HF_HOME", "/shared/hub")
    monkeypatch.setenv("MY_SECRET", "none of theirs")
    seen = (
        "import os\ndef test_variables(student):\n"
        "    assert os.environ['HF_HOME'] == '/shared/hub' and os.environ['SAFETY_HARNESS_CACHE']\n"
        "    assert 'MY_SECRET' not in os.environ\n"
    )
    proxy = f"id=a//ssh=-p 22 -o ServerAliveInterval=3 hostA//python={sys.executable}//chdir={tmp_path}"
    run = gate(tmp_path, "--px", f"{proxy}//execmodel=thread", "--tx", "2*popen//via=a", "-d", more=seen)
    assert run.returncode == 0, run.stdout + run.stderr
    (said,) = (tmp_path / "notes").read_text().splitlines()
    assert said.startswith("-C -p 22 -o ServerAliveInterval=3 -o BatchMode=yes -o ConnectTimeout=20 -o Server")
    assert f"hostA {sys.executable} -c " in said
    assert results(tmp_path)["outcome"] == "known red"


PROXY = ("--px", "id=a//popen//execmodel=thread")
HIDDEN = ("--px", "id=a//ssh=nohost.invalid//execmodel=thread")
ELSEWHERE = ("--px", "id=a//popen//chdir=/tmp//execmodel=thread")
WRONG = {
    "ssh": (("--tx", "ssh=host", "-d"), "cannot send it these suites. Write --px \"id=a//ssh=HOST"),
    "a folder": (("--tx", "popen//chdir=/", "-d"), "xdist cannot send it these suites"),
    "no model": (("--px", "id=a//popen", "--tx", "2*popen//via=a", "-d"), "needs execmodel=thread"),
    "no proxy": (("--tx", "popen//via=a", "-d"), "no --px has the id a"),
    "not -d": (("--tx", "2*popen"), "--px and --tx do nothing without -d"),
    "-n": ((*PROXY, "-n", "2"), "-n leaves --tx out"),
    "-n 0": (("-n", "0", "--tx", "popen", "-d"), "beside -n 0"),
    "a socket": (("--px", "id=a//socket=localhost:9", "--tx", "popen//via=a", "-d"), "runs whatever connects to it"),
    "twice": (("--tx", "popen//popen", "-d"), "'popen//popen' cannot be read (duplicate key"),
    "nothing": (("--px", "", "-n", "1"), "'' cannot be read ("),
    "no host": ((*HIDDEN, "--tx", "popen//via=a", "-d"), "A host of --px"),
    "elsewhere": ((*ELSEWHERE, "--tx", "popen//via=a", "-d"), "the host of proxy a: works in /tmp, and the run in "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_specs_that_cannot_work_are_one_line(tmp_path: Path, case: str) -> None:
    arguments, message = WRONG[case]
    run = gate(tmp_path, *arguments)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout + run.stderr
    (line,) = (line for line in run.stderr.splitlines() if line.startswith("ERROR"))
    assert message in line
    assert "Traceback" not in run.stdout + run.stderr


def test_another_host_needs_the_same_packages(tmp_path: Path) -> None:
    """Give the proxy a torch of another version: an error before any test, which names it."""
    other = (
        "from safety_harness.plugin import alike\nknown = alike._versions\n"
        "alike._versions = lambda: known() | {'torch': '0.1'}\n"
    )
    run = gate(tmp_path, *TWO, conftest=other)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--px: the host of proxy a: torch is " in run.stderr
    assert ", and 0.1 where the run was started. Use one environment on all machines." in run.stderr


def test_another_host_needs_the_same_questions(tmp_path: Path) -> None:
    """Give this host another content of each question file that the students name."""
    other = (
        "from safety_harness.plugin import alike\nknown = alike.described\n"
        "def described(files):\n    wanted = known(files)\n"
        "    here = {file: '0' * 64 if file.endswith('.jsonl') else text for file, text in wanted['files'].items()}\n"
        "    return {**wanted, 'files': here}\n"
        "alike.described = described\n"
    )
    run = gate(tmp_path, *TWO, conftest=other)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--px: the host of proxy a: has another content in {tmp_path / 'harmful.report.jsonl'}. Copy" in run.stderr


def test_a_worker_that_cannot_start_is_not_replaced_for_ever(tmp_path: Path) -> None:
    """Let each worker die at its start: xdist would replace it without end."""
    # Its environment says nothing where this test itself runs in a worker.
    dies = "import os\ndef pytest_configure(config):\n    if hasattr(config, 'workerinput'): os._exit(3)\n"
    run = gate(tmp_path, *PROXY, "--tx", "popen//via=a", "-d", conftest=dies)
    assert run.returncode != 0
    assert results(tmp_path)["outcome"] == "inconclusive"


def test_the_gate_command_leaves_workers_to_tx() -> None:
    from safety_harness.cli import gate as command

    options = type("Options", (), {"processes": "auto", "pytest": ["--px", "id=a//popen", "--tx", "2*popen", "-d"]})
    assert command.workers(options) == []
    options.pytest = []
    assert command.workers(options) == ["-n", "auto"]


def test_two_hosts_find_the_patches_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search and gate two embedded students, each run with a cache of its own: units and checks are equal, as JSON."""
    found = []
    another = ("--px", "id=b//popen//execmodel=thread", "--tx", "popen//via=b")
    here = ("-n", "2"), (*PROXY, "--tx", "popen//via=a", *another, "-d")
    for number, arguments in enumerate(here):
        monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path / f"cache{number}"))
        command = [
            sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", "--gate-family", "tiny",
            "--gate-student", "tiny-llama/capitals", "--gate-student", "tiny-mistral/sort", *arguments,
        ]  # fmt: skip
        there = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stdout + run.stderr
        students = results(tmp_path)["students"]
        found.append((checked(students), [student["about"]["patch"]["units"] for student in students]))
    assert found[0] == found[1]
