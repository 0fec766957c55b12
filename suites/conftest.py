"""Everything collected from this folder is a release gate: it needs a student, and it decides."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist asks how many workers there may be
def pytest_cmdline_main(config: pytest.Config) -> None:
    config.option.safety_suites = True
