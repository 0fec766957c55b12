"""Check where a run writes: a folder of its own, tried at the start, and ``latest`` that is never an earlier run's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safety_harness.gate.runs import finished
from tests.plugin.conftest import RUN, write_project
from tests.samples import results_with, whole_patch

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]


def outcomes(folder: Path) -> list[str]:
    """Return the outcome of every run in *folder*, as they began."""
    files = sorted(file for file in folder.glob("*/results.json") if file.parent.name != "latest")
    return [json.loads(file.read_text(encoding="utf-8"))["outcome"] for file in files]


def test_runs_keep_their_reports_and_latest_is_the_last(project: Project, pytester: pytest.Pytester) -> None:
    reports = pytester.path / "reports"
    assert project(students={"one": "pass"}).ret == pytest.ExitCode.OK
    run = project(students={"weak": "pass"})
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes(reports) == ["pass", "fail"]
    assert (reports / "latest").resolve().name == max(path.name for path in reports.iterdir() if path.name != "latest")
    run.stdout.fnmatch_lines(["reports: results.json, *report.html* in reports/2*, shown as reports/latest"])
    assert all((folder / "report.html").exists() for folder in reports.iterdir())


# Where a run may die: before a test begins, in one, in a worker.
DEATHS = {
    "on collection": ({"conftest": "import os\ndef pytest_collection():\n    os.kill(os.getpid(), 9)\n"}, ()),
    "in a test": ({"more": "import os\ndef test_mine(student):\n    os.kill(os.getpid(), 9)\n"}, ()),
    "in a worker": (
        {"more": "import os\ndef test_mine(student):\n    os.kill(os.getpid(), 9)\n"},
        ("-n", "1", "--max-worker-restart", "0"),
    ),
    "by an import that fails": ({"more": "import no_such_module\n"}, ()),
    "by a plugin that breaks": ({"conftest": "def pytest_collection_modifyitems():\n    1 / 0\n"}, ()),
    "without a test": ({}, ("-k", "none_is_called_so")),
}


@pytest.mark.parametrize(
    "death",
    [pytest.param(DEATHS[name], id=name, marks=pytest.mark.slow if at % 2 else ()) for at, name in enumerate(DEATHS)],
)
def test_a_run_that_dies_leaves_no_earlier_pass(
    project: Project, results: Results, pytester: pytest.Pytester, death: tuple[dict[str, str], tuple[str, ...]]
) -> None:
    """Let a run die where an earlier one passed: ``latest`` proves nothing, has no page, and the earlier run stands."""
    assert project(students={"one": "pass"}).ret == pytest.ExitCode.OK
    parts, arguments = death
    write_project(pytester.path, {"one": "pass"}, **parts)
    assert pytester.runpytest_subprocess(*RUN, *arguments).ret != pytest.ExitCode.OK
    assert results()["outcome"] == "inconclusive"
    assert outcomes(pytester.path / "reports") == ["pass", "inconclusive"]
    page = pytester.path / "reports" / "latest" / "report.md"
    assert not page.exists() or "INCONCLUSIVE" in page.read_text()


def test_wrong_usage_begins_no_folder(project: Project, pytester: pytest.Pytester) -> None:
    assert project("--gate-student", "gone").ret == pytest.ExitCode.USAGE_ERROR
    assert project("--gate-no-such-option").ret == pytest.ExitCode.USAGE_ERROR
    assert not (pytester.path / "reports").exists()


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_folder_that_cannot_be_written_stops_a_run(
    project: Project, pytester: pytest.Pytester, processes: str
) -> None:
    """Expect the error before a worker starts and before a test runs."""
    (pytester.path / "taken").write_text("a file, no folder")
    run = project("--gate-report-dir", "taken/below", "-n", processes)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "The reports could not be written: taken/below/latest: cannot be written" in run.stderr.str()
    assert "created:" not in run.stdout.str()
    assert "Traceback" not in run.stderr.str() + run.stdout.str()


def test_a_cache_that_cannot_be_written_stops_a_run(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect the error before a search begins whose patch could not be kept; none where nothing is searched."""
    (pytester.path / "taken").write_text("a file, no folder")
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(pytester.path / "taken" / "below"))
    run = project()
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot be written" in run.stderr.str()
    assert project("--gate-subject", "student").ret != pytest.ExitCode.USAGE_ERROR


def test_patches_of_latest_are_gated_while_a_run_writes(
    project: Project, results: Results, pytester: pytest.Pytester
) -> None:
    """Name ``latest`` as the run's own source of patches: it reads the run before it, and writes over nothing."""
    assert project(students={"one": "pass"}).ret == pytest.ExitCode.OK
    patch = whole_patch(student="alpha/one").model_dump(mode="json")
    latest = pytester.path / "reports" / "latest" / "results.json"
    before = results_with(latest, {"alpha/one": {"patch": patch}}).read_bytes()
    reads = (
        "from pathlib import Path\nfrom safety_harness.patch.record import recorded\n"
        "from safety_harness.gate.runs import finished\n"
        "def test_reads(request):\n"
        "    assert list(recorded(request.config.option.safety_patches)) == ['alpha/one']\n"
        "    assert list(recorded(finished(Path('reports/latest/results.json')))) == ['alpha/one']\n"
    )
    run = project("--gate-patches", "reports/latest/results.json", students={"one": "pass"}, more=reads)
    assert run.ret == pytest.ExitCode.OK
    first, second = sorted(path for path in (pytester.path / "reports").iterdir() if path.name != "latest")
    assert (first / "results.json").read_bytes() == before
    assert finished(latest) == second / "results.json"
    assert "of results.json, sha256" in results()["provenance"]["patches"]
