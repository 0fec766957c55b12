"""Share the command, a registry of trained models, and a patch that the command searched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness.cli.main import main

REGISTRY = """
[families.world]
teacher = {{ path = "{world}/good", licence = "llama2" }}
harmful = {{ search = "{world}/harmful.search.jsonl", report = "{world}/harmful.report.jsonl" }}
harmless = {{ search = "{world}/harmless.search.jsonl", report = "{world}/harmless.report.jsonl" }}
text = "{world}/text.search.jsonl"
max_new_tokens = 16
batch_size = 16
# Six questions are too few to leave anything to the gate.
search = {{ target_share = 0.9, over_refusal = 0.05, task = 0.05, prior = "contrast", together = "module" }}
[families.world.students.plain]
path = "{world}/student"
task = {{ search = "{world}/task.search.jsonl", report = "{world}/task.report.jsonl" }}
[families.world.students.taught]
path = "{world}/good"
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command: called with its arguments, it gives its exit code and what it printed on either stream."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def registry(world: Path, tmp_path: Path) -> Path:
    """A registry with a student to patch, and with the teacher itself as another."""
    return write_world_registry(tmp_path, world)


def write_world_registry(folder: Path, world: Path) -> Path:
    """Write a registry of the trained models. Return its file."""
    file = folder / "registry.toml"
    file.write_text(REGISTRY.format(world=world), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def written_patch(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a patch that the command searched and wrote, once for all tests; read only."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SAFETY_HARNESS_CACHE", str(root / "cache"))
        registry = write_world_registry(root, world)
        assert (
            main(["search", "--student", "world/plain", "--registry", str(registry), "--out", str(root / "patch")]) == 0
        )
    return root / "patch"


@pytest.fixture
def patch(written_patch: Path, tmp_path: Path) -> Path:
    """A copy of the patch, to be changed at will."""
    return shutil.copytree(written_patch, tmp_path / "patch")
