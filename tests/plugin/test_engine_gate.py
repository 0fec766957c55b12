"""Gate embedded students whose answers come from an engine: the verdict of the harness's own loop, or none at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.test_as_it_is import ROOT, TINY, gate, registry

pytestmark = pytest.mark.slow  # each test gates in processes of its own


PROGRAM = ROOT / "tests" / "fake_engine.py"
MODEL = f'path = "{TINY}/models/llama/teacher"'
HOSTILE = {
    "other": "0 of 16 answers of vllm 9.9 in float32 begin as the harness's own",
    "dies": "The engine ended with exit code 3. It said: ValueError: no kernel for this head",
    "dies-later": "The engine ended with exit code 5. It said: RuntimeError: out of kernels",
    "never": "does not answer within 3 seconds (`start_within`)",
    "slow": "there is no whole answer within 2 seconds (`timeout`)",
    "a-page": "what it sends is no JSON object",
    "no-tokens": "The engine sends no tokens of its answers",
}


def backend(mode: str, more: str = "") -> str:
    return f'backend = {{ kind = "vllm", command = ["{sys.executable}", "{PROGRAM}", "{mode}"]{more} }}'


def results(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "reports" / "latest" / "results.json").read_text())
    return table


def test_an_engine_gives_the_verdict_of_the_own_loop(tmp_path: Path) -> None:
    """Compare letters, numbers and answers in float32. The run says which engine it was, and how many agree."""
    found = {}
    for name, more in (("own", ""), ("engine", backend("well"))):
        (tmp_path / name).mkdir()
        registry(tmp_path / name, MODEL, more)
        run = gate(tmp_path / name, "--gate-include-answers")
        assert run.returncode == 0, run.stdout + run.stderr
        assert (f"; answers by {sys.executable} {PROGRAM} well\n" in run.stdout) is (name == "engine")
        found[name] = results(tmp_path / name)
    (own,), (other,) = (table["students"] for table in found.values())
    assert own["checks"] == other["checks"]
    assert "engine" not in own["about"]["identity"]
    engine = {"kind": "vllm", "version": "9.9", "dtype": "float32", "arguments": ""}
    assert other["about"]["identity"] == {**own["about"]["identity"], "engine": engine}
    said = "the student as it is: 16 of 16 answers of vllm 9.9 in float32 begin as the harness's own (16 tokens)"
    assert any(said in remark for remark in found["engine"]["remarks"])
    page = (tmp_path / "engine" / "reports" / "latest" / "report.md").read_text()
    assert "vllm 9.9 in float32" in page
    assert not list((tmp_path / "cache" / "engines").glob("*.log"))


def test_an_engine_that_errs_is_never_green(tmp_path: Path) -> None:
    """Gate a student for each thing that an engine may do: INCONCLUSIVE with the cause, and started once."""
    file = registry(tmp_path, MODEL, backend("other"))
    family = file.read_text()
    limits = ", start_within = 3.0, timeout = 2.0"
    file.write_text(
        "".join(
            family.replace("families.mine", f"families.{mode}").replace(
                backend("other"), backend(mode, limits if mode in ("never", "slow") else "")
            )
            for mode in HOSTILE
        )
    )
    run = gate(tmp_path)
    table = results(tmp_path)
    assert (run.returncode, table["outcome"]) == (1, "inconclusive")
    reasons = "\n".join(table["reasons"])
    for student in table["students"]:
        assert student["outcome"] == "inconclusive"
        assert "defense" not in student["checks"]
    for said in HOSTILE.values():
        assert said in reasons
    assert "Traceback" not in run.stdout + run.stderr
    assert len(list((tmp_path / "cache" / "engines").glob("*.log"))) == len(HOSTILE)
    assert not [path for path in (tmp_path / "cache" / "engines").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ('backend = { kind = "vllm", command = ["/opt/none", "serve"] }', (), "there is no program '/opt/none'"),
        (
            f'teacher = "{TINY}/models/llama/teacher"\n'
            'backend = { kind = "vllm", url = "http://127.0.0.1:1/v1", model = "m" }',
            (),
            "is gated patched, and the engine at http://127.0.0.1:1/v1 has one model",
        ),
    ],
)
def test_what_cannot_be_started_is_refused_first(
    tmp_path: Path, table: str, arguments: tuple[str, ...], message: str
) -> None:
    registry(tmp_path, MODEL, table)
    run = gate(tmp_path, *arguments)
    assert run.returncode == 4
    assert message in run.stderr


def test_a_patched_student_is_answered_by_its_own_weights(tmp_path: Path) -> None:
    """Search a patch, and gate it by both: the same units, letters and numbers, as JSON."""
    student = (
        f'path = "{TINY}/models/llama/capitals"\ntask = {{ search = "{TINY}/prompts/tasks/capitals.search.jsonl", '
        f'report = "{TINY}/prompts/tasks/capitals.report.jsonl" }}'
    )
    more = (
        f'teacher = "{TINY}/models/llama/teacher"\nsearch = {{ prior = "contrast", together = "module" }}\n'
        "gate = { dsr = 0.3, over_refusal = 0.2 }"
    )
    tables = []
    for engine in ("", backend("well")):
        registry(tmp_path, student, f"{more}\n{engine}")
        run = gate(tmp_path, "--gate-report-dir", f"reports{len(tables)}")
        tables.append(json.loads((tmp_path / f"reports{len(tables)}" / "latest" / "results.json").read_text()))
        assert run.returncode == 0, run.stdout + run.stderr
    (own,), (other,) = (table["students"] for table in tables)
    assert own["about"]["patch"]["units"] == other["about"]["patch"]["units"]
    assert own["about"]["patch"]["key"] == other["about"]["patch"]["key"]
    assert own["checks"] == other["checks"]
    assert own["about"]["teacher"] == other["about"]["teacher"]
    assert any("the patched student: 16 of 16" in remark for remark in tables[1]["remarks"])
