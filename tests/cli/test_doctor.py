"""Check that ``safety-harness doctor`` says what will go wrong, before anything is loaded."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safety_harness.evaluation import findings, machine
from safety_harness.evaluation.estimate import sketch
from safety_harness.evaluation.machine import Machine
from safety_harness.registry.fetch import resolve
from safety_harness.registry.schema import ModelSpec
from tests.cli.conftest import Command
from tests.cli.test_init import QUIET, STUDENT, TEACHER
from tests.fake_hub import Hub

REGISTRY = """
[families.mine]
teacher = "{teacher}"
dtype = "{dtype}"
harmful = "tiny"
harmless = "tiny"
text = "tiny"
[families.mine.students.one]
{student}
"""


def write(
    folder: Path, *, student: str = f'path = "{STUDENT}"', teacher: Path = TEACHER, dtype: str = "float32"
) -> Path:
    """Write a registry of a tiny student."""
    file = folder / "gate.toml"
    file.write_text(REGISTRY.format(teacher=teacher, student=student, dtype=dtype))
    return file


@pytest.fixture
def found(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return the findings of a registry on a machine, as [level, about, message], and the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(file: Path, here: Machine = QUIET) -> tuple[int, list[list[str]]]:
        monkeypatch.setattr(machine, "measure", lambda: here)
        code, out, _ = command("doctor", "--registry", file, "--json")
        return code, [list(finding.values()) for finding in json.loads(out)["findings"]]

    return run


@pytest.mark.parametrize("task", ["", 'task = "arithmetic"'])
def test_a_healthy_registry_has_no_finding(command: Command, tmp_path: Path, found, task: str) -> None:  # type: ignore[no-untyped-def]
    """Look at a tiny student on a quiet machine, in JSON and in words, with a task of its own and without one."""
    assert found(write(tmp_path, student=f'path = "{STUDENT}"\n{task}')) == (0, [])
    code, out, _ = command("doctor")  # gate.toml of the working folder
    assert (code, "1 student: nothing was found that goes wrong" in out) == (0, True)


@pytest.mark.parametrize(
    ("here", "dtype", "level", "said"),
    [
        (replace(QUIET, load=7.5), "float32", "warns", "7.5 of 8 cores are busy"),
        (replace(QUIET, memory=1), "float32", "breaks", "Take a larger machine, one with a GPU"),
        (replace(QUIET, gpu="small", gpu_memory=1), "float32", "breaks", "and the GPU has 0.0 free"),
        (QUIET, "bfloat16", "warns", "this machine has no unit"),
        (replace(QUIET, flops=1e3, bandwidth=1e3), "float32", "warns", "hours here. Without a GPU"),
    ],
)
def test_a_machine_that_will_not_do_is_found(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, here: Machine, dtype: str, level: str, said: str
) -> None:
    """Take a machine that is busy, small, slow, or has no unit for the number format."""
    code, rows = found(write(tmp_path, dtype=dtype), here)
    assert code == (1 if level == "breaks" else 0)
    assert any(row[0] == level and said in row[2] for row in rows), rows


@pytest.mark.parametrize(
    ("key", "together", "said"),
    [
        ("", 2**40, r'the GPU has 0.0 free. Spread it over all GPUs (`device_map = "auto"`)'),
        ('device_map = "auto"', 2**40, None),
        ('device_map = "auto"', 1, "the GPUs together have 0.0 free. Take a larger machine"),
    ],
)
def test_a_spread_model_has_the_room_of_all_gpus(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, key: str, together: int, said: str | None
) -> None:
    """Take several GPUs, none of which has room for the student."""
    file = write(tmp_path)
    file.write_text(file.read_text().replace("[families.mine]", f"[families.mine]\n{key}"))
    code, rows = found(file, replace(QUIET, gpu="8 x small", gpu_memory=1, gpus_memory=together))
    assert [row[0] for row in rows] == (["breaks"] if said else [])
    assert all(said in row[2] for row in rows) if said else code == 0


def test_a_missing_question_file_breaks(tmp_path: Path, found) -> None:  # type: ignore[no-untyped-def]
    """Name questions that are not there."""
    file = write(tmp_path)
    file.write_text(file.read_text().replace('text = "tiny"', 'text = "gone.txt"'))
    code, rows = found(file)
    assert (code, rows[0][0], "gone.txt" in rows[0][2]) == (1, "breaks", True)


def test_a_model_without_a_chat_template_is_noted(tmp_path: Path, found) -> None:  # type: ignore[no-untyped-def]
    """Leave the template out."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in STUDENT.iterdir():
        if path.name != "chat_template.jinja":
            (bare / path.name).write_bytes(path.read_bytes())
    code, rows = found(write(tmp_path, student='path = "bare"'))
    assert (code, rows[0][:2], "no chat template" in rows[0][2]) == (0, ["warns", "mine/one"], True)


