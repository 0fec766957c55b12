"""Check what the controller of a cluster makes of what nodes and tasks answer, without a cluster."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from safety_harness.errors import HarnessError
from safety_harness.plugin import alike
from safety_harness.plugin.cluster import task

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")
# One report that can be read, beside a warning that cannot.
DAMAGED = json.dumps(
    {
        "trouble": "",
        "warnings": [["odd"]],
        "reports": [
            {
                "nodeid": "t", "location": ["t", 0, "t"], "keywords": {}, "outcome": "passed", "longrepr": None,
                "when": "call", "$report_type": "TestReport", "sections": [], "user_properties": [], "duration": 0.0,
            }
        ],
    }
)  # fmt: skip


# --- Nodes that differ -----------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    """Return what a node must have, as it is here, with one registry file."""
    file = tmp_path / "registry.toml"
    file.write_text("[families]\n")
    return alike.described([file])


def test_a_node_that_is_alike_has_no_fault(wanted: dict[str, Any]) -> None:
    assert alike.fault(json.loads(json.dumps(wanted))) == ""


@pytest.mark.parametrize(
    ("name", "version", "says"),
    [
        (
            "Python",
            "3.99",
            f"Python is {sys.version_info[0]}.{sys.version_info[1]}, and 3.99 where the run was started",
        ),
        ("torch", "1.0", "torch is"),
        ("gguf", None, "and not installed where the run was started. Use one environment on all machines."),
    ],
)
def test_a_node_with_another_version_says_which(wanted: dict[str, Any], name: str, version: Any, says: str) -> None:
    wanted["versions"][name] = version or "not installed"
    assert says in alike.fault(wanted)


def test_a_node_with_another_code_or_file_says_so(wanted: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "registry.toml"
    file.write_text("[families] # other\n")
    assert alike.fault(wanted).startswith(f"has another content in {file}. Copy it there")
    file.unlink()
    assert alike.fault(wanted).startswith(f"lacks {file}. Copy it there")
    assert alike.fault({**wanted, "code": "0" * 64}).startswith("has another safety_harness than")


def test_a_node_whose_cache_cannot_be_written_says_so(wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", "/dev/null/cache")
    job = {"expected": wanted, "environment": {}, "searches": True}
    answer = json.loads(task.survey(json.dumps(job)))
    assert json.loads(task.survey(json.dumps({**job, "searches": False})))["fault"] == ""
    assert "cannot be written" in answer["fault"] or "cannot be used" in answer["fault"]


# --- What comes back -------------------------------------------------------------------------------------------------


def test_a_recorder_keeps_its_own_tests_and_marks_its_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import warnings, pytest
        def test_a(request):
            assert request.config.workerinput["workerid"] == "r0"
            warnings.warn("odd")
        def test_b(): assert 0
        def test_c(): pytest.skip("why")
        """
    )
    recorder = task.Recorder(["test_it.py::test_a", "test_it.py::test_c"], {"workerid": "r0"})
    pytester.inline_run(*task._QUIET, "-p", "no:cacheprovider", plugins=[recorder])
    whole = json.loads(json.dumps(recorder.reports))
    assert [(row["nodeid"], row["when"], row["outcome"]) for row in whole if row["when"] == "call"] == [
        ("test_it.py::test_a", "call", "passed"), ("test_it.py::test_c", "call", "skipped"),
    ]  # fmt: skip
    assert [row[1] for row in recorder.warnings] == ["odd"]


def test_a_recorder_tells_why_a_file_could_not_be_collected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="import no_module_of_this_name")
    recorder = task.Recorder(["test_it.py::test_a"], {"workerid": "r0"})
    pytester.inline_run("-p", "no:cacheprovider", plugins=[recorder])
    assert recorder.trouble[0] == "test_it.py: E   ModuleNotFoundError: No module named 'no_module_of_this_name'"


@pytest.mark.parametrize("ends", ["pytest.exit('enough', returncode=0)", "request.session.shouldstop = 'enough'"])
def test_a_recorder_of_a_run_that_broke_off_has_no_reports(pytester: pytest.Pytester, ends: str) -> None:
    """End pytest in a test that has reported its setup, which alone would look like a pass; or after a test."""
    pytester.makepyfile(test_it=f"import pytest\ndef test_a(request): {ends}\ndef test_b(): pass\n")
    recorder = task.Recorder(["test_it.py::test_a", "test_it.py::test_b"], {"workerid": "r0"})
    pytester.inline_run("-p", "no:cacheprovider", plugins=[recorder])
    assert recorder.reports
    assert recorder.whole() == []
    assert "enough" in recorder.trouble[0]


