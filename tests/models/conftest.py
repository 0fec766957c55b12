"""Share what takes time to make: transformers' own answers, and a checkpoint to convert."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_harness.models.load import load
from tests.models import byte_llama
from tests.models.answering import Answers, Pairs, references


@pytest.fixture(scope="session")
def expected(pairs: Pairs) -> Callable[..., Answers]:
    """(architecture, tied) -> the student's answers to QUESTIONS by transformers, one by one, made once a session."""

    @functools.cache
    def answers(architecture: str, tied: bool = False) -> Answers:
        return references(load(pairs(architecture, tied)[0], "float32"))

    return answers


@pytest.fixture(scope="session")
def whole_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a byte-level Llama, made once a session; read only."""
    return byte_llama.build(tmp_path_factory.mktemp("byte-llama") / "base")


@pytest.fixture
def base(whole_base: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which a test may spoil."""
    return Path(shutil.copytree(whole_base, tmp_path / "base"))
