"""Check what ``safety-harness init`` writes, what it refuses, and that nothing is written over."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from safety_harness.cli import init as command
from safety_harness.evaluation import machine
from safety_harness.evaluation.machine import Machine
from safety_harness.registry.load import load_registry
from tests.cli.conftest import Command
from tests.fake_hub import Hub

TINY = Path(command.__file__).parents[1] / "families" / "tiny"
MODELS, TASKS = TINY / "models", TINY / "prompts" / "tasks"
STUDENT, TEACHER = MODELS / "llama" / "capitals", MODELS / "llama" / "teacher"
QUIET = Machine(8, 0.0, 32 << 30, "", 0, False, 1e11, 1e10)
WITH_GPU = Machine(8, 0.0, 32 << 30, "H200", 140 << 30, True, 4e14, 3e12)
FILES = [
    ".github/workflows/gate.yml", ".gitignore", ".gitlab-ci.yml", "gate-constraints.txt", "gate.toml",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "measure", lambda: QUIET)


def files(folder: Path) -> list[str]:
    """Return the files below *folder*."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def counted(text: str) -> list[str]:
    """Return the lines of a TOML text that count: no comments, no empty ones."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_a_student_and_a_teacher_become_a_registry(command: Command, tmp_path: Path) -> None:
    """Write everything for a tiny student with a task of its own."""
    tasks = [TASKS / f"capitals.{side}.jsonl" for side in ("search", "report")]
    code, out, _ = command(
        "init", tmp_path, "--student", STUDENT, "--teacher", TEACHER, "--task", tasks[0], "--task", tasks[1], "--yes"
    )
    assert code == 0
    assert files(tmp_path) == FILES
    text = (tmp_path / "gate.toml").read_text()
    assert len(counted(text)) <= 15
    (student,) = load_registry(tmp_path / "gate.toml").select()
    family = student.family
    assert (student.id, student.spec.path, family.preset, family.dtype) == (
        "mine/capitals", STUDENT, "standard", "float32",
    )  # fmt: skip
    assert family.teacher is not None
    assert family.teacher.path == TEACHER
    assert family.harmful.search.path == TINY / "prompts" / "harmful.search.jsonl"
    assert student.spec.task is not None
    assert student.spec.task.report.path == tasks[1]
    for said in ("llama, 0.4 M parameters", "plan: ", "safety-harness doctor", "safety-harness gate"):
        assert said in out


def test_one_task_file_is_split_and_paths_below_are_relative(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lay student and task into the folder itself, and write into the working folder."""
    shutil.copytree(STUDENT, tmp_path / "models" / "our release.v2")
    shutil.copy(TASKS / "capitals.report.jsonl", tmp_path / "task.jsonl")
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(
        "init",
        "--student",
        "models/our release.v2",
        "--teacher",
        TEACHER,
        "--task",
        "task.jsonl",
        "--ci",
        "none",
        "--yes",
    )
    assert code == 0
    table = tomllib.loads((tmp_path / "gate.toml").read_text())["families"]["mine"]["students"]
    assert table == {"our-release.v2": {"path": "models/our release.v2", "task": "task.jsonl"}}
    assert "next:\n  safety-harness doctor\n  safety-harness gate" in out
    assert not (tmp_path / "gate-constraints.txt").exists()


def test_without_a_teacher_no_patch_is_planned(command: Command, tmp_path: Path) -> None:
    """Name a student alone."""
    code, out, _ = command("init", tmp_path, "--student", STUDENT, "--yes", "--ci", "github")
    assert code == 0
    assert "plan: gated as it is" in out
    (student,) = load_registry(tmp_path / "gate.toml").select()
    assert not student.patchable
    assert not (tmp_path / ".gitlab-ci.yml").exists()


def test_a_served_student_is_named_by_its_address(command: Command, tmp_path: Path) -> None:
    """Name a server that is there and one that is not yet: the gate may start it."""
    address = "http://127.0.0.1:9/v1"
    given = ("--student", f"{address}/chat/completions", "--model", "org/our model", "--key-env", "MY_KEY", "--yes")
    code, out, err = command("init", tmp_path, *given)
    assert (code, err) == (0, "")
    assert "nothing answers at 127.0.0.1:9" in out
    assert "plan: gated as it is" in out
    table = tomllib.loads((tmp_path / "gate.toml").read_text())["families"]["mine"]
    assert table == {
        "max_new_tokens": 48,
        "students": {"our-model": {"served": {"url": address, "model": "org/our model", "key_env": "MY_KEY"}}},
    }
    (student,) = load_registry(tmp_path / "gate.toml").select()
    assert student.spec.served


def test_a_large_model_on_a_gpu_runs_in_bfloat16() -> None:
    """Choose the number format by what computes and by the size of the model."""
    assert WITH_GPU.dtype(1_000_000_000) == "bfloat16"
    assert WITH_GPU.dtype(400_000) == "float32"
    assert QUIET.dtype(1_000_000_000) == "float32"


