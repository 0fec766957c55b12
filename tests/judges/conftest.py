"""Share models that were taught to judge: each is made once a session, and read only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def guard_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Form of guards.toml -> the folder of a model that judges in it."""
    from tests.judges.taught import teach_guard

    root = tmp_path_factory.mktemp("guards")
    return functools.cache(lambda form: teach_guard(root / form, form))


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(architecture, problem type, labels) -> the folder of a classifier of pairs, in which label 1 is a refusal."""
    from tests.judges.taught import make_tokenizer, teach_classifier

    root = tmp_path_factory.mktemp("classifiers")

    @functools.cache
    def folder(
        kind: str = "modernbert", problem: str | None = None, labels: tuple[str, ...] = ("Non-refusal", "Refusal")
    ) -> Path:
        name = "-".join([kind, str(problem), *labels])
        tokenizer = make_tokenizer(framed=True)
        return teach_classifier(
            root / name, kind, tokenizer, lambda case: (case.question, case.answer), labels, problem_type=problem
        )

    return folder
