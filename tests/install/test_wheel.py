"""Check the wheel: what it holds, and that a fresh environment gates a student with nothing but it.

The environment has the packages of this one, less those of the extras. The project is importable there from the wheel
only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from safety_harness.registry.load import REPOSITORY_ONLY
from safety_harness.registry.named import FILE, KINDS, sets

ROOT = Path(__file__).parents[2]
MAX_WHEEL_BYTES = 15_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What is built from; everything else of a clone (.git, environments, reports) stays where it is.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "safety_harness", "suites")
# The packages that only an extra brings.
EXTRAS = {
    requirement.partition(">")[0]
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items()
    for requirement in requirements
    if extra not in ("all", "dev")
}
IMPORT_EVERYTHING = """
import importlib, pkgutil, safety_harness, safety_harness.suites
for module in pkgutil.walk_packages(safety_harness.__path__, "safety_harness."):
    importlib.import_module(module.name)
print(safety_harness.__file__, safety_harness.suites.__file__, sep="\\n")
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment outside of the repository, and an empty folder to work in."""

    folder: Path
    work: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in the empty folder, with a cache there and nothing else of this process."""
        foreign = ("PYTHON", "PYTEST", "GITHUB")  # would import this source, join this run, write to its summary
        variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return subprocess.run(
            [self.folder / "bin" / "python", *arguments],
            cwd=self.work,
            env={**variables, "SAFETY_HARNESS_CACHE": str(self.work / "cache"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no earlier build and no file that git ignores gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel into an environment that has the packages of this one without the extras."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    _pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in sys.path:
        if Path(path).name in ("site-packages", "dist-packages"):
            _link_packages(Path(path), packages)
    return Environment(folder, tmp_path_factory.mktemp("empty"))


def test_wheel_is_small_and_holds_one_family(wheel: Path) -> None:
    """Find every module and every file that modules read in the wheel; of the families, only ``tiny``.

    Of the questions of the other families, those that a registry may name are there as well.
    """
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        *(path for path in (ROOT / "safety_harness").rglob("*") if "families" not in path.relative_to(ROOT).parts),
        ROOT / "safety_harness/families/tiny.toml",
        *(ROOT / "safety_harness/families/tiny").rglob("*"),
        *(
            FILE.parent / file
            for kind in KINDS
            for entry in sets(kind).values()
            for file in (entry.search, entry.report)
        ),
        *(ROOT / "safety_harness/families/prompts/tasks").glob("*"),
    }
    files = {file.resolve() for file in files}
    expected = {file.relative_to(ROOT).as_posix() for file in files if file.is_file() and file.suffix != ".pyc"}
    expected |= {f"safety_harness/suites/{file.name}" for file in (ROOT / "suites").glob("*.py")}
    assert packed == expected
    assert {"safety_harness/py.typed", "safety_harness/suites/conftest.py"} <= packed
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_every_module_imports_without_extras(environment: Environment) -> None:
    """Import all modules: from the wheel, not from this repository, and with no optional package at hand."""
    done = environment.run("-c", IMPORT_EVERYTHING)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.splitlines():
        assert Path(path).is_relative_to(environment.folder)


def test_installed_command_lists_the_family(environment: Environment) -> None:
    """Run the command of the wheel: it knows the students of ``tiny`` and of no other group."""
    done = environment.run(str(environment.folder / "bin" / "safety-harness"), "list")
    assert done.returncode == 0, done.stderr
    assert "tiny-llama/arithmetic" in done.stdout
    assert "smollm2" not in done.stdout


def test_wheel_gates_a_student_and_writes_its_patch(environment: Environment) -> None:
    """Search and gate one tiny student in a worker, and take its patch out, without a clone and without extras."""
    command = ["-m", "pytest", "--pyargs", "safety_harness.suites", "-n", "1"]
    done = environment.run(*command, "--gate-family", "tiny", "--gate-student", "tiny-gemma/capitals")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gate: PASS" in done.stdout
    results = json.loads((environment.work / "reports" / "latest" / "results.json").read_text(encoding="utf-8"))
    assert results["outcome"] == "pass"
    assert [student["id"] for student in results["students"]] == ["tiny-gemma/capitals"]
    student, command = "tiny-gemma/capitals", str(environment.folder / "bin" / "safety-harness")
    done = environment.run(command, "patch", "reports/latest/results.json", "--student", student, "--out", "patch")
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = json.loads((environment.work / "patch" / "manifest.json").read_text(encoding="utf-8"))["environment"]
    assert "torch" in recorded
    assert "peft" not in recorded


@pytest.mark.parametrize("module", ["safety_harness", "safety_harness.suites", "safety_harness.suites.test_defense"])
def test_named_suites_are_a_gate_without_options(environment: Environment, module: str) -> None:
    """Refuse an unknown threshold: a run that is no gate would skip every suite and end with 0."""
    done = environment.run("-m", "pytest", "--pyargs", module, "--gate-dsr", "5")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--gate-dsr" in done.stderr


def test_wheel_says_where_the_other_families_are(environment: Environment) -> None:
    """Name the repository for a family that the wheel does not hold, and the file to give."""
    done = environment.run("-m", "pytest", "--pyargs", "safety_harness.suites", "--gate-family", "smollm2")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "family 'smollm2' is in the repository only" in done.stderr
    assert "CLONE/safety_harness/families/smollm2.toml" in done.stderr


def test_repository_families_are_those_of_its_files() -> None:
    """Compare the list in the code with the registry files that no wheel holds."""
    defined: dict[str, str] = {}
    for file in (ROOT / "safety_harness" / "families").glob("*.toml"):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        defined |= dict.fromkeys((table["group"], *table["families"]), file.name)
    assert {name: file for name, file in defined.items() if file != "tiny.toml"} == REPOSITORY_ONLY


def _link_packages(source: Path, target: Path) -> None:
    """Link every package of *source* in *target*, except for those of extras, this project and what is there."""
    for entry in source.iterdir():
        name = entry.name.partition("-")[0].lower()
        ours = name.startswith(("safety_harness", "__editable__")) or entry.suffix == ".pth"
        if not ours and name not in EXTRAS and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)


def _pip(*arguments: str) -> None:
    """Run this environment's pip; show what it says when it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
