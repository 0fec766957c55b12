"""Mark a run of this folder as a release gate: its tests need a student, and they decide."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist asks how many workers there may be
def pytest_cmdline_main(config: pytest.Config) -> None:
    config.option.safety_suites = True
