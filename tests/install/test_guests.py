"""Install well-known plugins beside ours: neither a project's tests nor a gate come out otherwise than without them.

Slow, and needs a package index. ``tests/plugin/test_guest.py`` shows in seconds what needs nothing installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests import kills
from tests.plugin.test_guest import NAMES, TESTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "pytest-django", "django", "pytest-randomly", "pytest-rerunfailures", "pytest-timeout", "pytest-html",
    "pytest-sugar",
)  # fmt: skip
SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""
INI = """
[pytest]
DJANGO_SETTINGS_MODULE = settings
addopts = --reruns 2 --timeout 500 --html page.html --self-contained-html -p randomly -p no:hypothesispytest
filterwarnings = error
"""
DATABASE = """
import pytest

@pytest.mark.django_db
def test_database():
    from django.db import connection
    assert connection.cursor().execute("SELECT 1").fetchone() == (1,)

tries = [1, 2]
def test_flaky():
    if tries: raise OSError(tries.pop())
"""
SUITE = ("--pyargs", "safety_harness.suites")


@dataclass(frozen=True)
class Home:
    """A Python with the plugins of others, and a project whose own tests use them."""

    python: Path
    package: Path
    project: Path
    registry: Path

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest in the project."""
        foreign = ("PYTEST", "GITHUB")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return subprocess.run(
            [self.python, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments],
            cwd=self.project,
            env={**kept, "PYTHONPATH": str(self.package), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                 "SAFETY_HARNESS_CACHE": str(self.package / "cache")},
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip

    def gate(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Run a gate in the project, and return its exit code, the facts of its results and what it printed."""
        done = self.pytest(*SUITE, f"--gate-registry={self.registry}", *arguments)
        file = self.project / "reports" / "latest" / "results.json"
        assert file.exists(), done.stdout + done.stderr
        return done.returncode, steady(json.loads(file.read_text(encoding="utf-8"))), done.stdout


def steady(table: dict[str, Any]) -> dict[str, Any]:
    """Return a results.json without dates, durations, and the packages that are installed."""
    provenance = {name: table["provenance"].get(name) for name in ("subject", "decoding", "safety-harness")}
    for student in table["students"]:
        for name in ("seconds", "course"):
            (student["about"].get("patch") or {}).pop(name, None)
    return {**table, "provenance": provenance}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Make an environment with the packages of this one and with the plugins, which pip fetches."""
    folder, project = tmp_path_factory.mktemp("guests"), tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the plugins cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    texts = {"conftest.py": NAMES, "settings.py": SETTINGS, "pytest.ini": INI, "test_mine.py": TESTS + DATABASE}
    for name, text in texts.items():
        (project / name).write_text(text, encoding="utf-8")
    package = tmp_path_factory.mktemp("package")
    (package / "safety_harness").mkdir()
    for entry in (*(ROOT / "safety_harness").iterdir(), ROOT / "suites"):  # as in a wheel
        (package / "safety_harness" / entry.name).symlink_to(entry)
    return Home(folder / "bin" / "python", package, project, kills.write_world(package / "world"))


@pytest.fixture(scope="module")
def alone(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Gate where there is no other plugin, no conftest.py and no pytest.ini: exit code, facts."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "pytest.ini").write_text("[pytest]\n")
    plain = Home(Path(sys.executable), home.package, folder, home.registry)
    return {name: plain.gate(*arguments)[:2] for name, arguments in GATES.items()}


GATES: Mapping[str, tuple[str, ...]] = {
    "green": ("--gate-student", "zork"), "red": ("--gate-student", "zork", "--gate-subject", "student", "-n", "1"),
}  # fmt: skip


def outcomes_of(home: Home, *arguments: str) -> tuple[int, list[str]]:
    """Run the project's own tests in a fixed order, and return what JUnit says of each, but for times."""
    done = home.pytest("--junitxml", "junit.xml", "-p", "randomly", "-p", "no:sugar", *arguments)
    cases = Xml.parse(home.project / "junit.xml").getroot().iter("testcase")
    for case in (found := list(cases)):
        case.attrib.pop("time", None)
    return done.returncode, [Xml.tostring(case, encoding="unicode") for case in found]


@pytest.mark.parametrize("arguments", [("--randomly-seed=7",), ("--randomly-seed=7", "-n", "2"), ("-p", "no:randomly")])
def test_a_projects_own_tests_are_as_without_us(home: Home, arguments: tuple[str, ...]) -> None:
    code, with_us = outcomes_of(home, *arguments)
    assert len(with_us) > 10
    assert (code, sorted(with_us)) == (1, sorted(outcomes_of(home, *arguments, "-p", "no:safety_harness.plugin")[1]))


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_as_without_them(home: Home, alone: Mapping[str, Any], name: str) -> None:
    """Gate with every plugin at work: shuffled, with reruns, a timeout, a page, Django, and warnings as errors."""
    code, facts, printed = home.gate(*GATES[name])
    assert (code, facts) == alone[name], printed
    assert "gate: " in printed


@pytest.mark.parametrize("method", ["signal", "thread"])
@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_timeout_is_never_green(home: Home, method: str, processes: str) -> None:
    timeout = ("--timeout", "0.01", "--timeout-method", method, "--reruns", "0")
    code, facts, printed = home.gate("--gate-student", "zork", *timeout, "-n", processes, "--max-worker-restart", "0")
    assert code not in (0, 5), printed
    assert facts["outcome"] == "inconclusive"
