"""Make everything collected from this folder a release gate: it needs a student, and it decides.

The fixtures are named here, so that no conftest.py of a project replaces them.
"""

from __future__ import annotations

import pytest

from safety_harness.plugin.names import attack, measure, patch, student, subject, teacher

__all__ = ["attack", "measure", "patch", "student", "subject", "teacher"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist asks how many workers there may be
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Let the tests of this folder run once for each student."""
    config.option.safety_suites = True
