"""Run a project's own suites with a real pytest and the real plugin, without models."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from safety_harness.report import write_reports
from tests.samples import family, run_result, sample_checks, write_registry

ROOT = Path(__file__).parents[2]
MARK = (ROOT / "suites" / "conftest.py").read_text(encoding="utf-8")
# Instead of a loaded model its name, which is all that `measure` needs to know.
STUDENT = """
from types import SimpleNamespace


@pytest.fixture(scope="session")
def gate_student(request):
    questions = SimpleNamespace(reported=())
    return SimpleNamespace(evaluator=SimpleNamespace(student=request.param, questions=questions))
"""
# Students named weak* refuse too little, and those named strong* refused all of the questions before. Each test says
# where it ran.
SUITE = """
import os
import pytest
from tests.samples import as_it_is, sample_checks


@pytest.fixture
def found(student):
    name = student.evaluator.student.name
    checks = sample_checks(9 if name.startswith("weak") else 128)
    if name.startswith("strong"):
        checks = [as_it_is(check) for check in checks if check.name in ("defense", "over_refusal", "task")]
    return {check.name: check for check in checks}


@pytest.fixture(autouse=True)
def where(request, measure):
    measure.about(**{request.node.originalname: os.environ.get("PYTEST_XDIST_WORKER", "main")})


def test_defense(found, measure):
    measure(found["defense"]).require()


def test_over_refusal(found, measure):
    measure(found["over_refusal"]).require()


def test_the_rest(found, measure):
    for name in found.keys() - {"defense", "over_refusal"}:
        measure(found[name]).require()
"""

# Without the plugins of other packages, whose imports take longer than a run.
RUN = (
    "suites", "--gate-registry", "registry.toml",
    "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio",
)  # fmt: skip

Project = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session")
def modules_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what a gated run imports, once: pytester forgets the modules that a run imports when the run ends."""
    import safety_harness.evaluation.preflight
    import safety_harness.patch.record
    import safety_harness.report.github  # noqa: F401

    result = run_result({"alpha/one": sample_checks()})
    write_reports(result, tmp_path_factory.mktemp("reports"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, modules_of_a_run: None) -> Project:  # noqa: ARG001
    """Make a project as :func:`write_project` does, and run its suites in this process. *arguments* go to pytest."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(tempfile, "tempdir", str(pytester.path))  # where a run saves results that it cannot write

    def run(*arguments: str, **parts: Any) -> pytest.RunResult:
        write_project(pytester.path, **parts)
        return pytester.runpytest(*RUN, *arguments, no_reraise_ctrlc=True)

    return run


def write_project(
    folder: Path,
    students: Mapping[str, str] | None = None,
    more: str = "",
    last: str = "",
    conftest: str = "",
    addopts: str = "",
    teacher: bool = True,
) -> None:
    """Write suites and a registry whose family ``alpha`` has *students* (name -> expected outcome).

    Without a *teacher* they are gated as they are.

    *more* is a suite that runs before the others. *last* is added to the last student's table. *conftest* are hooks of
    the project, and *addopts* options in its pytest.ini.
    """
    write_registry(folder, family("alpha", students or {"one": "pass", "two": "pass"}, teacher=teacher) + last)
    (folder / "pytest.ini").write_text(
        f"[pytest]\naddopts = {addopts}\n"
    )  # or pytest looks for one in the folders above
    files = {"conftest.py": MARK + STUDENT + conftest, "test_sample_suite.py": SUITE, "test_before_suite.py": more}
    (folder / "suites").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "suites" / name).write_text(text, encoding="utf-8")


def junit_properties(file: Path, test: str) -> dict[str, str]:
    """Return the properties of *test* in a JUnit file."""
    cases = {case.get("name"): case for case in Xml.parse(file).getroot().iter("testcase")}
    return {str(each.get("name")): str(each.get("value")) for each in cases[test].iter("property")}


@pytest.fixture
def results(pytester: pytest.Pytester) -> Callable[[], dict[str, Any]]:
    """Read what the last run left in results.json."""

    def read() -> dict[str, Any]:
        table: dict[str, Any] = json.loads(
            (pytester.path / "reports" / "latest" / "results.json").read_text(encoding="utf-8")
        )
        return table

    return read
