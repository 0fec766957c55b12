"""Check that a run gives the same in one process, in two, and after a kill at a random moment."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import kills


@pytest.mark.slow
def test_one_process_two_and_a_killed_run_give_the_same(tmp_path: Path) -> None:
    """Kill a run in two processes; the next one ends as one process that nothing disturbed.

    All facts of results.json are compared, and all files; dates, durations and the course of a search excepted.
    """
    registry = kills.write_world(tmp_path / "world")
    of = kills.reference("run", tmp_path, registry)
    trial, rng = kills.Trial("run", tmp_path / "killed", registry), random.Random(0)
    trial.kind = "controller"  # two processes
    trial.kill(rng.uniform(0.3, 0.9) * of.seconds)
    assert trial.finish() == of.code
    assert trial.facts() == of.facts
    assert trial.names() == of.names


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing() -> None:
    assert kills.main(["--to", "100"]) == 0
