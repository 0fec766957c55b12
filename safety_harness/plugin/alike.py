"""Compare another machine of a run with this one before a model loads: Python, packages, code and files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_harness.files import sha256_file
from safety_harness.plugin.environment import code_digest

if TYPE_CHECKING:
    from safety_harness.registry.load import Student

# What answers, verdicts and reports of tests depend on. The rest of an environment may differ, as by drivers.
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pydantic", "pytest", "pytest-xdist", "ray",
    "peft", "gguf", "accelerate", "datasets", "py3langid",
)  # fmt: skip
_FOLDER = "folder"
_NONE = "not installed"


def described(files: Iterable[Path | str]) -> dict[str, Any]:
    """Return what each machine of a run must have: as this one has it. *files* are hashed."""
    return {"versions": _versions(), "code": code_digest(), "files": _contents(files)}


def fault(wanted: Mapping[str, Any]) -> str:
    """Return in one line what this machine has otherwise than *wanted*, with the way out; nothing if it is alike."""
    if code_digest() != wanted["code"]:
        return "has another safety_harness than the machine where the run was started. Install or check out the same."
    for name, here in _versions().items():
        if here != (there := wanted["versions"].get(name, _NONE)):
            return f"{name} is {here}, and {there} where the run was started. Use one environment on all machines."
    found = _contents(wanted["files"])
    for file, content in wanted["files"].items():
        if found[file] != content:
            what = "lacks" if found[file] is None else "has another content in"
            return f"{what} {file}. Copy it there, to the same path, or share its folder."
    return ""


def sources(students: Sequence[Student]) -> Iterable[Path]:
    """Yield the question files and the folders of weights that *students* name by a path."""
    for student in students:
        family, task = student.family, student.spec.task
        splits = [family.harmful, family.harmless, *([task] if task else [])]
        questions = [family.text, *family.must.values(), *family.further.values()]
        questions += [source for split in splits for source in (*split.searched, split.report)]
        yield from (source.path for source in questions if source.path)
        for spec in student.models:
            # A GGUF file has gigabytes: its hash is in the record of each patch.
            yield from (path if path.is_dir() else path.parent for path in (spec.path, spec.gguf) if path)
            yield from spec.adapters
        for row in family.models_that_judge.values():
            yield from (path for path in (getattr(row, "path", None), getattr(row, "prompt", None)) if path)


def _versions() -> dict[str, str]:
    versions = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = _NONE
    return versions


def _contents(files: Iterable[Path | str]) -> dict[str, str | None]:
    """Return path -> sha256 of what is there. Of folders, which hold weights, only that they are there."""
    paths = sorted({Path(file).absolute() for file in files})
    return {str(path): _FOLDER if path.is_dir() else sha256_file(path) if path.is_file() else None for path in paths}
