"""Fixtures for artifacts: one that is made again for each test, and one that is made once and copied."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts import Made, make_artifact
from tests.refusal_world import write_questions


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the questions that every student here is asked."""
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture
def made(tmp_path: Path, questions: Path) -> Callable[..., Made]:
    """A function that makes an artifact of a pair of random models, of whole modules and of channels."""
    return functools.partial(make_artifact, tmp_path, questions)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> Made:
    """An artifact with the student's own numbers, for tests that leave it and its models as they are."""
    return make_artifact(tmp_path_factory.mktemp("artifact"), questions, keep_original=True)


@pytest.fixture
def folder(made_once: Made, tmp_path: Path) -> Path:
    """A copy of that artifact, to be damaged."""
    return shutil.copytree(made_once.artifact.folder, tmp_path / "artifact")
