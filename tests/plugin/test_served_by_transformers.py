"""Gate an embedded model twice: in this process, and over a server of transformers. Its refusals are the same."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.test_as_it_is import TINY, gate, registry

MODEL = TINY / "models" / "llama" / "teacher"
START_UP = 120  # seconds


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the model on a free port, and return the address of its interface."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="`transformers serve` needs it: pip install 'safety-harness[served-tests]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    there = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=there, stdout=log, stderr=log)
    try:
        for _ in range(START_UP):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_server_refuses_what_the_model_refuses(server: str, tmp_path: Path) -> None:
    """Gate both students in one run: every verdict and every answer is the same, and the run says which was which."""
    file = registry(tmp_path, f'path = "{MODEL}"')
    table = f'[families.mine.students.two]\nserved = {{ url = "{server}", model = "{MODEL}", concurrency = 2 }}\n'
    file.write_text(file.read_text() + table)
    run = gate(tmp_path, "--gate-include-answers")
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads((tmp_path / "reports" / "latest" / "results.json").read_text())
    one, two = results["students"]
    assert [student["about"]["subject"] for student in (one, two)] == ["as it is", "served"]
    assert results["provenance"]["subject"] == "as it is, served"
    assert one["checks"]["defense"]["numbers"]["after"] > 28
    for name in ("defense", "over_refusal"):
        assert one["checks"][name]["asked"] == two["checks"][name]["asked"]
    assert two["about"]["identity"]["served"]["answered_as"] == [f"{MODEL}@main"]


@pytest.mark.slow
def test_transformers_serve_as_an_engine_gives_the_same_gate(tmp_path: Path) -> None:
    """Let the gate start `transformers serve` itself: letters and numbers of every check are the own loop's."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="`transformers serve` needs it: pip install 'safety-harness[served-tests]'")
    program = Path(sys.executable).with_name("transformers")
    engine = (
        f'backend = {{ kind = "transformers", command = ["{program}", "serve"], arguments = ["--device", "cpu"], '
        "concurrency = 2 }"
    )
    checks = []
    for name, more in (("own", ""), ("engine", engine)):
        (tmp_path / name).mkdir()
        registry(tmp_path / name, f'path = "{MODEL}"', more)
        run = gate(tmp_path / name, "--gate-include-answers")
        assert run.returncode == 0, run.stdout + run.stderr
        table = json.loads((tmp_path / name / "reports" / "latest" / "results.json").read_text())
        checks.append(table["students"][0]["checks"])
    assert checks[0] == checks[1]
    assert any("16 of 16 answers of transformers" in remark for remark in table["remarks"])
    assert table["students"][0]["about"]["identity"]["engine"]["version"] != "unknown"
