"""Find tests that measured nothing: they broke, were skipped or expected to fail, or there were none."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from safety_harness.errors import masked
from safety_harness.plugin.fixtures import NO_TEACHER

# A test of a patch or a teacher says so where there is none, and is missed by nobody. Nor is what a run leaves out
# unless it is asked for: the check of it is required where it is gated.
_UNMISSED = (NO_TEACHER, "the student is gated as it is", "no tuning was asked for")


def left_out(report: pytest.TestReport) -> bool:
    """Return whether a test of a gate did not run, or failed as a mark of its own expects."""
    return report.skipped and not _skipped_because(report).startswith(_UNMISSED)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return in one line why a test, or a file of tests, broke or was left out."""
    if report.skipped:
        expected = getattr(report, "wasxfail", None)
        return masked(
            f"expected to fail ({expected})" if expected is not None else f"skipped: {_skipped_because(report)}"
        )
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", report.longrepr)).strip().removeprefix("Failed: ")
    lines = [line for line in text.splitlines() if line.strip()] or ["no reason given"]
    # The last line of a traceback is the error.
    return masked(lines[0] if isinstance(report, pytest.TestReport) else lines[-1])


def idle_suites(config: pytest.Config, ran: Collection[Path]) -> dict[str, str]:
    """Return why each file or folder of the command line broke of which no test ran; *ran* are the files that did."""
    files = {(config.rootpath / file).resolve() for file in ran}
    places = {argument: config.invocation_params.dir / argument.partition("::")[0] for argument in config.args}
    return {
        argument: "no test of it ran. pytest finds test_*.py, and in these functions test_*"
        for argument, place in places.items()
        if place.exists() and not any(file.is_relative_to(place.resolve()) for file in files)
    }


def _skipped_because(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason of a skip, which pytest keeps behind the place of the skip."""
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple | list) else report.longrepr
    return str(reason).removeprefix("Skipped: ").partition("\n")[0]
