"""Everything collected from this folder is a release gate: it needs a student, and it decides."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.option.safety_suites = True
