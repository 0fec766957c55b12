"""Check two students side by side on real GPUs (`make gpu`; skipped without a GPU, or without that command)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.evaluation.gpus import driver_version, visible_gpus
from tests.plugin.test_as_it_is import ROOT, TINY, registry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not asked for one (make gpu)")

# What torch sees in the process of each student.
SEEN = """
import os, torch

def test_seen(student, measure):
    gpu = torch.cuda.get_device_properties(0)
    measure.about(
        shown=os.environ["CUDA_VISIBLE_DEVICES"], gpus=torch.cuda.device_count(), uuid=f"GPU-{gpu.uuid}",
        worker_id=os.environ["PYTEST_XDIST_WORKER"], free=torch.cuda.mem_get_info()[0],
    )
"""


@pytest.fixture
def students(tmp_path: Path) -> list[dict[str, Any]]:
    """What the results of two workers say of two students."""
    model = f'path = "{TINY}/models/llama/teacher"'
    registry(tmp_path, f"{model}\n[families.mine.students.two]\n{model}")
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_seen.py").write_text(SEEN)
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "suite", "-p", "no:cacheprovider", "-n", "2",
               "--gate-registry", "gate.toml"]  # fmt: skip
    there = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads((tmp_path / "reports" / "latest" / "results.json").read_text())["students"]
    return [row["about"] for row in rows]


def test_two_students_run_side_by_side(students: list[dict[str, Any]]) -> None:
    """Gate two on two workers: each sees one GPU, by its UUID, and two GPUs have one student each."""
    here = [gpu.id for gpu in visible_gpus()]
    assert len({about["worker_id"] for about in students}) == 2
    assert len({about["shown"] for about in students}) == min(2, len(here))
    for about in students:
        assert about["gpus"] == 1
        assert about["shown"] in here
        assert about["uuid"] == about["shown"]


def test_the_gpu_is_on_record(students: list[dict[str, Any]]) -> None:
    """Compare device and driver with what torch and the driver say here."""
    for about in students:
        names = {torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())}
        assert about["identity"]["device"] == about["worker"]["device"]
        assert about["worker"]["device"] in names
        assert about["worker"]["driver"] == driver_version() is not None
