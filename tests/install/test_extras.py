"""Check that a missing extra is an error that names the command which installs it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness.errors import HarnessError
from safety_harness.models.convert import from_gguf, merge_adapter
from safety_harness.models.load import load
from safety_harness.registry.fetch import resolve_prompts
from safety_harness.registry.sources import PromptSource

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


@pytest.mark.parametrize(
    ("package", "act", "about"),
    [
        ("peft", lambda folder: merge_adapter(folder, folder / "lora", folder / "out"), "lora: merging a LoRA adapter"),
        ("gguf", lambda folder: from_gguf(folder / "m.gguf", folder / "out"), r"m\.gguf: reading a GGUF file"),
        (
            "accelerate",
            lambda folder: load(folder / "model", "float32", device_map="auto"),
            "model: spreading it over several GPUs",
        ),
        ("accelerate", lambda folder: from_gguf(folder / "m.gguf", folder / "out"), r"m\.gguf: reading a GGUF file"),
        (
            "datasets",
            lambda _: resolve_prompts(PromptSource(hf="org/set", column="question")),
            "hf:org/set: reading a question set of the hub",
        ),
    ],
)
def test_missing_extra_names_the_command(
    package: str, act: Callable[[Path], object], about: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take a package away, and run the command of the error: the extra that it names brings this package."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HarnessError, match=f"{about} needs {package}, which is not installed: ") as error:
        act(tmp_path)
    command = re.search(r"pip install 'safety-harness\[(\w+)\]'$", str(error.value))
    assert command
    assert package in [name.partition(">")[0] for name in EXTRAS[command[1]]]
    assert not (tmp_path / "out").exists()