def test_a_model_without_a_tokenizer_breaks(tmp_path: Path, found) -> None:  # type: ignore[no-untyped-def]
    """Leave every file of the tokenizer out."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in STUDENT.iterdir():
        if "token" not in path.name:
            (bare / path.name).write_bytes(path.read_bytes())
    code, rows = found(write(tmp_path, student='path = "bare"'))
    assert (code, rows[0][0], "holds no tokenizer" in rows[0][2]) == (1, "breaks", True)


def test_a_student_that_is_its_own_teacher_is_noted(tmp_path: Path, found) -> None:  # type: ignore[no-untyped-def]
    """Name one folder twice."""
    code, rows = found(write(tmp_path, teacher=STUDENT))
    assert (code, len(rows), "is its own teacher" in rows[0][2]) == (0, 1, True)


def test_a_server_that_is_not_there_breaks(tmp_path: Path, found, serve) -> None:  # type: ignore[no-untyped-def]
    """Name a server that answers, and a port where none does."""
    server = serve(lambda _: None)
    assert found(write(tmp_path, student=f'served = {{ url = "{server.url}", model = "m" }}')) == (0, [])
    server.stop()
    code, rows = found(write(tmp_path, student=f'served = {{ url = "{server.url}", model = "m" }}'))
    assert (code, rows[0][0], "nothing answers at 127.0.0.1:" in rows[0][2]) == (1, "breaks", True)


def test_missing_extras_break_where_they_are_needed(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hide every optional package: figures are left out, and an adapter cannot be merged."""
    real = importlib.util.find_spec
    hidden = ("peft", "gguf", "datasets", "matplotlib")
    monkeypatch.setattr(findings.importlib.util, "find_spec", lambda name: None if name in hidden else real(name))
    code, rows = found(write(tmp_path, student=f'path = "{STUDENT}"\nadapters = ["lora"]'))
    assert code == 1
    assert ["breaks", "mine"] in [row[:2] for row in rows]
    assert any(row[0] == "warns" and "safety-harness[figures]" in row[2] for row in rows)


@pytest.mark.parametrize(
    ("gated", "name", "said"),
    [(True, "org/model", "no token is set"), (False, "org/gone", "no such repository"), (False, "org/model", "")],
)
def test_a_hub_that_gives_nothing_is_found(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, hub: Hub, gated: bool, name: str, said: str
) -> None:
    """Name a model that its owner gives on request, one that is not there, and one that is."""
    hub.add("org/model", {path.name: path.read_bytes() for path in STUDENT.iterdir()})
    hub.gated |= {"org/model"} if gated else set()
    code, rows = found(write(tmp_path, student=f'hf = "{name}"'))
    assert code == (1 if said else 0), rows
    assert all(said in row[2] for row in rows)


def test_a_carried_model_is_found_with_the_hub_gone(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, hub: Hub, cache: Path
) -> None:
    """Fetch into the folder `hub` of the cache, as `fetch --to` does. doctor and plan look there, too."""
    (cache / "hub").mkdir(parents=True)
    hub.add("org/model", {path.name: path.read_bytes() for path in STUDENT.iterdir()})
    spec = ModelSpec(hf="org/model")
    folder = resolve(spec)
    hub.stop()
    assert folder.is_relative_to(cache / "hub")
    assert sketch(spec).here
    code, rows = found(write(tmp_path, student='hf = "org/model"'))
    assert code == 0, rows


def test_folders_that_cannot_be_written_to_break(  # type: ignore[no-untyped-def]
    tmp_path: Path, found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put a file where the cache should be."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    code, rows = found(write(tmp_path))
    assert (code, rows[0][:2]) == (1, ["breaks", "cache"])


def test_a_registry_that_cannot_be_read_is_one_line(command: Command, tmp_path: Path) -> None:
    """Name a file that is not there."""
    code, _, err = command("doctor", "--registry", tmp_path / "gone.toml")
    assert (code, err.count("\n"), "gone.toml" in err) == (2, 1, True)


def test_every_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at a box of two kinds. The roomiest GPU decides what fits."""
    names, free = ("A100", "T1000", "A100"), (5, 4, 70)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda at: names[at])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda at: (free[at] << 30, 80 << 30))
    gpu, memory = machine._gpus()
    assert (gpu, memory) == ("2 x A100 + T1000", [each << 30 for each in free])
    assert "2 x A100 + T1000 with up to 70 GiB free, " in str(replace(QUIET, gpu=gpu, gpu_memory=max(memory)))


def test_this_machine_is_measured() -> None:
    """Measure for real: all numbers are positive."""
    here = machine.measure()
    assert min(here.cores, here.memory, here.flops, here.bandwidth) > 0
    assert machine.free_disk() > 0
    assert "GB/s" in str(here)
