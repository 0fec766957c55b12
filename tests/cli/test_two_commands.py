"""Go from an empty folder to a green gate with a report, in two commands and without a line of TOML by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_init import STUDENT, TASKS, TEACHER, counted

ROOT = Path(__file__).parents[2]
SECONDS = 90
# Where other work keeps the cores busy, a time says nothing.
MOST_BUSY = 0.5


@pytest.mark.slow
def test_an_empty_folder_becomes_a_green_gate_in_two_commands(tmp_path: Path) -> None:
    """Run init and the gate on a tiny student and its teacher, as a user would."""
    place = tmp_path / "empty"
    place.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SAFETY_HARNESS_CACHE": str(tmp_path / "cache")}
    tasks = [f"--task={TASKS}/capitals.{side}.jsonl" for side in ("search", "report")]
    commands = (
        ["safety_harness", "init", ".", "--student", str(STUDENT), "--teacher", str(TEACHER), *tasks, "--yes"],
        ["safety_harness", "gate"],
    )
    busy, start = os.getloadavg()[0], time.monotonic()
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=place, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    seconds = time.monotonic() - start
    assert "gate: PASS" in done.stdout
    assert len(counted((place / "gate.toml").read_text())) <= 15
    assert list((place / "reports").rglob("report.html"))
    assert seconds < SECONDS or busy > MOST_BUSY, f"{seconds:.0f} s"
