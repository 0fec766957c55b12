"""Check that a run that is no gate does not notice the plugin, and that a gate does not notice a project's names.

``tests/install/test_guests.py`` does both with well-known plugins that are really installed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from safety_harness import plugin
from tests.plugin.conftest import ROOT

Project = Callable[..., pytest.RunResult]
Results = Callable[[], dict[str, Any]]

# What a project may well have: our names, without our prefix.
NAMES = """
import pytest

def pytest_addoption(parser):
    for name in ("family", "student", "teacher", "registry", "subject", "patches", "report-dir", "run"):
        parser.addoption(f"--{name}", default=name)

@pytest.fixture
def student():
    return "Ada"

@pytest.fixture(params=["x", "y"])
def teacher(request, student):
    return request.param + student

@pytest.fixture(scope="session")
def patch():
    return 7

@pytest.fixture
def subject(pytestconfig):
    return pytestconfig.getoption("--subject")

@pytest.fixture
def measure():
    return len
"""
TESTS = """
import warnings
import pytest

def test_names(student, teacher, patch, subject, measure):
    assert (student, patch, subject, measure("ab")) == ("Ada", 7, "subject", 2)

@pytest.mark.parametrize("student", [1, 2])
def test_parametrized(student): assert student in (1, 2)
def test_fails(): assert 0
def test_skips(): pytest.skip("not today")
def test_warns(student): warnings.warn("mine")
@pytest.mark.xfail
def test_expected(): assert 0
"""


def facts(pytester: pytest.Pytester, *arguments: str) -> tuple[int, list[Any]]:
    """Run the tests of the current folder, and return the exit code and all that JUnit says of each, but for times."""
    run = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--junitxml", "junit.xml", *arguments)
    table = Xml.parse(pytester.path / "junit.xml").getroot()
    for case in table.iter():
        case.attrib.pop("time", None)
        case.attrib.pop("timestamp", None)
    shown = [line for line in run.outlines if not line.startswith(("plugins:", "===", "- generated"))]
    return int(run.ret), [Xml.tostring(table, encoding="unicode"), shown]


@pytest.mark.parametrize("arguments", [
    ("-n", "1"), ("-W", "error"),
    *(pytest.param(one, marks=pytest.mark.slow) for one in ((), ("-k", "skips"), ("--collect-only",))),
])  # fmt: skip
def test_a_run_that_is_no_gate_is_as_without_us(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Run a project with fixtures and options of our names, once with the plugin and once without it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(NAMES)
    pytester.makepyfile(TESTS)
    assert facts(pytester, *arguments) == facts(pytester, *arguments, "-p", "no:safety_harness.plugin")
    assert not (pytester.path / "reports").exists()


def test_few_hooks_are_ours_where_no_gate_is(pytester: pytest.Pytester) -> None:
    """Expect no hook that meets a test, a report, a warning or an exit code."""
    manager = pytester.parseconfigure().pluginmanager
    hooks = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    assert hooks == {
        "pytest_addoption", "pytest_load_initial_conftests", "pytest_cmdline_main", "pytest_configure",
        "pytest_xdist_auto_num_workers",
    }  # fmt: skip
    assert plugin.pytest_xdist_auto_num_workers(pytester.parseconfig()) is None
    assert [name for name, _ in manager.list_name_plugin() if "safety" in name] == ["safety_harness.plugin"]


def test_a_run_that_is_no_gate_imports_next_to_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile("def test(): ...")
    script = "import sys, pytest; pytest.main(['-p', 'no:hypothesispytest']); print('loaded', *sys.modules)"
    (line,) = (line for line in pytester.run(sys.executable, "-c", script).outlines if line.startswith("loaded"))
    loaded = set(line.split())
    assert {name for name in loaded if name.startswith("safety_harness.")} == {
        "safety_harness.errors", "safety_harness.plugin", "safety_harness.plugin.fixtures",
        "safety_harness.plugin.options", "safety_harness.registry", "safety_harness.registry.options",
    }  # fmt: skip
    assert not loaded & {"torch", "transformers", "numpy", "scipy", "pydantic", "rich", "hypothesis"}


def test_the_plugin_costs_a_start_few_milliseconds(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the plugin after pytest, in fresh interpreters: the fastest of five takes less than 30 ms."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = (
        "import time, pytest; began = time.perf_counter(); import safety_harness.plugin; "
        "print((time.perf_counter() - began) * 1000)"
    )
    assert min(float(pytester.run(sys.executable, "-c", script).outlines[-1]) for _ in range(5)) < 30


def test_suites_in_a_run_that_is_no_gate_are_not_green(pytester: pytest.Pytester) -> None:
    """Collect suites below the folder that pytest is given: their conftest.py comes too late to make a gate."""
    shutil.copytree(ROOT / "suites", pytester.path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    run = pytester.runpytest("-p", "no:cacheprovider")
    run.assert_outcomes(errors=12)
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    run.stdout.fnmatch_lines(["*This run is no gate, so no student is selected. Run `safety-harness gate`*"])


# --- The gate --------------------------------------------------------------------------------------------------------


def test_a_gate_has_its_own_fixtures_whatever_a_project_calls_so(
    project: Project, results: Results, pytester: pytest.Pytester
) -> None:
    """Gate in a project whose conftest.py, in the folder of the run, defines options and fixtures of our names."""
    pytester.makeconftest(NAMES)
    assert project(students={"one": "pass"}).ret == pytest.ExitCode.OK
    assert results()["outcome"] == "pass"
    pytester.makepyfile(TESTS)
    both = project(".", "-k", "not fails", students={"one": "pass"})
    both.assert_outcomes(passed=8, skipped=1, xfailed=1)
    assert both.ret == pytest.ExitCode.OK


def test_a_suite_may_use_the_names_with_the_prefix(project: Project, results: Results) -> None:
    """Let a suite define ``student`` itself: its own is used for that name, and ours for the prefixed one."""
    more = (
        "import pytest\n@pytest.fixture\ndef student():\n    return 'Ada'\n"
        "def test_mine(student, gate_student, gate_measure):\n    gate_measure.about(own=student)\n"
    )
    assert project(students={"one": "pass"}, more=more).ret == pytest.ExitCode.OK
    assert results()["students"][0]["about"]["own"] == "Ada"
