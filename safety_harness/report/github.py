"""Show a run on GitHub: a job summary, and an annotation for each reason against the release."""

from __future__ import annotations

import os
from pathlib import Path

from safety_harness.errors import HarnessError
from safety_harness.gate.results import Outcome, RunResult
from safety_harness.registry.settings import GateSettings
from safety_harness.report.comparison import Versus
from safety_harness.report.markdown import brief
from safety_harness.text import visible

SUMMARY = "GITHUB_STEP_SUMMARY"
ACTIONS = "GITHUB_ACTIONS"
# GitHub refuses a larger summary of a step, and shows no more annotations of a kind.
MAX_SUMMARY_BYTES = 1024 * 1024
MAX_ANNOTATIONS = 10


def write_summary(result: RunResult, against: Versus | None = None) -> bool:
    """Append the short report to the file that ``GITHUB_STEP_SUMMARY`` names. Return false where it names none.

    Raises:
        HarnessError: it cannot be written.
    """
    name = os.environ.get(SUMMARY)
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8") as stream:
            stream.write(brief(result, against).encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore"))
    except OSError as error:
        raise HarnessError(f"{name} (${SUMMARY}): cannot be written ({error.strerror}).") from error
    return True


def workflow_commands(result: RunResult) -> list[str]:
    """Return one annotation for each reason against the release: errors if the gate failed, warnings otherwise.

    Empty outside of GitHub Actions.
    """
    if not os.environ.get(ACTIONS):
        return []
    kind = "error" if result.outcome is Outcome.FAIL else "warning"
    softened = [annotation("warning", text) for text in softened_rules(result)[:MAX_ANNOTATIONS]]
    return [*(annotation(kind, reason) for reason in result.reasons[:MAX_ANNOTATIONS]), *softened]


def annotation(kind: str, text: str) -> str:
    """Return the line by which a job of GitHub annotates a run: an ``error`` or a ``warning``."""
    return f"::{kind} title=release gate::{visible(text).replace('%', '%25')}"


def softened_rules(result: RunResult) -> list[str]:
    """Return a sentence for each threshold that is not the default. That a failure is stated is among the reasons."""
    defaults = GateSettings().model_dump()
    return [
        f"{name}: gate.{threshold} is {value} (default {defaults[threshold]})"
        for name, rules in result.gate.items()
        if isinstance(rules, dict) and isinstance(rules.get("gate"), dict)
        for threshold, value in rules["gate"].items()
        if defaults.get(threshold, value) != value
    ]
