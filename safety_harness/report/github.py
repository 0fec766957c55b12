"""Show a run on GitHub: a job summary, and an annotation for each reason against the release."""

from __future__ import annotations

import os
from pathlib import Path

from safety_harness.errors import HarnessError
from safety_harness.gate.results import Outcome, RunResult
from safety_harness.report.comparison import Versus
from safety_harness.report.head import notices
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

    Before them stand warnings about thresholds that were changed after the run, or are looser than the default.

    Empty outside of GitHub Actions.
    """
    if not os.environ.get(ACTIONS):
        return []
    kind = "error" if result.outcome is Outcome.FAIL else "warning"
    reasons = [annotation(kind, reason) for reason in result.reasons[:MAX_ANNOTATIONS]]
    return [*(annotation("warning", notice) for notice in notices(result)[:MAX_ANNOTATIONS]), *reasons]


def annotation(kind: str, text: str) -> str:
    """Return the line by which a job of GitHub annotates a run: an ``error`` or a ``warning``."""
    return f"::{kind} title=release gate::{visible(text).replace('%', '%25')}"