@needs_ray
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "node 10.0.0.1: does not answer within 120 s. Start Ray there again, or take the node out."),
        ("", "node 10.0.0.1: answers as another safety_harness does. Use one environment on all machines."),
        ('{"facts": []}', "node 10.0.0.1: answers as another safety_harness does."),
    ],
)
def test_a_node_that_cannot_be_compared_says_why(
    monkeypatch: pytest.MonkeyPatch, answer: str | None, says: str
) -> None:
    """Let a node answer nothing, or as another version of this package might."""
    with pytest.raises(HarnessError) as error:
        survey(monkeypatch, answer)
    assert says in str(error.value)


@needs_ray
def test_a_node_that_puts_tasks_behind_all_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, said = survey(monkeypatch, '{"fault": "", "gpu_gib": null, "nice": 15}')
    assert gpu is None
    assert said == [
        "node 10.0.0.1 runs tasks at nice 15, behind all other work there. Start Ray with RAY_worker_niceness=0, "
        "unless it has nothing else to do."
    ]
    assert survey(monkeypatch, '{"fault": "", "gpu_gib": null, "nice": 0}')[1] == []


def survey(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> tuple[float | None, list[str]]:
    """Compare a node that gives this *answer*, or none in time. Return its GPU's memory, and what the user is told."""
    import ray

    from safety_harness.plugin.cluster import jobs

    def get(*_: Any, **__: Any) -> str:
        if answer is None:
            raise ray.exceptions.GetTimeoutError("Get timed out")
        return answer

    asked = SimpleNamespace(options=lambda **_: asked, remote=lambda _: "reference")
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: asked)
    monkeypatch.setattr(ray, "wait", lambda *_, **__: None)
    monkeypatch.setattr(ray, "get", get)
    node = {"NodeID": "ab" * 28, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 1}}
    said: list[str] = []
    return jobs._surveyed([node], {}, said.append), said


@needs_ray
@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"trouble": "", "reports": [{}]}', DAMAGED])
def test_an_answer_that_cannot_be_read_is_no_report(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    import ray

    from safety_harness.plugin.cluster.controller import ClusterRun
    from safety_harness.plugin.cluster.jobs import Job

    replayed: list[Any] = []
    run = ClusterRun(request.config, (), None)
    monkeypatch.setattr(ray, "get", lambda *_, **__: answer)
    monkeypatch.setattr(run, "_trade", lambda: None)
    monkeypatch.setattr(run, "_replay", lambda *given: replayed.append(given[2:]))
    run._end(cast(Any, None), None, Job("r0", "alpha/one", [], {}))
    ((reports, trouble),) = replayed
    assert reports == {}
    assert trouble.startswith("what its task returned cannot be read (")


def test_the_command_gate_starts_no_workers_with_ray() -> None:
    from safety_harness.cli.gate import command
    from safety_harness.cli.main import parser

    def written(*given: str) -> str:
        return " ".join(command(parser().parse_args(["gate", "--family", "tiny", *given])))

    assert "-n 0 --gate-family=tiny --gate-ray=h:1" in written("--ray", "h:1")
    assert "-n 3 --gate-family=tiny --gate-ray=h:1" in written("--ray", "h:1", "-n", "3")  # pytest refuses it
    assert "-n auto --gate-family=tiny" in written()


@needs_ray
@pytest.mark.parametrize(("idle", "threads"), [(3, 3), (64, 8)])
def test_a_task_uses_the_cores_of_its_own_that_are_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle: int, threads: int
) -> None:
    """Let a task reserve eight cores on a node where something else may keep some of them busy."""
    import ray

    seen: list[task.Recorder] = []

    def main(_: list[str], plugins: list[task.Recorder]) -> int:
        seen.extend(plugins)
        return 5

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    monkeypatch.setattr(task, "free_cores", lambda: idle)
    monkeypatch.setattr(pytest, "main", main)
    order = {
        "expected": alike.described([]), "environment": {}, "folder": str(tmp_path), "task": "r0", "cores": 8,
        "nodeids": [], "results": {}, "mark": "none", "arguments": [],
    }  # fmt: skip
    answer = json.loads(task.run(json.dumps(order), None))
    assert (answer["reports"], answer["trouble"]) == ([], "pytest ended with 5")
    assert seen[0].workerinput["safety_free_cores"] == threads
