"""Check what is recorded of the process that measures a student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safety_harness.plugin.environment import installed, worker_facts

FACTS = """
import pytest
from safety_harness.plugin import environment
from safety_harness.plugin.fixtures import WORKERS


@pytest.fixture(autouse=True)
def loaded(request, student):
    of_the_run = {**request.config.workerinput[environment.PACKAGES], "torch": "0.1", "gone": "1"}
    facts = environment.worker_facts("NVIDIA A100", "580.95.05", of_the_run)
    request.config.stash.setdefault(WORKERS, {})["alpha/one"] = facts
"""


def test_only_packages_that_differ_are_recorded() -> None:
    """Compare with a run of the same packages, of another version, of one more and of one less."""
    here = installed()
    assert worker_facts("cpu", None, None) == worker_facts("cpu", None, here) == {"device": "cpu"}
    run = {**here, "torch": "0.1", "gone": "1"}
    del run["pytest"]
    assert worker_facts("NVIDIA A100", "580", run) == {
        "device": "NVIDIA A100",
        "driver": "580",
        "packages": {"gone": None, "pytest": here["pytest"], "torch": here["torch"]},
    }


def test_results_say_what_measured_each_student(
    project: Callable[..., pytest.RunResult], results: Callable[[], dict[str, Any]], pytester: pytest.Pytester
) -> None:
    """Let a worker load one of two students, with another torch than the controller's."""
    assert project("-n", "1", conftest=FACTS).ret == pytest.ExitCode.OK
    about = {student["id"]: student["about"] for student in results()["students"]}
    packages = {"gone": None, "torch": installed()["torch"]}
    assert about["alpha/one"]["worker"] == {"device": "NVIDIA A100", "driver": "580.95.05", "packages": packages}
    assert "worker" not in about["alpha/two"]
    page = (pytester.path / "reports" / "latest" / "report.md").read_text(encoding="utf-8")
    assert f"driver 580.95.05, its worker's gone missing, its worker's torch {installed()['torch']}" in page
