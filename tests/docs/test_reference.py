"""Check that docs/reference.md is what the code says, and that pages name commands and options that exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from safety_harness.cli.main import parser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script(docs_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return docs/reference.py as a module."""
    return docs_script("reference")


def test_reference_is_what_the_code_says(script: ModuleType) -> None:
    assert script.FILE.read_text(encoding="utf-8") == script.reference(), "write it again: python docs/reference.py"


def text_to_copy() -> str:
    """Return the pages whose commands a reader copies."""
    names = (
        "README.md",
        "docs/tutorial.md",
        "docs/second-day.md",
        "docs/results.md",
        "docs/releasing.md",
        "docs/gate.yml",
    )
    return "".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def test_commands_to_copy_parse() -> None:
    """Every `safety-harness` line that a reader copies is a command with its real arguments."""
    lines = re.findall(r"(?:^ *\$|run:) (?:/\S+/)?safety-harness ([^#\n]+)", text_to_copy(), flags=re.MULTILINE)
    lines = [line for line in lines if line.strip() != "--version"]
    assert len(lines) >= 25
    for line in lines:
        parser().parse_args(line.split())


def test_pytest_options_to_copy_exist(pytestconfig: pytest.Config) -> None:
    """Every option of a gated run that a reader copies is one that pytest knows."""
    known = {
        name for action in vars(pytestconfig._parser)["_groups"] for each in action.options for name in each.names()
    }
    lines = re.findall(r"pytest (?:suites/|--pyargs safety_harness\.suites)([^#`\n]*)", text_to_copy())
    assert len(lines) >= 5
    for line in lines:
        assert set(re.findall(r"--[\w-]+", line)) <= known


def test_workflow_runs_the_gate_and_keeps_the_patch() -> None:
    steps = yaml.safe_load((ROOT / "docs" / "gate.yml").read_text())["jobs"]["gate"]["steps"]
    runs = {step["name"]: step for step in steps if "run" in step}
    assert runs["Gate"]["run"].startswith("safety-harness gate ")
    # A student that needs no patch has none to write, and its job is green all the same.
    assert runs["Write the patch"]["continue-on-error"]
