"""Compare a node with the controller before a model loads: Python, packages, code, registry and question files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety_harness.files import sha256_file
from safety_harness.plugin.environment import code_digest

if TYPE_CHECKING:
    import pytest

    from safety_harness.registry.load import Student

# What answers and verdicts depend on. The rest of an environment may differ, as by drivers.
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pydantic", "pytest", "ray", "peft", "gguf",
    "accelerate", "datasets", "py3langid",
)  # fmt: skip
_FOLDER = "folder"


def expected(session: pytest.Session, students: Sequence[Student]) -> dict[str, Any]:
    """Return what each node must have: as this machine has it."""
    config = session.config
    conftests = [plugin.__file__ for plugin in config.pluginmanager.get_plugins() if _is_conftest(plugin)]
    files = [*config.option.safety_registry, *(item.path for item in session.items), *conftests]
    option = config.option
    given = [
        config.inipath,
        config.invocation_params.dir,
        option.safety_patches,
        option.safety_earlier,
        option.safety_labels,
    ]
    return {**_installed(), "files": _contents({*files, *filter(None, given), *_sources(students)})}


def fault(wanted: Mapping[str, Any]) -> str:
    """Return in one line what this machine has otherwise than *wanted*, with the way out; nothing if it is alike."""
    here = _installed()
    for name in ("Python", *PACKAGES):
        if (there := here["versions"].get(name, "not installed")) != wanted["versions"].get(name, "not installed"):
            asked = wanted["versions"].get(name, "not installed")
            return f"{name} is {there}, and {asked} where the run was started. Use one environment on all nodes."
    if here["code"] != wanted["code"]:
        return (
            "has another safety_harness than the machine where the run was started. Install or check out the same there"
        )
    found = _contents(wanted["files"])
    for file, content in wanted["files"].items():
        if found[file] != content:
            what = "lacks" if found[file] is None else "has another content in"
            return f"{what} {file}. Copy it there, to the same path, or share its folder."
    return ""


def _installed() -> dict[str, Any]:
    versions = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "code": code_digest()}


def _contents(files: Iterable[Path | str]) -> dict[str, str | None]:
    """Return path -> sha256 of what is there. Of folders, which hold weights, only that they are there."""
    paths = sorted({Path(file).absolute() for file in files})
    return {str(path): _FOLDER if path.is_dir() else sha256_file(path) if path.is_file() else None for path in paths}


def _sources(students: Sequence[Student]) -> Iterable[Path]:
    """Yield the question files and the weights that *students* name by a path."""
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


def _is_conftest(plugin: object) -> bool:
    return str(getattr(plugin, "__file__", None) or "").endswith("conftest.py")
