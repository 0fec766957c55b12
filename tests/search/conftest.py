"""Share a patch among the tests that only read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from safety_harness.gate.records import Patch


@pytest.fixture(scope="session")
def default_patch(world: Path) -> Patch:
    """The patch of the world's student under the default settings, searched for once a session."""
    import torch

    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.search.reduce import search
    from tests.refusal_world import entry

    torch.set_num_threads(1)
    return search(open_evaluator(entry(world)), "key")


@pytest.fixture(scope="session")
def norm_patch(world: Path) -> Patch:
    """The patch that the prior ``norm`` leads to, which takes more probes."""
    import torch

    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.search.reduce import search
    from tests.refusal_world import entry

    torch.set_num_threads(1)
    return search(open_evaluator(entry(world, search={"prior": "norm"})), "key")
