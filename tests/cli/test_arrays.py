"""Gate the tasks of a Slurm array one by one, as docs/gate.sbatch says, and merge them: the decision of one run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from safety_harness.report import write_results
from tests.plugin.test_as_it_is import TINY
from tests.samples import family, run_result, sample_checks, write_registry

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "gate.sbatch"
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
# Three students that are searched in seconds. One is a known red.
NAMES = ("capitals", "colours", "gnarl")


def write_command(folder: Path, gate: str = "") -> dict[str, str]:
    """Write the command `safety-harness` to *folder*, or for `gate` the line *gate*. Return the environment."""
    program = folder / "bin" / "safety-harness"
    program.parent.mkdir(exist_ok=True)
    stands_in = f'if [ "$1" = gate ]; then {gate}; exit; fi\n' if gate else ""
    program.write_text(f'#!/bin/sh\n{stands_in}exec {sys.executable} -m safety_harness "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GATE_REGISTRY": "registry.toml"}


def run(folder: Path, env: dict[str, str], task: int | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm does for one task of an array, or for a plain job."""
    there = env if task is None else {**env, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1"}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], cwd=folder, env=there, capture_output=True, text=True, timeout=300
    )


def results(file: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(file.read_text())
    return table


def test_each_task_gates_one_student_and_none_may_miss(tmp_path: Path) -> None:
    """Let two of three tasks leave results: INCONCLUSIVE names the third, and its results make the run green."""
    write_registry(tmp_path, family("alpha", dict.fromkeys(("one", "two", "three"), "pass")))
    env = write_command(tmp_path, 'echo "$@" >> gated.txt')
    for task in range(3):
        assert run(tmp_path, env, task, "--include-answers").returncode == 0
    gated = (tmp_path / "gated.txt").read_text().splitlines()
    assert [re.findall(r"--student (\S+)", line) for line in gated] == [["alpha/one"], ["alpha/two"], ["alpha/three"]]
    assert all("-n 0 --threads 1 --report-dir reports/alpha-" in line for line in gated)
    assert all(line.endswith("--include-answers") for line in gated)
    assert run(tmp_path, env, 3).returncode != 0  # the array is longer than the registry

    for name, code, outcome in (("one", None, ""), ("two", 1, "inconclusive"), ("three", 0, "pass")):
        folder = tmp_path / "reports" / f"alpha-{name}" / "latest"
        folder.mkdir(parents=True)
        write_results(run_result({f"alpha/{name}": sample_checks()}), folder)
        if code is not None:
            done = run(tmp_path, env, None, "merge")
            assert done.returncode == code
            assert done.stdout.endswith("\nalpha/three: no run has it\n") is (outcome == "inconclusive")
            merged = results(tmp_path / "reports" / "results.json")
            assert merged["outcome"] == outcome
            assert ("alpha/three: no run has it" in merged["reasons"]) is (outcome == "inconclusive")


@pytest.mark.slow
def test_an_array_decides_what_one_run_decides(tmp_path: Path) -> None:
    """Compare checks, units and outcomes as JSON with a run of all students at once, which Holm corrects together."""
    tables = "".join(
        f'[families.tiny.students.{name}]\npath = "{TINY}/models/llama/{name}"\n'
        f'expected = "{"fail" if name == "gnarl" else "pass"}"\n'
        f'task = {{ search = "{TINY}/prompts/tasks/{name}.search.jsonl", '
        f'report = "{TINY}/prompts/tasks/{name}.report.jsonl" }}\n'
        for name in NAMES
    )
    sets = "".join(
        f'{kind} = {{ search = "{TINY}/prompts/{kind}.search.jsonl", report = "{TINY}/prompts/{kind}.report.jsonl" }}\n'
        for kind in ("harmful", "harmless")
    )
    (tmp_path / "registry.toml").write_text(
        f'[families.tiny]\nteacher = "{TINY}/models/llama/teacher"\n{sets}text = "{TINY}/prompts/text.jsonl"\n'
        f'max_new_tokens = 16\nsearch = {{ prior = "contrast", together = "module", target_share = 0.98 }}\n{tables}'
    )
    env = {**write_command(tmp_path), "OMP_NUM_THREADS": "1"}
    for task in range(len(NAMES)):
        done = run(tmp_path, env, task)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run(tmp_path, env, None, "merge").returncode == 0
    command = ["safety-harness", "gate", "--registry", "registry.toml", "--report-dir", "whole", "-n", "0"]
    assert subprocess.run(command, cwd=tmp_path, env=env, timeout=300, check=False).returncode == 0
    array, whole = (
        results(tmp_path / "reports" / "results.json"),
        results(tmp_path / "whole" / "latest" / "results.json"),
    )
    assert array["outcome"] == whole["outcome"] == "known red"
    for one, other in zip(array["students"], whole["students"], strict=True):
        assert one["about"]["patch"]["units"] == other["about"]["patch"]["units"]
        assert {**one, "about": None} == {**other, "about": None}
    assert all(student["checks"]["defense"]["numbers"]["p_adjusted"] for student in array["students"])


@pytest.mark.parametrize("jobs", [0, 1])
def test_the_ci_matrices_are_whole(jobs: int) -> None:
    """Check that each snippet is YAML, gates one student a job, and merges with the registry."""
    text = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[jobs]
    assert isinstance(yaml.safe_load(text), dict)
    assert '--student "$STUDENT"' in text
    assert re.search(r"safety-harness merge \S+results.json --registry \S+ --out", text)
