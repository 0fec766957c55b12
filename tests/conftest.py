"""What all tests share: nothing of a user's own cache is ever read or written, and no GPU is used unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Most tests compare bit for bit with what they compute on the CPU; `make gpu` runs those of the GPU itself. Read by
# torch when it first looks for one.
if "SAFETY_HARNESS_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAFETY_HARNESS_CACHE", str(folder))
    return folder
