"""One torch thread, and a cache of their own, for all tests that run models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import make_pair
from tests.refusal_world import build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices only lose by threads, and test workers share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(cache: Path) -> Path:
    """Nothing that a test prepares or finds is kept for another."""
    return cache


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], tuple[Path, Path]]:
    """(architecture, tied) -> folders (student, teacher), made once a session; read only."""
    made: dict[tuple[str, bool], tuple[Path, Path]] = {}

    def pair(architecture: str, tied: bool = True) -> tuple[Path, Path]:
        key = (architecture, tied)
        if key not in made:
            root = tmp_path_factory.mktemp(architecture)
            made[key] = make_pair(root, architecture, tied=tied)
        return made[key]

    return pair


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a student and its teachers with their questions, trained once a session; read only."""
    return build(tmp_path_factory.mktemp("world"))