def test_a_model_of_the_hub_is_pinned_to_its_revision(command: Command, tmp_path: Path, hub: Hub) -> None:
    """Name student and teacher by their names on a hub."""
    models = {
        name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for name, folder in (("org/student", STUDENT), ("org/teacher", TEACHER))
    }
    pins = {name: hub.add(name, content) for name, content in models.items()}
    code, out, err = command("init", tmp_path, "--student", "org/student", "--teacher", "org/teacher", "--yes")
    assert (code, err) == (0, "")
    table = tomllib.loads((tmp_path / "gate.toml").read_text())["families"]["mine"]
    assert table["teacher"] == {"hf": "org/teacher", "revision": pins["org/teacher"]}
    assert table["students"] == {"student": {"hf": "org/student", "revision": pins["org/student"]}}
    assert "llama, 0.4 M parameters" in out
    hub.gated.add("org/student")
    code, _, err = command("init", tmp_path / "other", "--student", "org/student", "--yes")
    assert (code, "hf auth login" in err, err.count("\n")) == (2, True, 1)
    code, _, err = command("init", tmp_path / "other", "--student", "org/nothing", "--yes")
    assert (code, "no such model" in err, err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "other" / "gate.toml").exists()


def test_an_adapter_is_written_with_the_base_that_it_names(command: Command, tmp_path: Path) -> None:
    """Lay a LoRA adapter down, with a base that is there and with one that is an adapter itself."""
    import torch
    from safetensors.torch import save_file

    adapter = tmp_path / "lora"
    adapter.mkdir()
    save_file({"a": torch.zeros(2, 2)}, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(STUDENT)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert command("init", tmp_path, "--student", adapter, "--yes")[0] == 0
    table = tomllib.loads((tmp_path / "gate.toml").read_text())["families"]["mine"]["students"]["lora"]
    assert table == {"path": str(STUDENT), "adapters": ["lora"]}
    for base, said in ((str(adapter), "an adapter on another adapter"), ("gone/away/x", "whose base cannot be used")):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        code, _, err = command("init", tmp_path / "new", "--student", adapter, "--yes")
        assert (code, said in err, err.count("\n")) == (2, True, 1)


def test_nothing_is_written_over_without_force(command: Command, tmp_path: Path) -> None:
    """Write twice, then with force; what git ignores already stays."""
    (tmp_path / ".gitignore").write_text("models/\nreports/\n")
    given = ("init", tmp_path, "--student", STUDENT, "--yes")
    assert command(*given)[0] == 0
    assert (tmp_path / ".gitignore").read_text().splitlines()[:3] == ["models/", "reports/", ".safety_harness/"]
    (tmp_path / "gate.toml").write_text("mine")
    code, _, err = command(*given)
    assert (code, "gate.toml: exists" in err) == (2, True)
    assert (tmp_path / "gate.toml").read_text() == "mine"
    assert command(*given, "--force")[0] == 0
    assert load_registry(tmp_path / "gate.toml").select()


def test_a_terminal_is_asked_for_what_no_option_says(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answer the questions, then let the input end."""
    asked = [str(STUDENT), str(TEACHER), ""]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: asked.pop(0))
    assert command("init", tmp_path)[0] == 0
    assert load_registry(tmp_path / "gate.toml").select()[0].patchable

    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    code, _, err = command("init", tmp_path / "other")
    assert (code, "--student" in err) == (2, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "Name it with --student"),
        (["--student", "gone"], "gone: no such folder or .gguf file, and no name on a hub"),
        (["--student", "~nobody-here/x"], "no home folder is known"),
        (["--student", "{tmp}/empty"], "config.json"),
        (["--student", "{tmp}/pickle"], "pickle"),
        (["--student", "{tmp}/text.txt"], "neither a model folder nor a .gguf file"),
        (["--student", "{student}", "--teacher", "{student}"], "Student and teacher are one model"),
        (["--student", "{student}", "--teacher", "{mistral}"], "a mistral model"),
        (["--student", "{student}", "--task", "{tmp}/text.txt"], "only JSON lines say which text is the answer"),
        (["--student", "{student}", "--task", "{tmp}/gone.jsonl"], "gone.jsonl"),
        (["--student", "{student}", "--task", "a", "--task", "b", "--task", "c"], "one file, or two"),
        (["--student", "{student}", "--family", "a b"], "--family 'a b'"),
        (["--student", "{student}", "--family", "..."], "--family '...'"),
        (["--student", "x" * 5000], "File name too long"),
        (["--student", "{student}", "--model", "ours"], "of a server: name its address with --student"),
        (["--student", "http://localhost:1/v1"], "Name it with --model"),
        (["--student", "http://localhost:1/v1", "--model", "m", "--teacher", "{student}"], "is gated as it is"),
        (["--student", "http://user:pw@localhost:1/v1", "--model", "m"], "url: holds a key"),
        (["--student", "http://", "--model", "m"], "url: must be like http://localhost:8000/v1"),
        (["--student", "http://localhost:1/v1", "--model", "m", "--key-env", "sk-123"], "no name of an environment"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(command: Command, tmp_path: Path, given: list[str], said: str) -> None:
    """Give models and files that cannot be gated: nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a question\n")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"x")
    places = {"tmp": tmp_path, "student": STUDENT, "mistral": MODELS / "mistral" / "teacher"}
    code, _, err = command("init", tmp_path / "new", *(one.format(**places) for one in given), "--yes")
    assert (code, said in err, err.count("\n")) == (2, True, 1), err
    assert not (tmp_path / "new").exists() or files(tmp_path / "new") == []


def test_a_folder_that_cannot_be_written_to_is_named(command: Command, tmp_path: Path) -> None:
    """Write below a file."""
    (tmp_path / "file").write_text("x")
    code, _, err = command("init", tmp_path / "file" / "below", "--student", STUDENT, "--yes")
    assert (code, "file" in err, err.count("\n")) == (2, True, 1)
