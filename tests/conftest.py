"""What all tests share: nothing of a user's own cache is ever read or written."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(folder))
    return folder
