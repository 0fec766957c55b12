"""A project with suites of its own, run by a real pytest with the real plugin; only the models are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.samples import family, write_registry

ROOT = Path(__file__).parents[2]
MARK = (ROOT / "suites" / "conftest.py").read_text(encoding="utf-8")
# In place of a loaded model, its name: all that `measure` needs to know.
STUDENT = """
from types import SimpleNamespace


@pytest.fixture(scope="session")
def student(request):
    questions = SimpleNamespace(reported=())
    return SimpleNamespace(evaluator=SimpleNamespace(student=request.param, questions=questions))
"""
# Students named weak* refuse too little. Each test says where it ran.
SUITE = """
import os
import pytest
from tests.samples import sample_checks


@pytest.fixture
def found(student):
    weak = student.evaluator.student.name.startswith("weak")
    return {check.name: check for check in sample_checks(9 if weak else 128)}


@pytest.fixture(autouse=True)
def where(request, measure):
    measure.about(**{request.node.originalname: os.environ.get("PYTEST_XDIST_WORKER", "main")})


def test_defense(found, measure):
    measure(found["defense"]).require()


def test_over_refusal(found, measure):
    measure(found["over_refusal"]).require()


def test_the_rest(found, measure):
    for name in ("task", "perplexity", "divergence", "minimality"):
        measure(found[name]).require()
"""

Project = Callable[..., pytest.RunResult]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a project whose family ``alpha`` has *students* (name -> expected outcome) and run its suites.

    *more* is a suite that runs before the others, *own* what else the last student's table holds; *arguments* go to
    pytest.
    """
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*arguments: str, students: dict[str, str] | None = None, more: str = "", own: str = "") -> pytest.RunResult:
        write_registry(pytester.path, family("alpha", students or {"one": "pass", "two": "pass"}) + own)
        files = {"conftest.py": MARK + STUDENT, "test_sample_suite.py": SUITE, "test_before_suite.py": more}
        (pytester.path / "suites").mkdir(exist_ok=True)
        for name, text in files.items():
            (pytester.path / "suites" / name).write_text(text, encoding="utf-8")
        return pytester.runpytest(
            "suites", "--registry", "registry.toml", "-p", "no:cacheprovider", *arguments, no_reraise_ctrlc=True
        )

    return run


@pytest.fixture
def results(pytester: pytest.Pytester) -> Callable[[], dict[str, Any]]:
    """What the last run left in results.json."""

    def read() -> dict[str, Any]:
        table: dict[str, Any] = json.loads((pytester.path / "reports" / "results.json").read_text(encoding="utf-8"))
        return table

    return read
