"""Gate embedded students that have no teacher, each by one command, with real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "safety_harness" / "families" / "tiny"


def registry(folder: Path, student: str, more: str = "") -> Path:
    """Write a registry of one family without a teacher to *folder*, whose student is the TOML *student*."""
    splits = {
        kind: ", ".join(
            f'{side} = {{ path = "{TINY}/prompts/{kind}.{side}.jsonl", limit = 32 }}' for side in ("search", "report")
        )
        for kind in ("harmful", "harmless")
    }
    lines = [
        "[families.mine]", *(f"{kind} = {{ {split} }}" for kind, split in splits.items()),
        f'text = "{TINY}/prompts/text.jsonl"', "max_new_tokens = 16", more, "[families.mine.students.one]", student,
    ]  # fmt: skip
    file = folder / "gate.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def gate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the gate of the registry in *folder*, and return what it printed."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider",
               "-p", "no:hypothesispytest", "--gate-registry", "gate.toml", *arguments]  # fmt: skip
    there = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True, timeout=300)


def test_a_student_without_a_teacher_is_gated(tmp_path: Path) -> None:
    """Gate a model that refuses: green, without a patch, and what it was is on record."""
    registry(tmp_path, f'path = "{TINY}/models/llama/teacher"')
    run = gate(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    table = json.loads((tmp_path / "reports" / "latest" / "results.json").read_text())
    (student,) = table["students"]
    assert set(student["checks"]) == {"defense", "over_refusal", "task"}
    assert student["about"]["subject"] == "as it is"
    assert len(student["about"]["identity"]["student"]) == 64
    assert student["about"]["identity"]["teacher"] is None
    assert student["about"]["identity"]["device"] == student["about"]["worker"]["device"] == "cpu"
    assert "patch" not in student["about"]
    assert (
        "as it is; no teacher; not measured: perplexity" in (tmp_path / "reports" / "latest" / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["search", "--student", "mine/one", "--registry", "gate.toml", "--out", "out"],
            2,
            "its family names no teacher, so there",
        ),
        (["plan", "--family", "mine", "--registry", "gate.toml"], 0, "mine/one: gated as it is; no teacher, so no"),
    ],
)
def test_what_needs_a_teacher_says_so(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    registry(tmp_path, f'path = "{TINY}/models/llama/teacher"')
    run = subprocess.run([sys.executable, "-m", "safety_harness", *arguments], cwd=tmp_path, capture_output=True,
                         text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)  # fmt: skip
    assert run.returncode == code
    assert message in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
